"""A shadow beside a run on a real server: it scores what the run scores, and the run notices nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import config
from common.errors import BrokerUnavailable, ShadowError
from common.schema import Rollout, Scored, pack
from common.settings import Sections
from common.shadow import Shadow
from common.sigma import Sigma
from common.streams import Broker
from deploy import cli
from deploy.recorded import groups as logged
from deploy.rescore import Change
from deploy.shadow import Following
from deploy.shadow_folder import State
from scorer.hero import stratified_rewards
from scorer.reward_models.protocol import Sample
from scorer.sandbox import Sandbox
from scorer.shadow import Recorded, Second
from scorer.worker import Scorer
from tests.make import rollout, scored, ticket
from tests.small_disk import SmallDisk
from tests.until import until

TEXTS = ("so \\boxed{2}", "\\boxed{3}", "\\boxed{1+1}", "I give up")
FIRST = Sections.model_validate({"reward_model": {"model": "rm-1"}})


class ByText:
    """A reward model whose score follows from the text alone; what begins with "long" it cannot read."""

    def __init__(self, salt: str = "") -> None:
        self._salt = salt
        self.name = f"by text {salt}"
        self.scored = 0

    def score(self, samples: Sequence[Sample]) -> np.ndarray:
        self.scored += len(samples)
        if any(sample.question == "poison" for sample in samples):
            raise RuntimeError("CUDA error")
        found = [zlib.crc32(f"{self._salt}{s.question}{s.completion}".encode()) / 2**30 - 2 for s in samples]
        long = [sample.completion.startswith("long") for sample in samples]
        return np.where(long, np.nan, found)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(1, 10.0, 1024, 4000, 20_000) as running:
        yield running


class Run:
    """A run of which the learner, an actor and a scorer are played."""

    def __init__(self, broker: Broker, sandbox: Any) -> None:
        self.broker, self._sandbox = broker, sandbox
        self._incarnation = broker.take_over()
        self._issued = 0

    def score(self, count: int, first: Sections = FIRST, texts: Sequence[str] = TEXTS, question: str = "") -> None:
        """So many groups more are scored, by the real scorer."""
        for _ in range(count):
            asked = question or f"{self._issued} + 2 - {self._issued} = ?"
            order = ticket(
                self.broker.run, self._issued, completions=len(texts), incarnation=self._incarnation, question=asked
            )
            self._issued += 1
            assert self.broker.issue(order)
            [taken] = self.broker.read("tickets", 1, 1000)
            made = rollout(order)
            completions = [dataclasses.replace(made.completions[0], text=text) for text in texts]
            assert self.broker.hand_over(taken, Rollout(order, completions, "actor", 0.1))
        model = ByText() if first.reward.mode != "verifier" else None
        scorer = Scorer(first, self.broker, self._sandbox, model, threading.Event())  # type: ignore[arg-type]
        scorer._score(self.broker.read("rollouts", count, 1000))
        scorer.close()

    def train(self, count: int) -> list[Scored]:
        """The learner reads so many, closes and trims them."""
        read = self.broker.read("scored", count, 1000)
        self.broker.close(self._incarnation, [(d.ticket.id, 1, d.entry) for d in read])
        self.broker.trim()
        return [d.message for d in read if isinstance(d.message, Scored)]

    def state(self) -> dict[str, Any]:
        """Everything in the broker that is not the shadows' own."""
        redis, key = self.broker._redis, self.broker.key("scored")
        keys = {name: redis.dump(name) for name in redis.keys(f"{{{self.broker.run}}}:*") if name != key.encode()}
        owner = [info for info in redis.xinfo_groups(key) if not info["name"].startswith(b"shadow:")]
        pending = [(p["message_id"], p["consumer"]) for p in redis.xpending_range(key, "learner", "-", "+", 100)]
        return {"keys": keys, "entries": redis.xrange(key), "owner": owner, "pending": pending}


@pytest.fixture
def run(broker: Broker, sandbox: Sandbox) -> Run:
    return Run(broker, sandbox)


