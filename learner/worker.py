"""The learner's loop: issue tickets, gather scored groups, train, publish, commit."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import structlog
import torch

from common.connection import BrokerFull
from common.deliveries import Delivery
from common.lifecycle import Every, stop_on_signals
from common.models import local_folder
from common.schema import Scored
from common.settings import Sections
from common.streams import Broker
from common.tasks import Problem
from common.tracing import Tracer
from common.vitals import Vitals
from common.waiting import Waiting
from learner import distributed
from learner.advantage import SEPARATE, batch_advantages
from learner.commit import Committed, Committer
from learner.evaluation import Evaluation
from learner.groups import Branch, drop_reason, graded, order_of, payload_bytes, sequences
from learner.issuer import Issuer
from learner.ledger import Ledger
from learner.memory import fitting_budget, halved_when_full
from learner.metrics import batch_metrics
from learner.misfits import Misfits
from learner.options import policy_options
from learner.policy import Policy
from learner.publisher import Publisher
from learner.questions import Questions
from learner.ranks import Ranks
from learner.reconciler import Reconciler
from learner.reliability import Gate
from learner.render import Renderer
from learner.room import Room
from learner.run_log import RunLog
from learner.score import Scores
from learner.skips import Skips
from learner.spans import TicketSpans
from learner.team import Team, follow
from learner.throughput import Throughput
from learner.tickets import most_between_commits

BLOCK_MS = 50
DRAIN_S = 600.0  # for the step at hand and its checkpoint
LEARNERS_DELIVERIES = 10  # times broker.max_deliveries: it holds groups for whole checkpoints, and dies of other things
HIGH_WATER = 0.8  # of the broker's memory: beyond it nobody waits for groups before what is settled is committed
FORGET_S = 600.0  # a process that is gone is listed for so long

log = structlog.get_logger("learner")


def run(settings: Sections, url: str, run_id: str, problems: list[Problem], ranks: Ranks) -> int:
    """Rank 0: trains to run.steps, from the last checkpoint if there is one; returns the exit code."""
    stop = stop_on_signals(DRAIN_S, ranks.stop)
    broker = Broker(url, run_id, "learner", stop=stop)
    broker.check()
    Vitals(settings, broker, "learner")
    model = local_folder(settings.model.policy, "model.policy", settings.model.revision)
    budget = fitting_budget(settings)
    team = Team(_policy(settings, model, budget), ranks)
    renderer = Renderer(model, settings.data.system_prompt, settings.model.trust_remote_code)
    learner = Learner(settings, broker, team, renderer, problems, stop)
    try:
        with halved_when_full(settings, budget):
            learner.start()
            learner.loop()
            learner.finish()
    finally:
        learner.close()
    return 0


def run_with_others(settings: Sections, ranks: Ranks) -> int:
    """Every other rank: does its part until rank 0 has ended; returns the exit code."""
    stop_on_signals(DRAIN_S, ranks.stop)
    model = local_folder(settings.model.policy, "model.policy", settings.model.revision)
    budget = fitting_budget(settings)
    with halved_when_full(settings, budget):
        follow(_policy(settings, model, budget), ranks)
    return 0


def _policy(settings: Sections, model: Path, micro_batch_tokens: int) -> Policy:
    torch.set_num_threads(settings.learner.threads)
    return Policy(model, replace(policy_options(settings), micro_batch_tokens=micro_batch_tokens))


class Learner:
    def __init__(
        self,
        settings: Sections,
        broker: Broker,
        policy: Team,
        renderer: Renderer,
        problems: list[Problem],
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._options = settings.learner
        self._broker = broker
        self._policy = policy
        self._stop = stop
        self._issuer = Issuer(settings, broker, renderer, problems)
        self._waiting = Waiting("learner")
        self._room = Room(stop, self._waiting, self._beat)
        self._publisher = Publisher(settings, broker, policy, renderer, problems, self._room)
        self._committer = Committer(settings, broker, policy, self._room)
        self._reconciler = Reconciler(broker, "train", self._committer, self._issuer)
        questions = Questions(settings, broker, renderer)
        self._evaluation = Evaluation(settings, broker, self._committer, questions, self._room)
        self._order = order_of(settings, policy.vocabulary)
        self._log = RunLog(settings, broker, self._room)
        self._spans = TicketSpans(Tracer(settings, broker, "learner"))
        ranks = distributed.world_size()
        self._throughput = Throughput(policy.config, policy.device_name, ranks, self._options)
        self._gate = Gate(self._options.min_rm_auroc)
        self._skips = Skips(self._options.max_skipped_batches)
        self._misfits = Misfits(self._options.groups_per_step)
        self._scores = Scores()
        self._ledger = Ledger()
        self._step = 0
        self._over = False
        self._incarnation = 0
        self._branch = Branch(0, 0)
        self._ready: list[Delivery] = []
        self._reconcile = Every(10.0)
        self._pulse = Every(1.0)
        self._high_water = Every(1.0)

    def start(self) -> None:
        """Fences older learners off, restores the last checkpoint, takes over what they left, publishes."""
        self._incarnation = self._broker.take_over()
        self._broker.reopen()
        found = self._committer.restore()
        if found:
            self._ledger, self._step, self._gate.mean = found.ledger, found.step, found.rm_auroc
            self._issuer.restore(found.prompts)
            if self._incarnation <= found.incarnation:  # the broker is a new one
                self._incarnation = self._broker.take_over(above=found.incarnation)
        self._branch = Branch(self._incarnation, self._step)
        o = self._options
        reach = most_between_commits(o.groups_per_step, o.max_staleness, o.checkpoint_every_steps, o.over_sampling)
        self._reconciler.adopt(self._ledger, self._incarnation, reach)
        self._spans.start(self._ledger)
        if self._options.advantage == "normalized" and self._settings.reward.mode == "hero":
            log.warning("learner.advantage = normalized cancels HERO's weight: Eq. 5 has no effect with it")
        if (rule := self._options.advantage) in SEPARATE:
            log.warning(
                f"learner.advantage = {rule} takes verdict and score apart: reward.mode, the bands and the weight "
                "(Eq. 3 to 5) have no effect with it"
            )
        self._publisher.publish(self._incarnation, self._step)
        self._publisher.settle()
        most = LEARNERS_DELIVERIES * self._settings.broker.max_deliveries
        for delivery in self._broker.claim("scored", 0, most):
            self._admit(delivery)
        self._evaluation.start(found.evaluation if found else None, self._branch, most)

    def loop(self) -> None:
        while not self._done and not self._stop.is_set():
            self._evaluate()
            if self._step < self._settings.run.steps:
                self._issue()
                self._gather()
                if len(self._ready) >= self._options.groups_per_step and not self._evaluation.is_due(self._step):
                    self._train()
            self._keep_books()

    @property
    def _done(self) -> bool:
        return self._step >= self._settings.run.steps and not self._evaluation.unfinished(self._step)

    def _issue(self) -> None:
        if not self._publisher.settled:  # tickets of a step are for its policy
            return
        began = time.monotonic()
        try:
            self._issuer.issue(self._ledger, self._incarnation, self._step)
        except BrokerFull as error:
            self._relieve(error)
        self._spans.issued(self._ledger, began)
        if self._issuer.waits_for_a_plan:
            self._commit()

    def _gather(self) -> None:
        missing = self._options.groups_per_step - len(self._ready)
        if missing <= 0:
            return
        self._waiting.on(
            "scored groups",
            until="actors and scorers deliver: are they alive?",
            details=lambda: {
                "have": len(self._ready),
                "need": self._options.groups_per_step,
                "backlog": self._broker.backlog(),
            },
        )
        came = self._broker.read("scored", missing, BLOCK_MS)
        for delivery in came:
            self._admit(delivery)
        if not came and self._committer.settled and self._high_water.due() and self._broker.used() > HIGH_WATER:
            log.info("the broker is nearly full: what is settled makes room", settled=self._committer.settled)
            self._commit()

    def _admit(self, delivery: Delivery) -> None:
        if self._reconciler.awaits(self._ledger, delivery, self._ready, self._incarnation):
            self._ready.append(delivery)
            self._spans.came(delivery)

    def _evaluate(self) -> None:
        """Moves the evaluation; once all is trained the learner waits for nothing else."""
        trained = self._step >= self._settings.run.steps
        if trained:
            self._waiting.on("the last evaluation", until="actors and scorers deliver: are they alive?")
        if not self._publisher.settled:  # a round's tickets are for its step's policy, too
            if trained or self._evaluation.is_due(self._step):  # training goes on when it has begun
                self._stop.wait(BLOCK_MS / 1000)
            return
        try:
            before = self._evaluation.newest
            self._evaluation.turn(self._step, BLOCK_MS if trained else 0)
            if (newest := self._evaluation.newest) and newest is not before:
                self._scores.evaluated(newest.accuracy)
                self._log.evaluated(newest)
        except BrokerFull as error:
            self._relieve(error)

    def _sweep(self) -> None:
        """Drops what is too old to train on, however it came to be: the staleness bound is kept here."""
        for delivery in list(self._ready):
            group = _scored(delivery)
            reason = drop_reason(group, self._step, self._options.max_staleness, self._order, self._branch)
            self._misfits.saw(self._order.misfit(group) if reason == "not_as_ordered" else None)
            if reason:
                self._ready.remove(delivery)
                self._ledger.drop(delivery.ticket.id, reason)
                self._log.group(group, f"dropped: {reason}", self._step)
                self._spans.dropped(delivery, reason)
                self._settle(delivery)

    def _train(self) -> None:
        """One batch: shape, advantages, optimizer, publication."""
        self._sweep()
        size = self._options.groups_per_step
        if len(self._ready) < size:
            return
        waited = self._waiting.seconds
        self._waiting.over()
        batch, self._ready = self._ready[:size], self._ready[size:]
        batch.sort(key=lambda delivery: delivery.ticket.id)  # the order of arrival has no part in the weights
        groups = [_scored(delivery) for delivery in batch]
        floor = self._settings.reward.correct_floor
        known = [graded(group) for group in groups]
        silenced = self._gate.silenced(known)
        gains = batch_advantages(known, self._options, floor, silenced)
        started = time.monotonic()
        trained_on = sequences(groups, gains, self._order)
        result = self._policy.step(trained_on, self._settings.sampling.temperature)
        trained = time.monotonic()
        metrics = batch_metrics(groups, gains, self._step) | result.metrics
        metrics |= self._throughput.metrics(trained_on, trained - started, metrics["shared_prompt_share"])
        metrics |= {"rm_auroc_running": self._gate.mean, "gated_group_share": float(np.mean(silenced))}
        self._scores.trained(metrics["accuracy"])
        self._step += 1
        self._ledger.train([d.ticket.id for d in batch], self._step)
        self._spans.trained(batch, started, trained, self._step)
        for delivery, group, gain, gated in zip(batch, groups, gains, silenced, strict=True):
            self._issuer.met(group)
            self._log.group(group, "trained", self._step, gain, gated)
            self._settle(delivery)
        self._skips.saw(result.skipped, [delivery.ticket.id for delivery in batch])
        published = time.monotonic()
        self._publisher.publish(self._incarnation, self._step)
        seconds = result.seconds | {
            "waiting": waited,
            "step": trained - started,
            "log": published - trained,
            "publish": time.monotonic() - published,
            "checkpoint": self._committer.take_seconds(),  # of the commits since the last line
        }
        metrics |= self._skips.counts | self._publisher.figures
        self._log.step(self._step, metrics, seconds, self._ledger)
        every = self._options.export_every_steps
        if every and self._step % every == 0:
            self._export(self._settings.run.folder / "exports" / f"step-{self._step:08d}")

    def _settle(self, delivery: Delivery) -> None:
        ticket = delivery.ticket
        self._committer.settle("train", ticket.id, ticket.attempt, delivery.entry, payload_bytes(_scored(delivery)))

    def _keep_books(self) -> None:
        if self._committer.due(self._step):
            self._commit()
        if self._pulse.due():
            self._reconciler.collect_dead(self._ledger)
            self._evaluation.collect_dead()
            self._beat()
        if self._reconcile.due():
            self._compare_books()

    def _beat(self) -> None:
        """Says that it lives. Raises Fenced when it is not the living one any more."""
        self._broker.check_fence(self._incarnation)
        self._broker.heartbeat(
            {
                "role": "learner",
                "step": self._step,
                "steps": self._settings.run.steps,
                "ready": len(self._ready),
                "max_staleness": self._options.max_staleness,
                "untold": self._log.untold + self._spans.untold,
                **self._ledger.audit(),
                **self._evaluation.audit(),
                **self._waiting.state,
            }
        )

    def _compare_books(self) -> None:
        self._publisher.keep_up()
        self._broker.forget(FORGET_S)
        began = time.monotonic()
        try:
            self._reconciler.compare(self._ledger, self._ready, self._incarnation, self._step)
            self._spans.compared(self._ledger, began)
            self._evaluation.compare_books()
        except BrokerFull as error:
            self._relieve(error)
        for delivery in self._broker.inherit("scored", self._settings.broker.claim_after_ms):
            self._admit(delivery)  # read by an older learner after this one had started
        for delivery in self._broker.missed("scored", self._reconciler.entries(self._ready)):
            self._admit(delivery)

    def _relieve(self, error: BrokerFull) -> None:
        """A full broker: free what a checkpoint allows; else wait, since others hold the rest."""
        log.warning("the broker is full", why=str(error), settled=self._committer.settled)
        if self._committer.settled:
            self._commit()
        else:
            self._stop.wait(0.5)

    def _commit(self) -> None:
        prompts, evaluation = self._issuer.dump(self._ledger), self._evaluation.dump()
        now = Committed(self._step, self._incarnation, self._ledger, self._gate.mean, prompts, evaluation)
        if self._committer.commit(now, self._scores.now):
            self._issuer.saved()
            self._scores.saved()
            self._spans.committed(self._ledger)

    def _export(self, folder: Path) -> bool:
        """A model folder; False after a stop while there was no room for it."""
        return self._room.write(lambda: self._policy.export(folder)) is not None

    def finish(self) -> None:
        """Last commit and export; the run is over when all steps are done, and the last evaluation."""
        if self._committer.settled:
            self._commit()
        export = self._settings.run.folder / "export"
        if self._done and self._export(export):
            self._broker.finish()
            self._over = True
            log.info("finished", step=self._step, export=str(export), **self._ledger.counts())
        else:
            log.info("stopped; the same command resumes", step=self._step, of=self._settings.run.steps)

    def close(self) -> None:
        self._publisher.close(over=self._over)
        self._log.close()
        self._evaluation.close()
        self._spans.close(over=self._over)


def _scored(delivery: Delivery) -> Scored:
    assert isinstance(delivery.message, Scored)
    return delivery.message
