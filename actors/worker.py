"""The actor's loop: follow the policy, take tickets, sample, publish groups."""

from __future__ import annotations

import shutil
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import structlog

from actors.engine import Engine, EngineOptions
from actors.join import fetched_folder, model_from_broker
from actors.policy_source import PolicySource
from actors.rollout import Groups, version_key
from actors.slots import Slots
from common.deliveries import Delivery
from common.errors import BrokerUnavailable, ModelError, SamplerMismatch, WeightsError
from common.lanes import Stage
from common.leases import Leases
from common.lifecycle import Every, stop_on_signals
from common.models import local_folder
from common.schema import Policy, Ticket
from common.settings import Sections
from common.streams import Broker
from common.waiting import Waiting
from common.weights import folder
from common.weights.store import WeightStore

POLICY_POLL_S = 0.02
DRAIN_S = 20.0  # for its groups; as long again for all else
WEIGHTS_RETRY_S = 1.0
FAILURES = 10  # of one policy whose file is there and is another
TICKETS: tuple[Stage, ...] = ("tickets", "eval:tickets")

log = structlog.get_logger("actor")


def run(settings: Sections, url: str, run_id: str) -> int:
    """Samples until the run is over or a signal asks to drain; returns the exit code."""
    stop = stop_on_signals(2 * DRAIN_S)
    broker = Broker(url, run_id, "actor", stop=stop)
    broker.check()
    seed = int.from_bytes(broker.consumer.encode()[-6:], "big") % 2**31  # actors must not sample the same
    with model_folder(settings, broker) as model:
        engine = Engine(engine_options(settings, model, seed), version=0)
    log.info("engine ready", model=str(model), consumer=broker.consumer)
    actor = Actor(settings, broker, engine, stop)
    try:
        actor.loop()
    finally:
        actor.close()
    return 0


@contextmanager
def model_folder(settings: Sections, broker: Broker) -> Iterator[Path]:
    """Where the engine finds its model: here, on the hub, or else out of the broker for as long as it is entered."""
    fetched = None
    try:
        found = local_folder(settings.model.policy, "model.policy", settings.model.revision)
    except ModelError as error:
        if settings.actor.weights_from == "folder":
            raise
        log.info("the model comes from the broker", why=str(error))
        store = WeightStore(settings.weights.url or broker.url, broker.run, "actor", stop=broker.stop)
        found = fetched = model_from_broker(store, fetched_folder(settings, broker.run), broker.stop)
    try:
        yield found
    finally:
        if fetched:
            shutil.rmtree(fetched, ignore_errors=True)


def engine_options(settings: Sections, model: Path, seed: int) -> EngineOptions:
    """The engine that the [actor] section describes, with room for all groups in flight."""
    options = settings.actor
    return EngineOptions(
        model=str(model),
        dtype=options.dtype,
        max_model_len=options.max_model_len,
        max_num_seqs=options.groups_in_flight * settings.sampling.completions,
        kv_cache_gib=options.kv_cache_gib,
        gpu_memory_utilization=options.gpu_memory_utilization,
        tensor_parallel=options.tensor_parallel,
        threads=options.threads,
        seed=seed,
        trust_remote_code=settings.model.trust_remote_code,
    )