def shadow(run: Run, name: str = "second", **options: Any) -> Shadow:
    joined = Shadow(run.broker.url, run.broker.run, name, stop=threading.Event())
    joined.join(**options)
    return joined


def rest(joined: Shadow) -> list[Scored]:
    """What it was not given yet; at most three at a time."""
    found: list[Scored] = []
    while part := joined.read(3, 10):
        found += [group for group in part if group is not None]
    return found


def second(
    settings: Sections, recorded: Recorded, sandbox: Any = None, model: Any = None, sigma: Sigma | None = None
) -> Second:
    return Second(settings, recorded, lambda: sandbox, model, sigma)


def following(joined: Shadow, settings: Sections, folder: Path, **parts: Any) -> Following:
    state = parts.pop("state", None) or State(joined.run, joined.name)
    scoring = second(settings, Recorded.of(FIRST, settings), **parts)
    return Following(joined, scoring, Change(FIRST, settings), state, folder, settings.learner)


def numbers(group: Scored) -> list[Any]:
    raw = None if group.rm_scores is None else group.rm_scores.tobytes()
    return [group.ticket.id, group.statuses, group.extracted, raw, group.r_hat.tobytes(), group.weight, group.sigma_u]


def with_changes(**sections: dict[str, Any]) -> Sections:
    return Sections.model_validate(FIRST.model_dump(exclude_unset=True) | sections)


def test_the_run_notices_nothing(run: Run, tmp_path: Path) -> None:
    # Given groups that the learner holds, and others that it has not read
    run.score(5)
    run.broker.read("scored", 2, 100)
    before = run.state()
    # When a shadow reads all of them, with one that is none of ours among them, and leaves
    joined = shadow(run)
    mine = following(joined, with_changes(reward={"alpha": 0.05}), tmp_path)
    mine.loop(joined.stop, 5, 16)
    assert run.state() == before
    [info] = [i for i in run.broker._redis.xinfo_groups(run.broker.key("scored")) if b"shadow" in i["name"]]
    assert info["pending"] == 0 and joined.lag() == 0
    joined.leave(keep=False)
    # Then the run is as it was, and can go on
    assert run.state() == before and run.broker.shadows() == []
    assert [group.ticket.id for group in run.train(5)] == [2, 3, 4]


def test_the_same_settings_pay_the_same_bit_for_bit(run: Run, sandbox: Sandbox) -> None:
    run.score(4)
    run.score(3, texts=("long \\boxed{2}", *TEXTS))
    given = rest(shadow(run))
    assert len(given) == 7 and given[4].statuses[0] == "context_overflow" and len({g.weight for g in given}) == 7
    # Whether all is taken as it was recorded
    recorded = Recorded.of(FIRST, FIRST)
    assert recorded == Recorded(verdicts=True, scores=True, sigma=True)
    taken = second(FIRST, recorded).score(given)
    # or all is done again
    model = ByText()
    again = second(FIRST, Recorded(False, False, False), sandbox, model).score(given)
    assert model.scored == sum(len(g.statuses) for g in given)
    for found in (taken, again):
        assert [numbers(g) for g in found if g] == [numbers(g) for g in given]
        assert [g.sigma_bar for g in found if g] == [g.sigma_bar for g in given]


def test_other_rewards_are_those_of_the_equations(run: Run) -> None:
    run.score(3)
    given, settings = rest(shadow(run)), with_changes(reward={"alpha": 0.05, "beta": 0.3, "weighting": "off"})
    found = second(settings, Recorded.of(FIRST, settings)).score(given)
    for old, new in zip(given, found, strict=True):
        assert new is not None and old.rm_scores is not None
        correct = [status == "correct" for status in old.statuses]
        r_hat = stratified_rewards(correct, old.rm_scores, alpha=0.05, beta=0.3, eps=1e-6)
        np.testing.assert_array_equal(new.r_hat, r_hat)
        assert new.weight == 1.0 and new.sigma_bar == old.sigma_bar and new.statuses == old.statuses


