"""`hero shadow`: the groups of a living run scored once more under other settings, beside it, and what would change."""

from __future__ import annotations

import argparse
import functools
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from common import config, logs
from common.errors import BrokerUnavailable, ConfigError, RunFolderError, ShadowError
from common.lifecycle import Every, stop_on_signals
from common.schema import Scored
from common.settings import LearnerSettings, Sections, contradictions
from common.shadow import Shadow
from common.waiting import Waiting
from deploy.rescore import Change, draw, mean, table
from deploy.run_folder import id_and_url
from deploy.shadow_folder import State, earlier, keep
from deploy.show import console
from learner.advantage import SEPARATE
from learner.reward_log import RewardLog
from scorer.reward_models.backends import make_reward_model
from scorer.rewards import NEEDS_REWARD_MODEL
from scorer.shadow import Recorded, Second
from scorer.worker import make_sandbox

BLOCK_MS = 500
DRAIN_S = 40.0
LINE_EVERY_S = 5.0
MOST_COMPLETIONS = 50_000  # in line, table and picture, the latest


def run(arguments: argparse.Namespace, flags: Sequence[str]) -> int:
    """Scores until the run is over, `--groups` are seen or a signal asks to stop; returns the exit code."""
    logs.start("shadow", "WARNING")  # not among what is shown
    first, second = settings_of(arguments, flags)
    run_id, url = id_and_url(arguments.run, arguments.url)
    name: str = arguments.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise ConfigError(f"--name {name!r}: take letters, digits and _.-")
    if arguments.groups is not None and arguments.groups < 1:
        raise ConfigError(f"--groups {arguments.groups}: it must be 1 or more; without it there is no end")
    folder = Path(arguments.run)
    out = arguments.out or (folder / "shadow" / name if folder.is_dir() else Path(f"shadow-{name}"))
    stop = stop_on_signals(DRAIN_S)
    broker = Shadow(url, run_id, name, stop=stop)
    broker.fit()
    if not broker.begun():
        raise ShadowError(f"the broker at {broker.shown} knows no run {run_id}; run.json in its folder has the id")
    recorded = Recorded.of(first, second)
    change = Change(first or second, second, MOST_COMPLETIONS)
    with ExitStack() as stack:
        model = None if recorded.scores else make_reward_model(second, stop)
        if model is not None:
            stack.callback(model.close)
        sandbox = functools.cache(lambda: stack.enter_context(make_sandbox(second)))
        state = stack.enter_context(_joined(broker, out, second, arguments))
        console.print(_about(recorded, first, second, out), highlight=False, soft_wrap=True)
        scoring = Second(second, recorded, sandbox, model, state.sigma)
        following = Following(broker, scoring, change, state, out, second.learner)
        try:
            following.loop(stop, arguments.groups, second.scorer.batch_groups)
        except BrokerUnavailable:
            if not stop.is_set():
                raise
        finally:
            following.close()
    if change.groups:
        draw(change, out / "compare.png")
        console.print(table(change))
    console.print(f"{line(state, None, change)}\nlog and picture: {out}", highlight=False, soft_wrap=True)
    return 0


def settings_of(arguments: argparse.Namespace, flags: Sequence[str]) -> tuple[Sections | None, Sections]:
    """The run's own settings, None where nobody knows them, and the second: what its file leaves out is the run's."""
    own = Path(arguments.run) / "settings.json"
    file = arguments.first or (own if own.is_file() else None)
    if arguments.config is None:
        if file is None:
            raise ConfigError("which second configuration? give a TOML file; or the run's own, --first FILE, and flags")
        return config.load(file), config.load(file, flags)
    second: Sections = config.load(arguments.config, flags)
    if file is None:
        return None, second
    first = config.load(file)
    left_out = {name: getattr(first, name) for name in Sections.model_fields if name not in second.model_fields_set}
    second = second.model_copy(update=left_out)
    if problems := contradictions(second):
        raise ConfigError("\n".join(f"{key} = {value}: {text}" for key, value, text in problems))
    return first, second


@contextmanager
def _joined(broker: Shadow, out: Path, settings: Sections, arguments: argparse.Namespace) -> Iterator[State]:
    """The state of a shadow that has joined; it is written down and the group left at the end."""
    found = earlier(out, broker.run, broker.name, settings)
    kept = broker.join(from_now=arguments.from_now)
    stays = kept
    try:
        if kept and arguments.from_now:
            raise ShadowError(
                f"shadow {broker.name} was kept and goes on where it was: give another --name, or no --from-now"
            )
        if found is not None and found.groups and not kept:
            raise RunFolderError(
                f"{out} holds the log of an earlier shadow {broker.name}, which was not kept; give another --name, "
                "or delete that folder"
            )
        state = found if kept and found is not None else State(broker.run, broker.name, lost_at=broker.lost())
        keep(out, state, settings)
        stays = arguments.keep
        try:
            yield state
        finally:
            keep(out, state)
    finally:
        broker.leave(keep=stays)


