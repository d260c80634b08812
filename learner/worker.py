"""The learner's loop: issue tickets, gather scored groups, train, publish, checkpoint."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import structlog
from numpy.typing import NDArray

from common.errors import CheckpointError, DiskFull
from common.lifecycle import Every, stop_on_signals
from common.models import local_folder
from common.schema import Policy as PublishedPolicy
from common.schema import Scored, Ticket
from common.settings import Sections
from common.streams import Broker, BrokerFull, Delivery
from common.tasks import Problem
from common.weights import default_folder, publish
from learner import checkpoint
from learner.advantage import advantages
from learner.batch import Sequence
from learner.ledger import Ledger
from learner.metrics import batch_metrics
from learner.policy import Policy, PolicyOptions
from learner.render import Renderer
from learner.reward_log import RewardLog
from learner.tickets import PromptOrder, capacity

CHECK_SEQUENCES = 4
CHECK_TOKENS = 64
BLOCK_MS = 50
ISSUE_TOGETHER = 64  # tickets a round trip: one each costs more than packing them
DISK_RETRY_S = 5.0
SAY_WAITING_AFTER_S = 30.0

log = structlog.get_logger("learner")


def run(settings: Sections, url: str, run_id: str, problems: list[Problem]) -> int:
    """Trains to run.steps, from the last checkpoint if there is one; returns the exit code."""
    import torch

    stop = stop_on_signals()
    torch.set_num_threads(settings.learner.threads)
    broker = Broker(url, run_id, "learner", stop=stop)
    broker.check()
    model = local_folder(settings.model.policy, "model.policy", settings.model.revision)
    policy = Policy(model, policy_options(settings))
    renderer = Renderer(model, settings.data.system_prompt, settings.model.trust_remote_code)
    learner = Learner(settings, broker, policy, renderer, problems, stop)
    try:
        learner.start()
        learner.loop()
        learner.finish()
    finally:
        learner.close()
    return 0


def policy_options(settings: Sections) -> PolicyOptions:
    """The policy's part of the [learner] section."""
    given = settings.learner.model_dump()
    names = {field.name for field in dataclasses.fields(PolicyOptions)}
    shared = {name: value for name, value in given.items() if name in names}
    return PolicyOptions(**shared, betas=(given["beta1"], given["beta2"]), seed=settings.run.seed)