def test_another_verifier_judges_the_texts_anew(run: Run, sandbox: Sandbox) -> None:
    run.score(2)
    given, settings = rest(shadow(run)), with_changes(verifier={"unevaluated": True})
    recorded = Recorded.of(FIRST, settings)
    assert (recorded.verdicts, recorded.scores) == (False, True)
    with Sandbox(1, 10.0, 1024, 4000, 20_000, unevaluated=True) as other:
        found = second(settings, recorded, other).score(given)
    assert [g.statuses for g in given] == [["correct", "wrong", "wrong", "no_answer"]] * 2
    assert [g.statuses for g in found if g] == [["correct", "wrong", "correct", "no_answer"]] * 2
    assert [g.rm_scores.tolist() for g in found if g and g.rm_scores is not None] == [
        g.rm_scores.tolist() for g in given if g.rm_scores is not None
    ]


def test_another_reward_model_has_a_sigma_bar_of_its_own(run: Run, sandbox: Sandbox) -> None:
    run.score(3)
    settings = with_changes(reward_model={"model": "rm-2"}, reward={"sigma_momentum": 0.5})
    recorded = Recorded.of(FIRST, settings)
    assert recorded == Recorded(verdicts=True, scores=False, sigma=False)
    scoring = second(settings, recorded, model=ByText("other"))
    given = rest(shadow(run))
    found = [*scoring.score(given[:1]), *scoring.score(given[1:])]
    bar = None
    for old, new in zip(given, found, strict=True):
        assert new is not None and new.rm_scores is not None and new.sigma_u is not None
        raw = ByText("other").score([Sample(old.ticket.question, c.text) for c in old.rollout.completions])
        np.testing.assert_array_equal(new.rm_scores, raw)
        assert new.sigma_u != old.sigma_u and new.sigma_bar == (new.sigma_u if bar is None else bar)
        bar = new.sigma_u if bar is None else 0.5 * bar + 0.5 * new.sigma_u
    assert scoring.sigma.bar == bar


def test_another_momentum_begins_at_the_recorded_sigma_bar(run: Run) -> None:
    run.score(4)
    rest(joined := shadow(run))
    run.score(2)
    given, settings = rest(joined), with_changes(reward={"sigma_momentum": 0.5})
    found = second(settings, Recorded.of(FIRST, settings)).score(given)
    assert found[0] is not None and found[1] is not None and found[0].sigma_u is not None
    assert found[0].sigma_bar == given[0].sigma_bar
    assert found[1].sigma_bar == 0.5 * given[0].sigma_bar + 0.5 * found[0].sigma_u != given[1].sigma_bar


def test_a_verdict_that_a_context_overflow_has_hidden_is_found_again(run: Run, sandbox: Sandbox) -> None:
    run.score(1, texts=("long \\boxed{2}", *TEXTS))
    given, settings = rest(shadow(run)), with_changes(reward={"mode": "verifier"})
    asked = []

    class Counting:
        def verify(self, items: Any) -> Any:
            asked.append(len(items))
            return sandbox.verify(items)

    [found] = second(settings, Recorded.of(FIRST, settings), Counting()).score(given)
    assert found is not None and asked == [1], "the others are taken as they are"
    assert given[0].statuses[0] == "context_overflow" and found.statuses[0] == "correct"
    assert found.rewards.tolist() == [1, 1, 0, 0, 0] and found.rm_scores is None and found.sigma_u is None


def test_what_is_trimmed_before_it_was_read_is_lost_and_counted(run: Run, tmp_path: Path) -> None:
    run.score(2)
    joined = shadow(run)
    assert len(rest(joined)) == 2
    run.score(6)
    run.train(6)  # 0 and 1 were read; of the next four the last stays, since it was delivered last
    state = State(joined.run, joined.name)
    mine = following(joined, FIRST, tmp_path, state=state)
    run.broker.finish()
    mine.loop(joined.stop, None, 16)
    assert (state.lost, state.groups, joined.lag()) == (3, 3, 0)
    assert [line["id"] for line in logged(tmp_path)] == [5, 6, 7]


