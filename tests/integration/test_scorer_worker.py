"""The scorer's loop on a real server, with a real sandbox and a real, random reward model."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import BrokerUnavailable
from common.lanes import Lane, Stage
from common.schema import Completion, Rollout, Scored
from common.settings import Sections
from common.sigma import Sigma
from common.streams import Broker
from scorer.hero import difficulty_weight, scale_free_weight, stratified_rewards
from scorer.reward_models.known import Usage
from scorer.reward_models.protocol import Sample
from scorer.rewards import settle
from scorer.sandbox import Sandbox
from scorer.worker import Scorer
from tests import tiny_models
from tests.make import rollout, scored, ticket

TEXTS = ("so \\boxed{2}", "\\boxed{3}", "I give up", "\\boxed{?!}")
STATUSES = ["correct", "wrong", "no_answer", "unparsable"]


@pytest.fixture(scope="module")
def reward_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.reward_model(tmp_path_factory.mktemp("rm"))


@pytest.fixture(scope="module")
def reward_model(reward_model_folder: Path):
    from scorer.reward_models.classifier import Classifier

    return Classifier(reward_model_folder, usage=Usage(), dtype="float32", batch_tokens=512, max_length=64)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(1, 10.0, 1024, 4000, 20_000) as running:
        yield running


class Running:
    """A scorer in a thread, with the learner's and actors' side of the broker."""

    def __init__(
        self, broker: Broker, sandbox: Any, model: Any, mode: str, weighting: str = "paper", **broker_settings: int
    ) -> None:
        self.broker = broker
        self.settings = Sections.model_validate(
            {"reward": {"mode": mode, "weighting": weighting}, "broker": broker_settings}
        )
        self.stop = threading.Event()
        mine = Broker(broker.url, broker.run, "scorer", stop=self.stop)
        self.scorer = Scorer(self.settings, mine, sandbox, model, self.stop)
        self.thread = threading.Thread(target=self.scorer.loop)
        self.incarnation = broker.take_over()
        self.issued = 0

    def publish(self, *groups: tuple[str, ...], lane: Lane = "train", **changes: Any) -> None:
        """Rollouts with these texts, as actors hand them over."""
        for texts in groups:
            values = {"lane": lane, "completions": len(texts), "incarnation": self.incarnation} | changes
            order = ticket(self.broker.run, self.issued, **values)
            self.issued += 1
            assert self.broker.issue(order)
            [taken] = self.broker.read("tickets" if lane == "train" else "eval:tickets", 1, 1000)
            made = rollout(order)
            completions: list[Completion] = [dataclasses.replace(made.completions[0], text=text) for text in texts]
            assert self.broker.hand_over(taken, Rollout(order, completions, "actor", 0.1))

    def scored(self, count: int, seconds: float = 60, stage: Stage = "scored") -> list[Scored]:
        """So many scored groups, by ticket."""
        found: list[Scored] = []
        self.until(
            lambda: found.extend(d.message for d in self.broker.read(stage, 99, 50)) or len(found) >= count, seconds
        )
        assert len(found) == count
        return sorted(found, key=lambda group: group.ticket.id)

    def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline and self.thread.is_alive()
            time.sleep(0.01)

    def end(self) -> None:
        self.stop.set()
        self.thread.join(30)
        self.scorer.close()
        assert not self.thread.is_alive()


@pytest.fixture
def start(broker: Broker, sandbox: Sandbox) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def start(model: Any = None, mode: str = "verifier", sandbox: Any = sandbox, **settings: Any) -> Running:
        running.append(Running(broker, sandbox, model, mode, **settings))
        running[-1].thread.start()
        return running[-1]

    yield start
    for scorer in running:
        scorer.end()


def test_a_stop_while_the_broker_is_away_is_no_failure_of_the_groups(
    broker: Broker, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a scorer that is told to stop while it waits for a broker that is away
    running = Running(broker, sandbox, None, "verifier")
    running.publish(TEXTS, TEXTS, TEXTS)
    calls: list[int] = []

    def away() -> None:
        calls.append(1)
        running.stop.set()
        raise BrokerUnavailable("no broker answers")

    monkeypatch.setattr(running.scorer._broker, "sigma", away)
    # Then it ends with that, instead of waiting for the broker once more for each group
    with pytest.raises(BrokerUnavailable):
        running.scorer.loop()
    running.scorer.close()
    assert len(calls) == 1


def test_verifier_rewards_and_statuses(start) -> None:
    scorer = start()
    scorer.publish(TEXTS, TEXTS[:1])
    first, second = scorer.scored(2)
    assert first.statuses == STATUSES and list(first.rewards) == [1, 0, 0, 0]
    assert first.extracted[:3] == ["2", "3", None] and first.rm_scores is first.reward_model is None
    assert first.rules == ["same text", "", "", ""]
    assert second.statuses == ["correct"] and second.weight == 1
    assert first.mode == "verifier" and first.scorer.startswith("scorer-")


def test_hero_rewards_are_equations_3_to_5(start, reward_model, broker: Broker) -> None:
    scorer = start(reward_model, "hero")
    scorer.publish(TEXTS)
    scorer.publish(TEXTS, question="2 * 1 = ?")
    first, second = scorer.scored(2)
    for group in (first, second):
        r = scorer.settings.reward
        raw = reward_model.score([Sample(group.ticket.question, text) for text in TEXTS])
        np.testing.assert_allclose(group.rm_scores, raw, atol=1e-5)
        assert group.reward_model == reward_model.name
        r_hat = stratified_rewards([True, False, False, False], group.rm_scores, alpha=r.alpha, beta=r.beta, eps=r.eps)
        np.testing.assert_array_equal(group.r_hat, r_hat)
        assert group.sigma_u == pytest.approx(np.std(group.rm_scores))
        assert group.weight == difficulty_weight(group.sigma_u, group.sigma_bar, w_min=r.w_min, w_max=r.w_max, k=r.k)
    assert first.sigma_bar == first.sigma_u, "of the first group there is no mean yet"


def test_sigma_moves_once_per_ticket(start, reward_model, broker: Broker) -> None:
    # Given a rollout that two scorers work on, since the first one's lease ran out
    scorer = start(reward_model, "hero")
    momentum = scorer.settings.reward.sigma_momentum
    scorer.publish(TEXTS)
    [first] = scorer.scored(1)
    assert broker.sigma() == Sigma(pytest.approx(first.sigma_u), 0.0)
    scorer.publish(TEXTS, question="3 - 1 = ?")
    [second] = scorer.scored(1)
    mean = momentum * first.sigma_u + (1 - momentum) * second.sigma_u
    variance = momentum * (1 - momentum) * (second.sigma_u - first.sigma_u) ** 2
    expected = Sigma(pytest.approx(mean, rel=1e-12), pytest.approx(variance**0.5, rel=1e-12))
    assert broker.sigma() == expected and variance > 0
    # When the late one publishes as well
    late = dataclasses.replace(second, sigma_u=99.0)
    [delivery] = broker._deliveries("rollouts", broker._redis.xrange(broker.key("rollouts"))[-1:], {})
    assert not broker.hand_over(delivery, late, momentum)
    # Then nothing moves
    assert broker.sigma() == expected


def test_what_is_too_long_for_the_reward_model(start, reward_model) -> None:
    scorer = start(reward_model, "hero")
    scorer.publish(("x" * 200 + " \\boxed{2}", "\\boxed{2}", "\\boxed{3}"))
    [group] = scorer.scored(1)
    assert group.statuses == ["context_overflow", "correct", "wrong"]
    assert np.isnan(group.rm_scores[0]) and np.isfinite(group.rm_scores[1:]).all()
    _, judged = settle(group.statuses, group.rm_scores)
    assert group.sigma_u == pytest.approx(np.std(judged))
    assert group.r_hat[0] <= scorer.settings.reward.alpha, "it is in the incorrect stratum"


class Told:
    """A reward model that gives what it is told."""

    name = "told"

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores
        self.asked = 0
        """Samples so far."""

    def score(self, samples: list[Sample]) -> np.ndarray:
        self.asked += len(samples)
        return np.array(self.scores * (len(samples) // len(self.scores)))

    def close(self) -> None:
        pass


def test_a_score_that_is_not_finite_is_a_status_and_nan_on_the_wire(start) -> None:
    scorer = start(Told([np.inf, 1.0, np.nan, 3.0]), "hero")
    scorer.publish(("\\boxed{2}",) * 4)
    [group] = scorer.scored(1)
    assert group.statuses == ["not_finite", "correct", "context_overflow", "correct"]
    np.testing.assert_array_equal(group.rm_scores, [np.nan, 1.0, np.nan, 3.0])
    assert group.sigma_u == pytest.approx(np.std([1.0, 1.0, 1.0, 3.0]))


def test_a_scale_free_weight_is_taken_at_the_shared_deviation(start, broker: Broker) -> None:
    # Given a run whose groups had a mean spread of 1 with a deviation of 0.5 so far
    broker.restore_sigma(Sigma(1.0, 0.5))
    scorer = start(Told([0.0, 4.0]), "hero", weighting="scale_free")
    # When two groups are scored together
    for _ in range(2):
        scorer.publish(TEXTS[:2])
    first, second = scorer.scored(2)
    # Then the second is weighted at what the first made of it, and the broker has both
    momentum = scorer.settings.reward.sigma_momentum
    moved = Sigma(1.0, 0.5).after(2.0, momentum)
    assert (first.sigma_u, first.sigma_bar, first.sigma_dev) == (2.0, 1.0, 0.5)
    assert first.weight == scale_free_weight(2.0, 1.0, 0.5)
    assert (second.sigma_bar, second.sigma_dev) == (moved.bar, moved.dev)
    assert second.weight == scale_free_weight(2.0, moved.bar, moved.dev)
    expected = moved.after(2.0, momentum)
    assert broker.sigma() == Sigma(pytest.approx(expected.bar, rel=1e-14), pytest.approx(expected.dev, rel=1e-14))


class OneBadQuestion:
    """A reward model that cannot score one of the questions."""

    name = "one bad question"

    def __init__(self) -> None:
        self.calls: list[int] = []

    def score(self, samples: list[Sample]) -> np.ndarray:
        self.calls.append(len(samples))
        if any(sample.question == "poison" for sample in samples):
            raise RuntimeError("CUDA error: device-side assert")
        return np.linspace(0, 1, len(samples))

    def close(self) -> None:
        pass


def test_one_bad_group_harms_no_other_and_ends_as_a_dead_letter(start, broker: Broker) -> None:
    # Given three groups in one batch, the second of which no reward model survives
    scorer = start(OneBadQuestion(), "hero", claim_after_ms=500, max_deliveries=2)
    scorer.stop.set()
    scorer.thread.join(30)
    scorer.publish(TEXTS)
    scorer.publish(TEXTS, question="poison")
    scorer.publish(TEXTS)
    scorer.stop.clear()
    scorer.thread = threading.Thread(target=scorer.scorer.loop)
    # When they are scored
    scorer.thread.start()
    groups = scorer.scored(2)
    # Then its neighbours have their rewards, and it is tried again, then given up with its reason
    assert [group.ticket.id for group in groups] == [0, 2]
    scorer.until(broker.dead_letters)
    [(_, letter)] = broker.dead_letters()
    assert (letter.id, letter.stage) == (1, "rollouts")
    assert "scoring failed: RuntimeError: CUDA error" in letter.reason and "device-side assert" in letter.traceback
    assert broker.open_tickets() == {0: ("scored", 1), 1: ("dead", 1), 2: ("scored", 1)}
    # And the scorer lives
    scorer.publish(TEXTS)
    assert scorer.scored(1)[0].ticket.id == 3


def test_evaluation_is_verified_and_no_more(start, broker: Broker) -> None:
    # Given groups of both lanes, under a reward model that would mislead
    model = Told([5.0, -5.0, 1.0, 1.0])
    scorer = start(model, "hero")
    scorer.publish(TEXTS, lane="eval")
    scorer.publish(TEXTS)
    scorer.publish(TEXTS, TEXTS[:2], lane="eval")
    trained = scorer.scored(1)
    evaluated = scorer.scored(3, stage="eval:scored")
    # Then evaluation's have verdicts alone
    assert [group.statuses for group in evaluated] == [STATUSES, STATUSES, STATUSES[:2]]
    for group in evaluated:
        assert (group.mode, group.weight, group.reward_model, group.rm_scores) == ("verifier", 1.0, None, None)
        assert group.sigma_u is group.sigma_bar is group.sigma_dev is None
        assert list(group.rewards) == [float(status == "correct") for status in group.statuses]
    # And training's scores, and the spread that all share, are as without them
    assert model.asked == 4
    spread = np.std([5.0, -5.0, 1.0, 1.0])
    assert (trained[0].mode, trained[0].sigma_u) == ("hero", pytest.approx(spread))
    assert broker.sigma() == Sigma(pytest.approx(spread), 0.0)


def test_a_scored_group_of_evaluation_never_moves_sigma(broker: Broker) -> None:
    """Whatever a scorer may write into it."""
    running = Running(broker, None, None, "verifier")
    running.publish(TEXTS, lane="eval")
    running.scorer.close()
    [made] = broker.read("eval:rollouts", 1, 100)
    assert isinstance(made.message, Rollout) and broker.hand_over(made, scored(made.message, 7.0), momentum=0.9)
    assert broker.sigma() is None


def test_a_batch_has_training_first_and_evaluation_where_there_is_room(broker: Broker) -> None:
    # Given more of either lane than a batch takes
    running = Running(broker, None, None, "verifier")
    running.settings.scorer.batch_groups = 3
    running.publish(*[TEXTS[:1]] * 7)
    running.publish(*[TEXTS[:1]] * 9, lane="eval")
    # Then evaluation has one group in a batch that training fills, and what training leaves of the others
    batches = [[d.ticket.lane for d in running.scorer._take()] for _ in range(7)]
    train, evaluate = "train", "eval"
    running.scorer.close()
    assert [batch for batch in batches if batch] == [
        [train, train, train, evaluate],
        [train, train, train, evaluate],
        [train, evaluate, evaluate],
        [evaluate, evaluate, evaluate],
        [evaluate, evaluate],
    ]


def test_evaluation_goes_on_without_a_reward_model(start, broker: Broker) -> None:
    scorer = start(OneBadQuestion(), "hero", claim_after_ms=500, max_deliveries=2)
    scorer.publish(TEXTS, question="poison")
    scorer.publish(TEXTS, question="poison", lane="eval")
    [group] = scorer.scored(1, stage="eval:scored")
    assert group.statuses == STATUSES
    scorer.until(broker.dead_letters)
    assert [(letter.id, letter.stage) for _, letter in broker.dead_letters()] == [(0, "rollouts")]


def test_hostile_completions_get_a_status_each(start) -> None:
    hostile = (
        "\x00\x01\x1b]0;title\x07" * 50,
        "a" * 100_000,
        "word " * 20_000 + "\\boxed{2}",
        "\ud800 \\boxed{2}",
        "\\boxed{" + "{" * 3000,
    )
    scorer = start()
    scorer.publish(hostile, TEXTS)
    group, neighbour = scorer.scored(2, 120)
    assert group.statuses[2] == group.statuses[3] == "correct"
    assert all(status in ("no_answer", "unparsable", "wrong") for status in (*group.statuses[:2], group.statuses[4]))
    assert neighbour.statuses == STATUSES


def test_it_leaves_when_the_run_is_over_and_is_forgotten(start, broker: Broker) -> None:
    scorer = start()
    scorer.publish(TEXTS)
    scorer.scored(1)
    broker.finish()
    scorer.thread.join(30)
    assert not scorer.thread.is_alive()
    scorer.scorer.close()
    assert broker._redis.xinfo_consumers(broker.key("rollouts"), "scorers") == []