class Learner:
    def __init__(
        self,
        settings: Sections,
        broker: Broker,
        policy: Policy,
        renderer: Renderer,
        problems: list[Problem],
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._options = settings.learner
        self._broker = broker
        self._policy = policy
        self._problems = problems
        self._renderer = renderer
        self._stop = stop
        folder = settings.run.folder
        self._checkpoints = folder / "checkpoints"
        self._export = folder / "export"
        self._weights = settings.weights.folder or default_folder(broker.run, folder)
        self._reward_log = RewardLog(folder / "rewards", self._options.reward_log_mb)
        self._metrics_file = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._order = PromptOrder(len(problems), settings.run.seed)
        self._ledger = Ledger()
        self._step = 0
        self._incarnation = 0
        self._ready: list[Delivery] = []
        self._settled: list[tuple[int, int, str]] = []  # decided, but not yet in a durable checkpoint
        self._settled_bytes = 0
        self._last_letter = "0"
        self._last_checkpoint = time.monotonic()
        self._checkpointed_step = 0
        self._disk_full_until = 0.0
        self._reconcile = Every(10.0)
        self._pulse = Every(1.0)
        self._waiting_since = time.monotonic()
        self._said_waiting = Every(SAY_WAITING_AFTER_S)

    # -- start and resume

    def start(self) -> None:
        """Fences older learners off, restores the last checkpoint, takes over what they left, publishes."""
        self._incarnation = self._broker.take_over()
        self._broker.reopen()
        found = checkpoint.latest(self._checkpoints)
        if found:
            self._policy.load(found.policy)
            state = msgpack.unpackb(found.state)
            if state["run"] != self._broker.run:
                raise CheckpointError(f"{found.folder} belongs to run {state['run']}, this is {self._broker.run}")
            self._ledger = Ledger.restored(state["ledger"])
            self._step = self._checkpointed_step = state["step"]
            if self._incarnation <= state["incarnation"]:  # the broker is a new one
                self._incarnation = self._broker.take_over(above=state["incarnation"])
            self._broker.restore_sigma(state["sigma_bar"])
            log.info("resumed", checkpoint=str(found.folder), step=self._step, **self._ledger.counts())
        self._ledger.adopt(self._broker.open_tickets())
        if self._options.advantage == "normalized" and self._settings.reward.mode == "hero":
            log.warning("learner.advantage = normalized cancels HERO's weight: Eq. 5 has no effect with it")
        self._check_prompts()
        self._publish()
        for delivery in self._broker.claim("scored", 0, max_deliveries=2**31):
            self._admit(delivery)

    def _check_prompts(self) -> None:
        """A few fixed sequences on which every engine is compared with this policy."""
        ids = [
            self._renderer.prompt_ids(p.question + " " + p.answer)[:CHECK_TOKENS]
            for p in self._problems[: 8 * CHECK_SEQUENCES]
        ]
        chosen = [i for i in ids if len(i) > 1][:CHECK_SEQUENCES]
        self._check_ids = chosen
        self._check = [Sequence(i[:1], i[1:], np.zeros(len(i) - 1, np.float32), 0.0) for i in chosen]

    # -- the loop

    def loop(self) -> None:
        while self._step < self._settings.run.steps and not self._stop.is_set():
            self._issue()
            self._gather()
            if len(self._ready) >= self._options.groups_per_step:
                self._train()
            self._keep_books()

    def _issue(self) -> None:
        """Tickets up to the staleness bound, and no more than the remaining steps can use."""
        o = self._options
        wanted = min(
            capacity(o.groups_per_step, o.max_staleness), (self._settings.run.steps - self._step) * o.groups_per_step
        )
        missing = range(self._ledger.issued, self._ledger.issued + wanted - len(self._ledger.in_flight()))
        for start in range(0, len(missing), ISSUE_TOGETHER):
            ids = missing[start : start + ISSUE_TOGETHER]
            try:
                self._broker.issue_together([self._ticket(id, 1) for id in ids])
            except BrokerFull as error:
                self._relieve(error)
                return
            for id in ids:
                self._ledger.issue(id)

    def _ticket(self, id: int, attempt: int) -> Ticket:
        problem = self._problems[self._order.row(id)]
        sampling = self._settings.sampling
        return Ticket(
            run=self._broker.run,
            id=id,
            attempt=attempt,
            question=problem.question,
            gold=problem.answer,
            meta=problem.meta,
            prompt_ids=self._renderer.prompt_ids(problem.question),
            completions=sampling.completions,
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            incarnation=self._incarnation,
            step=self._step,
        )

    def _gather(self) -> None:
        missing = self._options.groups_per_step - len(self._ready)
        if missing <= 0:
            return
        for delivery in self._broker.read("scored", missing, BLOCK_MS):
            self._admit(delivery)
        if self._said_waiting.due() and time.monotonic() - self._waiting_since > SAY_WAITING_AFTER_S:
            log.warning(
                "waiting for scored groups",
                have=len(self._ready),
                need=self._options.groups_per_step,
                seconds=round(time.monotonic() - self._waiting_since),
                backlog=self._broker.backlog(),
                until="actors and scorers deliver: are they alive?",
            )

    def _admit(self, delivery: Delivery) -> None:
        """Keeps a group that is awaited; a duplicate, or one that a checkpoint has, is only acknowledged later."""
        ticket = delivery.ticket
        held = any(d.ticket.id == ticket.id for d in self._ready)
        if held or not self._ledger.accepts(ticket.id, ticket.attempt):
            self._settled.append(
                (ticket.id if self._ledger.is_settled(ticket.id) else -1, ticket.attempt, delivery.entry)
            )
        else:
            self._ready.append(delivery)

    def _sweep(self) -> None:
        """Drops what is too old to train on, however it came to be: the staleness bound is kept here."""
        for delivery in list(self._ready):
            group = _scored(delivery)
            distance = abs(self._step - group.oldest_step)
            reason = ""
            if distance > self._options.max_staleness:
                reason = "stale" if group.oldest_step <= self._step else "abandoned_branch"
            elif not any(len(c.ids) for c in group.rollout.completions):
                reason = "empty"
            if reason:
                self._ready.remove(delivery)
                self._ledger.drop(delivery.ticket.id, reason)
                self._reward_log.write(group, f"dropped: {reason}", self._step)
                self._settle(delivery)

    def _train(self) -> None:
        """One batch: shape, advantages, optimizer, publication."""
        self._sweep()
        size = self._options.groups_per_step
        if len(self._ready) < size:
            return
        waited = time.monotonic() - self._waiting_since
        batch, self._ready = self._ready[:size], self._ready[size:]
        groups = [_scored(delivery) for delivery in batch]
        gains = [advantages(g.r_hat, g.weight, self._options.advantage) for g in groups]
        started = time.monotonic()
        result = self._policy.step(_sequences(groups, gains), self._settings.sampling.temperature)
        trained = time.monotonic()
        metrics = batch_metrics(groups, gains, self._step)
        self._step += 1
        self._ledger.train([d.ticket.id for d in batch], self._step)
        for delivery, group, gain in zip(batch, groups, gains, strict=True):
            self._reward_log.write(group, "trained", self._step, gain)
            self._settle(delivery)
        published = time.monotonic()
        self._publish()
        seconds = result.seconds | {
            "waiting": waited,
            "step": trained - started,
            "log": published - trained,
            "publish": time.monotonic() - published,
        }
        self._report(metrics | result.metrics, seconds, result.skipped)
        self._waiting_since = time.monotonic()

    def _settle(self, delivery: Delivery) -> None:
        self._settled.append((delivery.ticket.id, delivery.ticket.attempt, delivery.entry))
        self._settled_bytes += sum(c.ids.nbytes * 2 + len(c.text) for c in _scored(delivery).rollout.completions)

    def _publish(self) -> None:
        """New weights for the actors; waits for room on a full disk, and says so."""
        from safetensors.torch import save_file

        def write(file: Path) -> None:
            save_file({name: w.detach().cpu().contiguous() for name, w in self._policy.named_weights()}, file)

        while True:
            try:
                folder, checksum = publish(
                    self._weights, self._incarnation, self._step, write, self._settings.weights.keep
                )
                break
            except DiskFull as error:
                log.error("weights not published, trying again", why=str(error), every_s=DISK_RETRY_S)
                if self._stop.wait(DISK_RETRY_S):
                    return  # the checkpoint has this step; a resume publishes it
        self._published = PublishedPolicy(
            incarnation=self._incarnation,
            step=self._step,
            checksum=checksum,
            folder=str(folder.resolve()),
            check_ids=self._check_ids,
            check_logprobs=self._policy.logprobs(self._check, 1.0),
        )
        self._broker.announce(self._published)

    # -- books, checkpoints, reports

    def _keep_books(self) -> None:
        o = self._options
        steps_since = self._step - self._checkpointed_step >= o.checkpoint_every_steps
        seconds_since = time.monotonic() - self._last_checkpoint > o.checkpoint_every_seconds and self._settled
        due = steps_since or seconds_since or self._settled_bytes > o.checkpoint_every_mb * 2**20
        if due and time.monotonic() > self._disk_full_until:
            self._checkpoint()
        if self._pulse.due():
            self._broker.check_fence(self._incarnation)
            self._collect_dead()
            self._broker.heartbeat(
                {"role": "learner", "step": self._step, "ready": len(self._ready), **self._ledger.audit()}
            )
        if self._reconcile.due():
            self._reissue_lost()
            for delivery in self._broker.inherit("scored", self._settings.broker.claim_after_ms):
                self._admit(delivery)  # read by an older learner after this one had started

    def _collect_dead(self) -> None:
        """Books what was given up; each leaves room for a new ticket."""
        for entry, letter in self._broker.dead_letters(self._last_letter):
            self._last_letter = entry
            if letter.id is not None and letter.attempt is not None and self._ledger.accepts(letter.id, letter.attempt):
                self._ledger.bury(letter.id)
                self._settled.append((letter.id, letter.attempt, ""))

    def _reissue_lost(self) -> None:
        """What the broker does not know any more: tickets are issued again under the same id, the policy announced."""
        if self._broker.policy() is None:
            self._broker.announce(self._published)
        known = self._broker.open_tickets()
        held = {d.ticket.id for d in self._ready}
        lost = [id for id in self._ledger.in_flight() if id not in known and id not in held]
        for id in lost:
            attempt = self._ledger.reissue(id)
            try:
                self._broker.issue(self._ticket(id, attempt))
            except BrokerFull as error:
                self._relieve(error)
                return
        if lost:
            log.warning("tickets were lost by the broker and issued again", count=len(lost), ids=lost[:10])

    def _relieve(self, error: BrokerFull) -> None:
        """A full broker: free what a checkpoint allows; else wait, since others hold the rest."""
        log.warning("the broker is full", why=str(error), settled=len(self._settled))
        if self._settled:
            self._checkpoint()
        else:
            self._stop.wait(0.5)

    def _checkpoint(self) -> None:
        """Makes the state durable, then closes the tickets whose effect is in it. A full disk: training goes on
        from what is open, the last good checkpoint stays."""
        started = time.monotonic()
        self._last_checkpoint = started
        state = msgpack.packb(
            {
                "run": self._broker.run,
                "step": self._step,
                "incarnation": self._incarnation,
                "sigma_bar": self._broker.sigma_bar(),
                "ledger": self._ledger.dump(),
            }
        )
        try:
            checkpoint.save(self._checkpoints, self._step, self._policy.save, state, self._options.keep_checkpoints)
        except DiskFull as error:
            log.error("no checkpoint, trying again", why=str(error), in_s=DISK_RETRY_S)
            self._disk_full_until = time.monotonic() + DISK_RETRY_S
            return
        self._checkpointed_step = self._step
        self._broker.close(self._incarnation, self._settled)
        self._settled, self._settled_bytes = [], 0
        self._broker.trim()
        log.info("checkpoint", step=self._step, seconds=round(time.monotonic() - started, 2))

    def _report(self, metrics: dict[str, Any], seconds: dict[str, float], skipped: int) -> None:
        line = {
            "step": self._step,
            "time": time.time(),
            **metrics,
            "skipped_steps": skipped,
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
            "tickets": self._ledger.audit(),
            "drops": dict(self._ledger.drops),
        }
        self._metrics_file.write(json.dumps(line) + "\n")
        self._metrics_file.flush()
        log.debug("step", **{k: line[k] for k in ("step", "reward_mean", "accuracy", "staleness_max")})

    def finish(self) -> None:
        """Checkpoint and export; the run is over when all steps are done."""
        if self._settled:
            self._checkpoint()
        if self._step >= self._settings.run.steps:
            self._policy.export(self._export)
            self._broker.finish()
            log.info("finished", step=self._step, export=str(self._export), **self._ledger.counts())
        else:
            log.info("stopped; the same command resumes", step=self._step, of=self._settings.run.steps)

    def close(self) -> None:
        self._reward_log.close()
        self._metrics_file.close()


def _scored(delivery: Delivery) -> Scored:
    assert isinstance(delivery.message, Scored)
    return delivery.message


def _sequences(groups: SequenceOf[Scored], gains: SequenceOf[NDArray[np.float64]]) -> list[Sequence]:
    """One sequence per completion that has tokens."""
    return [
        Sequence(group.ticket.prompt_ids, completion.ids, completion.logprobs, float(gain))
        for group, gain_of in zip(groups, gains, strict=True)
        for completion, gain in zip(group.rollout.completions, gain_of, strict=True)
        if len(completion.ids)
    ]