def test_what_is_none_of_ours_is_passed_over_and_left_to_the_learner(run: Run, tmp_path: Path) -> None:
    run.score(1)
    key = run.broker.key("scored")
    foreign = scored(rollout(ticket("another run")))
    for body in (b"junk", pack(ticket(run.broker.run)), pack(foreign)):
        run.broker._redis.xadd(key, {"m": body})
    run.broker._redis.xadd(key, {"x": "y"})
    run.score(1)
    state, joined = State(run.broker.run, "second"), shadow(run)
    following(joined, FIRST, tmp_path, state=state).loop(joined.stop, 2, 16)
    assert (state.malformed, state.groups, state.not_scored) == (4, 2, 0)
    assert run.broker.dead_letters() == []
    assert len(run.broker.read("scored", 10, 100)) == 2 and len(run.broker.dead_letters()) == 4


def test_a_group_that_cannot_be_scored_is_counted_and_harms_no_other(run: Run, tmp_path: Path) -> None:
    settings = with_changes(reward_model={"model": "rm-2"})
    run.score(1)
    run.score(1, first=with_changes(reward={"mode": "verifier"}), question="poison")
    run.score(1)
    state, joined = State(run.broker.run, "second"), shadow(run)
    following(joined, settings, tmp_path, state=state, model=ByText()).loop(joined.stop, 3, 16)
    assert (state.groups, state.not_scored) == (2, 1)
    assert [line["id"] for line in logged(tmp_path)] == [0, 2]


@pytest.mark.parametrize("wild", [1e308, 1e200])
def test_scores_beyond_all_measure_leave_sigma_bar_alone(run: Run, wild: float) -> None:
    run.score(2)
    first, following = rest(shadow(run))
    settings = with_changes(reward={"sigma_momentum": 0.5, "weighting": "off"})
    scoring = second(settings, Recorded.of(FIRST, settings))
    assert scoring.score([dataclasses.replace(first, rm_scores=wild * np.array([1.0, -1.0, 1.0, -1.0]))]) == [None]
    assert scoring.sigma.bar == first.sigma_bar and scoring.score([following]) != [None]


def test_two_shadows_side_by_side(run: Run, tmp_path: Path) -> None:
    one, other = shadow(run, "one"), shadow(run, "other", from_now=True)
    run.score(2)
    assert [g.ticket.id for g in rest(one)] == [0, 1]
    late = shadow(run, "late", from_now=True)
    run.score(1)
    assert [g.ticket.id for g in rest(other)] == [0, 1, 2] and [g.ticket.id for g in rest(late)] == [2]
    one.leave(keep=False)
    assert [s["name"] for s in run.broker.shadows()] == ["shadow:late", "shadow:other"]
    run.score(1)
    assert [g.ticket.id for g in rest(other)] == [3]


def test_a_kept_one_goes_on_where_it_was(run: Run) -> None:
    joined = shadow(run)
    run.score(3)
    assert [group.ticket.id for group in joined.read(2, 100) if group] == [0, 1]
    joined.leave(keep=True)
    run.score(1)
    again = Shadow(run.broker.url, run.broker.run, "second")
    assert again.join(), "it was kept"
    assert [g.ticket.id for g in rest(again)] == [2, 3]
    again.leave(keep=False)
    assert not Shadow(run.broker.url, run.broker.run, "second").join(), "it is a new one"


def test_a_name_that_a_living_one_has_is_taken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    living = shadow(run)
    rest(living)
    with pytest.raises(
        ShadowError, match=rf"{living.consumer} asked \d+ s ago; give another --name, or wait \d+ s"
    ) as told:
        shadow(run)
    assert sum(map(int, re.findall(r"(\d+) s\b", str(told.value)))) == 60
    monkeypatch.setattr("common.shadow.LIVING_S", 0)  # it was killed
    again = Shadow(run.broker.url, run.broker.run, "second")
    assert again.join()
    [consumer] = run.broker._redis.xinfo_consumers(run.broker.key("scored"), again.group)
    assert consumer["name"] == again.consumer.encode(), "nothing is left of the dead one"


