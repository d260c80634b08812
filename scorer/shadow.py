"""Scored groups under a second configuration: what it shares with the first is recorded, the rest is done again."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from common.errors import BrokerError, ChildFailed
from common.schema import Scored
from common.settings import Section, Sections
from scorer.rewards import NEEDS_REWARD_MODEL, next_sigma_bar, reward_group
from scorer.sandbox import Item, Sandbox
from scorer.score_file import ScoresPairs

NO_MATTER = {"children", "tasks_per_child", "batch_tokens"}  # how fast, not what

log = structlog.get_logger("shadow")


@dataclass(frozen=True)
class Recorded:
    """What a second configuration takes from the first."""

    verdicts: bool
    scores: bool
    sigma_bar: bool

    @classmethod
    def of(cls, first: Sections | None, second: Sections) -> Recorded:
        """`first` is None where nobody knows it: then nothing is shared, but scores if `second` names no model."""
        needs = second.reward.mode in NEEDS_REWARD_MODEL
        if first is None:
            return cls(verdicts=False, scores=needs and second.reward_model.model is None, sigma_bar=False)
        same = second.reward_model.model is None or _same(first.reward_model, second.reward_model)
        scores = needs and same and first.reward.mode in NEEDS_REWARD_MODEL
        return cls(
            verdicts=_same(first.verifier, second.verifier),
            scores=scores,
            sigma_bar=scores and first.reward.sigma_momentum == second.reward.sigma_momentum,
        )


class Second:
    """Scores what was scored once. Its sigma_bar is the recorded one, or a running mean of its own.

    sandbox: asked for when a text is to be verified. model: None where the mode needs none, or its scores are recorded.
    """

    def __init__(
        self,
        settings: Sections,
        recorded: Recorded,
        sandbox: Callable[[], Sandbox],
        model: ScoresPairs | None,
        sigma_bar: float | None = None,
    ) -> None:
        self._reward = settings.reward
        self._recorded = recorded
        self._sandbox = sandbox
        self._model = model
        self.sigma_bar = sigma_bar
        """Running mean of sigma_u over the groups so far; None before the first, and where the recorded is taken."""

    def score(self, groups: Sequence[Scored]) -> list[Scored | None]:
        """The groups as the second configuration has them; None for one that it cannot score, told in the log."""
        started = time.monotonic()
        try:
            verdicts, scores = self._verdicts(groups), self._scores(groups)
        except (BrokerError, ChildFailed):  # nothing is wrong with the groups
            raise
        except Exception as error:
            if len(groups) > 1:  # each alone, so that one bad group harms no other
                return [found for group in groups for found in self.score([group])]
            log.warning("not scored", ticket=groups[0].ticket.id, why=f"{type(error).__name__}: {error}"[:400])
            return [None]
        seconds = time.monotonic() - started
        return [
            self._shaped(group, *found, raw, seconds)
            for group, found, raw in zip(groups, verdicts, scores, strict=True)
        ]

    def _verdicts(self, groups: Sequence[Scored]) -> list[tuple[list[str], list[str | None]]]:
        """Statuses and answers of each group. A context overflow of another reward model has hidden its verdict."""
        found = [(list(group.statuses), list(group.extracted)) for group in groups]
        again = [
            (number, place)
            for number, group in enumerate(groups)
            for place, status in enumerate(group.statuses)
            if not self._recorded.verdicts or (status == "context_overflow" and not self._recorded.scores)
        ]
        if not again:
            return found
        items = [
            Item(rollout.ticket.gold, rollout.completions[place].text, rollout.ticket.meta)
            for rollout, place in ((groups[number].rollout, place) for number, place in again)
        ]
        for (number, place), verdict in zip(again, self._sandbox().verify(items), strict=True):
            statuses, extracted = found[number]
            statuses[place], extracted[place] = verdict.status, verdict.extracted
        return found

    def _scores(self, groups: Sequence[Scored]) -> list[NDArray[np.float64] | None]:
        if self._recorded.scores:
            return [group.rm_scores for group in groups]
        if self._model is None:
            return [None] * len(groups)
        scores = self._model.score([(g.ticket.question, c.text) for g in groups for c in g.rollout.completions])
        return list(np.split(scores, np.cumsum([len(group.rollout.completions) for group in groups])[:-1]))

    def _shaped(
        self,
        group: Scored,
        given: list[str],
        extracted: list[str | None],
        scores: NDArray[np.float64] | None,
        seconds: float,
    ) -> Scored | None:
        if self._recorded.scores and not self._recorded.sigma_bar and self.sigma_bar is None:
            self.sigma_bar = group.sigma_bar
        sigma_bar = group.sigma_bar if self._recorded.sigma_bar else self.sigma_bar
        mode = self._reward.mode
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # of scores that a stranger wrote; refused below
                statuses, shaped = reward_group(mode, given, scores, sigma_bar=sigma_bar, options=self._reward)
            if not (np.isfinite(shaped.rewards).all() and np.isfinite(shaped.sigma_u or 0.0) and shaped.weight > 0):
                raise ValueError(f"rewards {shaped.rewards.tolist()}, weight {shaped.weight}, sigma_u {shaped.sigma_u}")
        except ValueError as error:
            log.warning("not scored", ticket=group.ticket.id, why=str(error)[:400])
            return None
        if shaped.sigma_u is not None and not self._recorded.sigma_bar:
            self.sigma_bar = next_sigma_bar(self.sigma_bar, shaped.sigma_u, self._reward.sigma_momentum)
        return dataclasses.replace(
            group,
            mode=mode,
            statuses=statuses,
            extracted=extracted,
            rm_scores=scores,
            r_hat=shaped.r_hat,
            weight=shaped.weight,
            sigma_u=shaped.sigma_u,
            sigma_bar=shaped.sigma_bar,
            scorer="shadow",
            seconds=seconds,
        )


def _same(one: Section, other: Section) -> bool:
    return one.model_dump(exclude=NO_MATTER) == other.model_dump(exclude=NO_MATTER)