class Following:
    """Reads what the run scores, scores it again, and says every few seconds how the two compare."""

    def __init__(
        self, broker: Shadow, second: Second, change: Change, state: State, folder: Path, learner: LearnerSettings
    ) -> None:
        self._broker, self._second, self._change, self._state, self._folder = broker, second, change, state, folder
        self._log = RewardLog(folder / "rewards", learner.reward_log_mb)
        # Some rules look at a whole batch. The learner's own are not known here: as many groups, as they come.
        self._together = learner.groups_per_step if learner.advantage in SEPARATE or learner.min_rm_auroc else 1
        self._waits: list[tuple[Scored, Scored]] = []
        self._waiting = Waiting("shadow")
        self._tell = Every(LINE_EVERY_S)

    def loop(self, stop: threading.Event, most: int | None, together: int) -> None:
        """Until `stop`, or the run is over and nothing is left, or `most` groups are read; so many `together`."""
        read = 0
        while not stop.is_set() and (most is None or read < most):
            over = self._broker.over()  # asked first: what came before it is still read
            taken = self._broker.read(together if most is None else min(together, most - read), BLOCK_MS)
            if taken:
                self._waiting.over()
                read += sum(group is not None for group in taken)
                self._take(taken)
            elif over:
                break
            else:
                self._waiting.on("scored groups", until="scorers deliver: are they alive?")
            if self._tell.due():
                self._say()
        if self._waits:
            self._compare()
        self._state.count_lost(self._broker.lost())

    def close(self) -> None:
        self._log.close()

    def _take(self, taken: Sequence[Scored | None]) -> None:
        groups = [group for group in taken if group is not None]
        self._state.malformed += len(taken) - len(groups)
        for group, again in zip(groups, self._second.score(groups), strict=True):
            if again is None:
                self._state.not_scored += 1
            else:
                self._waits.append((group, again))
            if len(self._waits) == self._together:
                self._compare()
        self._state.sigma = self._second.sigma

    def _compare(self) -> None:
        batch, self._waits = self._waits, []
        pairs = self._change.add(*([_row(group) for group in side] for side in zip(*batch, strict=True)))
        for (group, again), pair in zip(batch, pairs, strict=True):
            self._log.write(again, "shadow", group.ticket.step, pair.after.advantages)
        self._state.groups += len(batch)

    def _say(self) -> None:
        self._state.count_lost(self._broker.lost())
        keep(self._folder, self._state)  # for the next start, should this one be killed
        console.print(line(self._state, self._broker.lag(), self._change), highlight=False, soft_wrap=True)


def line(state: State, lag: int | None, change: Change) -> str:
    """Where it is and what would change, in one line; of the lag nothing when it is None."""
    words = [f"groups {state.groups:,}", *([] if lag is None else [f"lag {lag}"]), f"lost {state.lost}"]
    words += [f"{name.replace('_', ' ')} {n}" for name in ("malformed", "not_scored") if (n := getattr(state, name))]
    if change.groups:
        c = change.columns()
        rewards, sizes = ([mean(side) for side in pair] for pair in (c.rewards, [abs(a) for a in c.advantages]))
        words += [
            f"verdicts {mean(c.differ):.1%} differ",
            f"reward {rewards[0]:.3f} -> {rewards[1]:.3f}",
            f"|advantage| {sizes[0]:.3f} -> {sizes[1]:.3f}",
            f"signs {c.sign_changes:.1%} change",
        ]
    return "  ".join(words)


def _row(group: Scored) -> dict[str, Any]:
    return {
        "statuses": group.statuses, "rm_scores": group.rm_scores, "r_hat": group.r_hat, "rewards": group.rewards,
        "weight": group.weight,
    }  # fmt: skip


def _about(recorded: Recorded, first: Sections | None, second: Sections, out: Path) -> str:
    known = "" if first else "the run's own settings are not known (--first FILE); "
    scores = "recorded" if recorded.scores else "anew" if second.reward.mode in NEEDS_REWARD_MODEL else "none"
    return f"{known}verdicts {'recorded' if recorded.verdicts else 'anew'}, scores {scores}; log in {out}"
