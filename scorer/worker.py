"""The scorer's loop: take rollouts, verify, ask the reward model, apply HERO, publish scored groups.

Evaluation's are verified and no more. A batch takes them where training leaves room, and at least one.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Sequence

import numpy as np
import structlog
from numpy.typing import NDArray

from common.deliveries import Delivery
from common.errors import BrokerError
from common.lanes import Stage
from common.leases import Leases
from common.lifecycle import Every, stop_on_signals
from common.schema import Rollout, Scored
from common.scores import recorded
from common.settings import Sections
from common.sigma import Sigma, next_sigma
from common.streams import Broker
from common.tracing import Tracer
from common.vitals import Vitals
from common.waiting import Waiting
from scorer.reward_models.backends import make_reward_model
from scorer.reward_models.protocol import RewardModel, Sample
from scorer.rewards import reward_group
from scorer.sandbox import Item, Sandbox
from scorer.spans import ScoreSpans
from scorer.verifier import Verdict

BLOCK_MS = 500
ROLLOUTS: tuple[Stage, ...] = ("rollouts", "eval:rollouts")
DRAIN_S = 40.0  # for the batch at hand

log = structlog.get_logger("scorer")


def run(settings: Sections, url: str, run_id: str) -> int:
    """Scores until the run is over or a signal asks to stop; returns the exit code."""
    stop = stop_on_signals(DRAIN_S)
    broker = Broker(url, run_id, "scorer", stop=stop)
    broker.check()
    Vitals(settings, broker, "scorer")
    with make_sandbox(settings) as sandbox:
        model = make_reward_model(settings, stop)
        scorer = Scorer(settings, broker, sandbox, model, stop)
        named = model.name if model else None
        log.info("scorer ready", consumer=broker.consumer, mode=settings.reward.mode, reward_model=named)
        try:
            scorer.loop()
        finally:
            scorer.close()
    return 0


def make_sandbox(settings: Sections) -> Sandbox:
    v = settings.verifier
    return Sandbox(v.children, v.deadline_s, v.memory_mb, v.max_chars, v.tasks_per_child, v.kind, v.unevaluated)


class Scorer:
    def __init__(
        self, settings: Sections, broker: Broker, sandbox: Sandbox, model: RewardModel | None, stop: threading.Event
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._sandbox = sandbox
        self._model = model
        self._stop = stop
        self._leases = Leases(broker, settings.broker.claim_after_ms)
        self._waiting = Waiting("scorer")
        self._spans = ScoreSpans(Tracer(settings, broker, "scorer"))
        self._pulse = Every(1.0)
        self._reclaim = Every(settings.broker.claim_after_ms / 2000)
        self._evaluates = False
        """Whether the last batch had groups of evaluation: there may be more."""
        self._groups = 0
        self._verify_s = self._model_s = 0.0

    def loop(self) -> None:
        while not self._stop.is_set() and not (self._pulse.due() and self._over()):
            taken = self._take()
            if taken:
                self._waiting.over()
            else:
                self._waiting.on("rollouts", until="actors deliver: are they alive?")
            self._leases.hold(taken)
            try:
                self._score(taken)
            finally:
                self._leases.release(taken)

    def close(self) -> None:
        if self._model is not None:
            self._model.close()
        self._leases.close()
        for stage in ROLLOUTS:
            self._broker.leave(stage)
        self._spans.close()

    def _take(self) -> list[Delivery]:
        """A batch: what a lease ran out on, else new rollouts of training, and those of evaluation beside them."""
        most = self._settings.scorer.batch_groups
        after_ms, last = self._settings.broker.claim_after_ms, self._settings.broker.max_deliveries
        for stage in ROLLOUTS if self._reclaim.due() else ():
            if taken := self._broker.claim(stage, after_ms, last, count=most):
                return taken
        taken = self._broker.read("rollouts", most, 0 if self._evaluates else BLOCK_MS)
        beside = self._broker.read("eval:rollouts", max(1, most - len(taken)), 0)
        self._evaluates = bool(beside)
        return taken + beside

    def _over(self) -> bool:
        self._broker.heartbeat(
            {
                "role": "scorer",
                "groups": self._groups,
                "verify_s": self._verify_s,
                "model_s": self._model_s,
                "untold": self._spans.untold,
                **self._waiting.state,
            }
        )
        return self._broker.over()

    def _score(self, taken: Sequence[Delivery]) -> None:
        """Scores all together; if that fails each alone, so that one bad group harms no other."""
        if not taken:
            return
        try:
            self._score_together(taken)
        except BrokerError:  # nothing is wrong with the groups
            raise
        except Exception as error:
            if len(taken) > 1:
                for delivery in taken:
                    self._score([delivery])
            elif taken[0].deliveries >= self._settings.broker.max_deliveries:
                self._broker.bury(taken[0], f"scoring failed: {type(error).__name__}: {error}", traceback.format_exc())
            else:  # of the infrastructure, not of the completion: its lease runs out and it is tried again
                log.exception("scoring failed, will be tried again", ticket=taken[0].ticket.id)

    def _score_together(self, taken: Sequence[Delivery]) -> None:
        rollouts = [delivery.message for delivery in taken if isinstance(delivery.message, Rollout)]
        started = time.monotonic()
        items = [Item(r.ticket.gold, c.text, r.ticket.meta) for r in rollouts for c in r.completions]
        verdicts = self._sandbox.verify(items)
        verified = time.monotonic()
        scores = self._ask_model(rollouts)
        scored = time.monotonic()
        self._verify_s += verified - started
        self._model_s += scored - verified
        momentum = self._settings.reward.sigma_momentum
        sigma = self._broker.sigma()
        groups: list[Scored] = []
        start = 0
        for rollout, found in zip(rollouts, scores, strict=True):
            part = slice(start, start := start + len(rollout.completions))
            group = self._shape(rollout, verdicts[part], found, sigma, scored - started)
            sigma = next_sigma(sigma, group.sigma_u, momentum)  # as the broker will move it, when we hand over
            groups.append(group)
        published = self._broker.hand_over_together(list(zip(taken, groups, strict=True)), momentum)
        self._spans.scored(taken, groups, published, (started, verified, scored))
        self._groups += len(groups)

    def _ask_model(self, rollouts: Sequence[Rollout]) -> list[NDArray[np.float64] | None]:
        """float64 [N] for each group of training, asked for together; None where nobody is asked."""
        asked = [rollout for rollout in rollouts if rollout.ticket.lane == "train"]
        if self._model is None or not asked:
            return [None] * len(rollouts)
        samples = [Sample(r.ticket.question, c.text, r.ticket.gold) for r in asked for c in r.completions]
        ends = np.cumsum([len(rollout.completions) for rollout in asked])
        parts = iter(np.split(self._model.score(samples), ends[:-1]))
        return [next(parts) if rollout.ticket.lane == "train" else None for rollout in rollouts]

    def _shape(
        self,
        rollout: Rollout,
        verdicts: Sequence[Verdict],
        scores: NDArray[np.float64] | None,
        sigma: Sigma | None,
        seconds: float,
    ) -> Scored:
        reward, trains = self._settings.reward, rollout.ticket.lane == "train"
        mode, sigma = (reward.mode, sigma) if trains else ("verifier", None)
        statuses, shaped = reward_group(mode, [v.status for v in verdicts], scores, sigma=sigma, options=reward)
        return Scored(
            rollout=rollout,
            mode=mode,
            statuses=statuses,
            extracted=[v.extracted for v in verdicts],
            rules=[v.rule for v in verdicts],
            reward_model=self._model.name if self._model is not None and trains else None,
            rm_scores=None if scores is None else recorded(scores),
            r_hat=shaped.r_hat,
            weight=shaped.weight,
            sigma_u=shaped.sigma_u,
            sigma_bar=shaped.sigma_bar,
            sigma_dev=shaped.sigma_dev,
            scorer=self._broker.consumer,
            seconds=seconds,
        )