def test_one_that_waits_lives(run: Run) -> None:
    waiting, began = shadow(run), time.monotonic()
    waiting.read(1, 700)
    # By the server's count it has asked again when its wait was over
    [consumer] = run.broker._redis.xinfo_consumers(run.broker.key("scored"), waiting.group)
    assert consumer["idle"] <= 1000 * (time.monotonic() - began) - 600
    with pytest.raises(ShadowError, match=f"{waiting.consumer} asked"):
        shadow(run)


def test_it_goes_on_when_the_server_has_lost_everything(run: Run) -> None:
    joined = shadow(run)
    run.score(2)
    rest(joined)
    keys = run.broker._redis.keys(f"{{{run.broker.run}}}:*")
    run.broker._redis.delete(*keys)
    found: list[Scored] = []

    def read() -> None:
        while not found:
            found.extend(group for group in joined.read(5, 1000) if group)

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    reading.join(0.2)
    assert reading.is_alive() and not run.broker._redis.exists(run.broker.key("scored")), "it makes no stream"
    run.broker.check()
    fresh = Run(run.broker, run._sandbox)
    fresh.score(1)
    reading.join(60)
    assert [group.ticket.id for group in found] == [0]


def test_a_stop_ends_a_wait_for_a_stream(run: Run) -> None:
    run.broker._redis.delete(run.broker.key("scored"))
    waiting = Shadow(run.broker.url, run.broker.run, "second")
    waiting.stop.set()
    with pytest.raises(BrokerUnavailable, match=r"there is no stream .*:scored; start the learner"):
        waiting.join()
    waiting.leave(keep=False)


# --- the command


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    """The folder of the run."""
    made = tmp_path / "run"
    made.mkdir()
    (made / "run.json").write_text(json.dumps({"id": run.broker.run}))
    (made / "broker.url").write_text(run.broker.url + "\n")
    (made / "settings.json").write_text(config.dump(FIRST))
    return made


