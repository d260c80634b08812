"""The actor's loop: follow the policy, take tickets, sample, publish groups."""

from __future__ import annotations

import shutil
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from actors.engine import Engine, EngineOptions
from actors.follower import POLL_S, Follower
from actors.join import fetched_folder, model_from_broker
from actors.rollout import Groups
from actors.slots import Slots
from actors.spans import SampleSpans
from common.deliveries import Delivery
from common.errors import BrokerUnavailable, ModelError
from common.lanes import Stage
from common.leases import Leases
from common.lifecycle import Every, stop_on_signals
from common.models import local_folder
from common.schema import Ticket
from common.settings import Sections
from common.streams import Broker
from common.tracing import Tracer
from common.vitals import Vitals
from common.waiting import Waiting
from common.weights.store import WeightStore

DRAIN_S = 20.0  # for its groups; as long again for all else
TICKETS: tuple[Stage, ...] = ("tickets", "eval:tickets")

log = structlog.get_logger("actor")


def run(settings: Sections, url: str, run_id: str, stop: threading.Event | None = None) -> int:
    """Samples until the run is over or a signal, which may have set `stop`, asks to drain; returns the exit code."""
    stop = stop_on_signals(2 * DRAIN_S, stop)
    broker = Broker(url, run_id, "actor", stop=stop)
    broker.check()
    Vitals(settings, broker, "actor")
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
        self._groups = Groups(broker.consumer)
        self._follower = Follower(settings, broker, engine, self._groups, self._begin)
        self._leases = Leases(broker, settings.broker.claim_after_ms)
        self._pulse = Every(1.0)
        self._slots = Slots(settings, broker, engine, self._groups, self._leases, self._start)
        self._waiting = Waiting("actor")
        self._spans = SampleSpans(Tracer(settings, broker, "actor"))
        self._ended = False
        """Whether the run is over."""
        self._tokens = self._completions = 0
        self._busy_s = 0.0

    def loop(self) -> None:
        while not self._stop.is_set() and not (self._pulse.due() and self._over()):
            self._follower.follow()
            self._spans.follow(self._follower.policy)
            self._take_tickets()
            self._sample()
        deadline = time.monotonic() + DRAIN_S
        while self._engine.busy and not self._broker.over() and time.monotonic() < deadline:
            self._sample()
        with suppress(BrokerUnavailable):
            self._ended = self._over()  # the last heartbeat: what was found since the one before

    def close(self) -> None:
        self._leases.close()
        for stage in TICKETS:
            self._broker.leave(stage)
        self._follower.close(over=self._ended)
        self._engine.close()
        self._spans.close()

    def _over(self) -> bool:
        policy = self._follower.policy
        if self._follower.missing:
            self._waiting.on("the weights of the newest policy", until=f"they can be loaded: {self._follower.missing}")
        elif policy is None:
            self._waiting.on("the first policy", until="the learner announces one: is it alive?")
        elif not self._engine.busy:
            self._waiting.on("tickets", until="the learner issues some: is it alive, are its groups scored?")
        else:
            self._waiting.over()
        self._broker.heartbeat(
            {
                "role": "actor",
                "step": policy.step if policy else None,
                "checksum": policy.checksum if policy else None,
                "weights_from": self._follower.source,
                "groups": len(self._groups),
                "tokens": self._tokens,
                "completions": self._completions,
                "busy_s": self._busy_s,
                "load_s": self._follower.load_s,
                "max_logprob_difference": self._follower.worst_difference,
                "untold": self._spans.untold,
                **self._waiting.state,
            }
        )
        return self._broker.over()

    def _take_tickets(self) -> None:
        if self._follower.policy is None:
            self._stop.wait(POLL_S)
        elif not self._follower.holds:
            self._slots.take(read_from=self._follower.retry_at)

    def _start(self, delivery: Delivery) -> None:
        ticket = delivery.ticket
        assert isinstance(ticket, Ticket)
        policy = self._follower.policy
        if policy and ticket.step > policy.step:
            self._follower.follow(now=True)
        self._begin(delivery)

    def _begin(self, delivery: Delivery) -> None:
        ticket = delivery.ticket
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
        self._spans.start(delivery)

    def _sample(self) -> None:
        for name in self._leases.lost():
            if self._groups.give_up(name):
                log.warning("lease lost, group given up", delivery=name)
                self._spans.give_up(name, "lease lost")
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
            self._spans.end(groups, self._broker.hand_over_together(groups))