class Actor:
    def __init__(self, settings: Sections, broker: Broker, engine: Engine, stop: threading.Event) -> None:
        self._settings = settings
        self._broker = broker
        self._engine = engine
        self._stop = stop
        self._policy: Policy | None = None
        self._source = PolicySource(settings, broker)
        self._groups = Groups(broker.consumer)
        self._leases = Leases(broker, settings.broker.claim_after_ms)
        self._poll = Every(POLICY_POLL_S)
        self._pulse = Every(1.0)
        self._slots = Slots(settings, broker, engine, self._groups, self._leases, self._start)
        self._waiting = Waiting("actor")
        self._retry_weights_at = 0.0
        self._told_missing = ""
        self._failures = 0
        self._worst_difference = 0.0
        self._tokens = self._completions = 0
        self._busy_s = self._load_s = 0.0

    def loop(self) -> None:
        while not self._stop.is_set() and not (self._pulse.due() and self._over()):
            self._follow_policy()
            self._take_tickets()
            self._sample()
        deadline = time.monotonic() + DRAIN_S
        while self._engine.busy and not self._broker.over() and time.monotonic() < deadline:
            self._sample()
        with suppress(BrokerUnavailable):
            self._over()  # the last heartbeat: what was found since the one before

    def close(self) -> None:
        self._leases.close()
        for stage in TICKETS:
            self._broker.leave(stage)
        self._source.close()
        self._engine.close()

    def _over(self) -> bool:
        if self._told_missing:
            self._waiting.on("the weights of the newest policy", until=f"they can be loaded: {self._told_missing}")
        elif self._policy is None:
            self._waiting.on("the first policy", until="the learner announces one: is it alive?")
        elif not self._engine.busy:
            self._waiting.on("tickets", until="the learner issues some: is it alive, are its groups scored?")
        else:
            self._waiting.over()
        self._broker.heartbeat(
            {
                "role": "actor",
                "step": self._policy.step if self._policy else None,
                "checksum": self._policy.checksum if self._policy else None,
                "weights_from": self._source.kind,
                "groups": len(self._groups),
                "tokens": self._tokens,
                "completions": self._completions,
                "busy_s": self._busy_s,
                "load_s": self._load_s,
                "max_logprob_difference": self._worst_difference,
                **self._waiting.state,
            }
        )
        return self._broker.over()

    def _follow_policy(self, at_least: int = -1) -> None:
        """Loads the newest announced weights, between two engine steps."""
        if (not self._poll.due() and at_least < 0) or time.monotonic() < self._retry_weights_at:
            return
        newest = self._source.newest()
        if newest is None or (self._policy and version_key(newest) == version_key(self._policy)):
            return
        try:
            with folder.locked(Path(newest.folder)) as file:
                folder.verify(file, newest.manifest)
                times = self._engine.load(file.parent, version_key(newest))
        except WeightsError as error:
            self._not_loaded(newest, error)
            return
        self._failures = 0
        self._told_missing = ""
        self._policy = newest
        self._load_s += times.check + times.pause + times.load + times.resume
        self._check(newest)

    def _not_loaded(self, policy: Policy, error: WeightsError) -> None:
        """Says so once, and tries again later; raises `error` when what is there was FAILURES times not the policy."""
        latest = self._source.newest()
        if latest and version_key(latest) != version_key(policy):
            return  # it was removed: the newer one is next
        self._retry_weights_at = time.monotonic() + WEIGHTS_RETRY_S
        if self._told_missing != str(error):
            self._told_missing = str(error)
            log.error("weights not loaded, trying again", step=policy.step, why=str(error))
        if (Path(policy.folder) / folder.FILE).is_file():
            self._failures += 1
            if self._failures >= FAILURES:
                raise error

    def _check(self, policy: Policy) -> None:
        """The engine must compute what the learner computes: a difference is a wrong ratio in every token."""
        if not policy.check_ids:
            return
        try:
            ours = self._engine.prompt_logprobs([ids.tolist() for ids in policy.check_ids])
        except ValueError as error:
            raise SamplerMismatch(
                f"the engine cannot read the check sequences of step {policy.step} ({error}): "
                "same model folder and tokenizer on both sides?"
            ) from error
        worst = max(float(np.abs(a - b).max()) for a, b in zip(ours, policy.check_logprobs, strict=True))
        self._worst_difference = max(self._worst_difference, worst)
        bound = self._settings.actor.max_logprob_difference
        log.debug("weights loaded", step=policy.step, logprob_difference=worst)
        if not worst <= bound:  # also for NaN
            raise SamplerMismatch(
                f"after loading step {policy.step} the engine's log-probabilities miss the learner's by {worst:.3g} "
                f"(actor.max_logprob_difference = {bound:g}): same model folder, tokenizer and dtype on both sides? "
                "bfloat16 needs about 0.15"
            )

    def _take_tickets(self) -> None:
        if self._policy is None:
            self._stop.wait(POLICY_POLL_S)
            return
        self._slots.take(read_from=self._retry_weights_at)

    def _start(self, delivery: Delivery) -> None:
        ticket = delivery.ticket
        assert isinstance(ticket, Ticket)
        if self._policy and ticket.step > self._policy.step:
            self._follow_policy(at_least=ticket.step)
        try:
            self._engine.add(
                delivery.name,
                ticket.prompt_ids.tolist(),
                n=ticket.completions,
                temperature=ticket.temperature,
                top_p=ticket.top_p,
                max_tokens=ticket.max_tokens,
            )
        except ValueError as error:  # this prompt can never be sampled here
            self._leases.release([delivery])
            self._broker.bury(delivery, str(error), traceback.format_exc())
            return
        self._groups.start(delivery)

    def _sample(self) -> None:
        for name in self._leases.lost():
            if self._groups.give_up(name):
                log.warning("lease lost, group given up", delivery=name)
                self._engine.abort([name])
        if not self._engine.busy:
            return
        started = time.monotonic()
        finished = self._engine.step()
        self._busy_s += time.monotonic() - started
        groups = []
        for sampled in finished:
            self._tokens += len(sampled.token_ids)
            self._completions += 1
            if done := self._groups.add(sampled):
                groups.append(done)
        if groups:
            self._leases.release([delivery for delivery, _ in groups])
            self._broker.hand_over_together(groups)