def hero(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "deploy.cli", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    """What it said; it must have ended well."""
    _, told = process.communicate(timeout=180)
    assert process.returncode == 0, told
    return told


def lines(out: Path) -> list[dict[str, Any]]:
    return list(logged(out)) if (out / "rewards" / "rewards.jsonl").is_file() else []


def test_the_command_beside_a_living_run(run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Given a shadow that verifies anew and pays 0 or 1
    run.score(3)
    run.broker._redis.hset(run.broker.key("lost"), "scored shadow:second", 7)  # by an earlier one of that name
    before = run.state()
    command = ["shadow", "--run", folder, "--rewards", "verifier", "--verifier.unevaluated", "true"]
    process = hero(*command)
    out = folder / "shadow" / "second"
    until(lambda: len(lines(out)) == 3, "groups in the log", seconds=180)
    assert run.state() == before
    # When the run goes on, and somebody presses Ctrl-C
    run.score(2)
    until(lambda: len(lines(out)) == 5, "groups of the living run")
    process.send_signal(signal.SIGINT)
    told = ended(process)
    # Then it has said what would change, and nothing is left of it in the broker
    assert "verdicts anew, scores none" in told and "5 groups, 20 completions" in told
    assert "verdicts 25.0% differ" in told and "verdicts that differ" in told and "lost 0" in told
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert run.broker.shadows() == []
    group = lines(out)[4]
    assert [c["reward"] for c in group["completions"]] == [1, 0, 1, 0] and group["outcome"] == "shadow"
    assert [c["advantage"] for c in group["completions"]] == [0.5, -0.5, 0.5, -0.5]
    # And what it has written is a recorded run to the other commands
    assert cli.main(["compare", str(out), "--learner.advantage", "normalized"]) == 0
    assert "5 groups, 20 completions" in capsys.readouterr().err
    assert cli.main(["score", "--from-run", str(out)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    # A second start would mix two in one log
    again = hero(*command, "--groups", 1)
    assert "holds the log of an earlier shadow second, which was not kept" in again.communicate(timeout=180)[1]
    assert again.returncode == 5
    assert run.broker.shadows() == []


def test_the_command_kept_and_started_again(run: Run, folder: Path, tmp_path: Path) -> None:
    run.score(3)
    file, out = tmp_path / "half.toml", tmp_path / "half"
    file.write_text("[reward]\nalpha = 0.05\nsigma_momentum = 0.5\n")
    command = ["shadow", file, "--run", folder, "--name", "half", "--out", out, "--groups", 2, "--keep"]
    told = ended(hero(*command))
    assert (
        "verdicts recorded, scores recorded" in told and "2 groups" in told and [x["id"] for x in lines(out)] == [0, 1]
    )
    state = json.loads((out / "shadow.json").read_text())
    run.score(2)
    told = ended(hero(*command))
    assert [line["id"] for line in lines(out)] == [0, 1, 2, 3] and lines(out)[2]["sigma_bar"] == state["sigma_bar"]
    # Settings that would not fit to its log are refused, and so is one that lives; it stays where it is
    assert hero(*command, "--reward.alpha", 0.2).wait(180) == 5
    assert hero(*command, "--from-now").wait(180) == 14
    living = shadow(run, "half")
    assert hero(*command).wait(180) == 14
    living.leave(keep=True)
    # And it ends with the run, when it has read the rest
    run.broker.finish()
    run.score(2)
    told = ended(hero(*command[:-2], "9"))
    assert [line["id"] for line in lines(out)] == [0, 1, 2, 3, 4, 5, 6] and "groups 7" in told
    assert run.broker.shadows() == [], "this time it was not kept"


def test_a_full_disk_ends_it_and_not_the_run(
    run: Run, folder: Path, small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("deploy.shadow.stop_on_signals", lambda _: threading.Event())
    run.score(1, texts=("x" * 2**19, *TEXTS))
    before = run.state()
    small_disk.fill()
    os.truncate(small_disk.folder / "ballast", 2**24 - 2**17)
    assert cli.main(["shadow", "--run", str(folder), "--out", str(small_disk.folder / "out")]) == 8
    assert "no space left" in capsys.readouterr().err
    assert run.state() == before and run.broker.shadows() == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--run", "nobody"], 14, "knows no run nobody; run.json in its folder has the id"),
        (["--run", "nobody", "--first", "nowhere.toml"], 2, "there is no config file nowhere.toml"),
        (["--run", "{run}", "--name", "a b"], 2, "--name 'a b': take letters"),
        (["--run", "{run}", "--groups", "0"], 2, "--groups 0: it must be 1 or more"),
        (["--run", "{run}", "--reward.alpha", "0.95"], 2, "alpha + beta"),
        (["--run", "{run}", "--url", "redis://127.0.0.1:1"], 6, "no broker answers at redis://127.0.0.1:1"),
        (["--run", "{run}", "--out", "{folder}"], 5, "holds files that are no shadow's"),
    ],
)
def test_what_cannot_be_done_is_told(
    run: Run,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    words = [word.format(run=run.broker.run, folder=folder) for word in arguments]
    url = [] if "--url" in words else ["--url", run.broker.url]
    first = [] if "--first" in words else ["--first", str(folder / "settings.json")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr("deploy.shadow.stop_on_signals", lambda _: threading.Event())
        assert cli.main(["shadow", *words, *url, *first]) == code
    assert says in capsys.readouterr().err
    assert run.broker.shadows() == []


def test_rules_over_a_batch_see_as_many_groups_as_the_learner_takes(run: Run, tmp_path: Path) -> None:
    # Given a second configuration whose advantages are whitened over batches of three groups
    run.score(5)
    settings = with_changes(learner={"advantage": "gdpo", "groups_per_step": 3})
    follower = following(shadow(run), settings, tmp_path)
    # When five groups have come, in reads of any size
    follower.loop(threading.Event(), 5, together=2)
    follower.close()
    # Then the first three are one batch, and what is left at the end another
    gains = [[c["advantage"] for c in line["completions"]] for line in logged(tmp_path)]
    assert len(gains) == 5
    for batch in (gains[:3], gains[3:]):
        flat = np.concatenate(batch)
        assert flat.mean() == pytest.approx(0, abs=1e-6) and flat.std(ddof=1) == pytest.approx(1, abs=0.01)
