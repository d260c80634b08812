"""Evaluation beside training: held-out problems go the way of training's, in a lane of their own, round by round.

A round is one ticket for each problem. It begins at the first step, at every `eval.every_steps`, and at the last step,
and never beside another: what comes due while a round runs is passed over and counted, but for the last step's, which
takes the place of the other. Training goes on meanwhile, so that a figure spans versions of the policy, and says which.
Answers stay in the broker until a checkpoint has them: a learner that dies takes none along.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgpack
import structlog

from common.connection import BrokerFull
from common.deliveries import Delivery
from common.schema import Scored
from common.settings import Sections
from common.streams import Broker
from learner.commit import Committer
from learner.groups import Branch, payload_bytes
from learner.json_lines import JsonLines
from learner.ledger import EvaluationLedger
from learner.questions import Questions
from learner.reconciler import Reconciler
from learner.room import Room
from learner.round import Answer, Figure, Round, is_due

log = structlog.get_logger("learner")


class Evaluation:
    """`turn` begins a round, or moves the one that runs; `newest` is the figure of the last one that was finished."""

    newest: Figure | None = None

    def __init__(
        self, settings: Sections, broker: Broker, committer: Committer, questions: Questions, room: Room
    ) -> None:
        self._settings, self._options = settings, settings.eval
        self._broker, self._committer, self._questions, self._room = broker, committer, questions, room
        self._reconciler = Reconciler(broker, "eval", committer, questions)
        self._lines = JsonLines(settings.run.folder / "eval.jsonl") if settings.eval.every_steps else None
        self._ledger = EvaluationLedger()
        self._branch = Branch(0, 0)
        self._round: Round | None = None
        self._met: int | None = None
        """The last step whose round was begun, or passed over."""
        self._passed_over = 0
        self._abandoned: Counter[str] = Counter()

    def start(self, saved: bytes | None, branch: Branch, most_deliveries: int) -> None:
        """Goes on with the round of a checkpoint, joined with what the broker has of it; drops all other tickets."""
        self._branch = branch
        if saved is not None:
            self._restore(saved)
        rounds = 2 + self._settings.learner.checkpoint_every_steps // max(1, self._options.every_steps)
        self._reconciler.adopt(self._ledger, branch.incarnation, rounds * sum(self._questions.sizes.values()))
        ours = self._questions.ids if self._round else ()
        self._drop([id for id in self._ledger.in_flight() if id not in ours], "abandoned_branch")
        for delivery in self._broker.claim("eval:scored", 0, most_deliveries):
            self._admit(delivery)

    def unfinished(self, step: int) -> bool:
        """Whether a round runs, or is to begin at `step`."""
        return self._round is not None or self.is_due(step)

    def is_due(self, step: int) -> bool:
        """Whether a round is to begin at `step`."""
        return is_due(step, self._settings.run.steps, self._options.every_steps, self._met)

    def turn(self, step: int, block_ms: int) -> None:
        """Begins what is due at `step`, puts tickets up, and takes what is scored, waiting at most `block_ms`.

        Raises BrokerFull and Fenced.
        """
        if self.is_due(step):
            self._meet(step)
        if not self._ledger.issued and not self._round:
            return
        for delivery in self._broker.read("eval:scored", self._options.in_flight, block_ms):
            self._admit(delivery)
        if self._round is None:
            return
        room = self._options.in_flight - len(self._ledger.in_flight())
        missing = self._questions.ids.stop - self._ledger.issued
        self._questions.put_up(self._ledger, min(room, missing), self._branch.incarnation, self._round.step)
        if missing <= 0 and not any(id in self._questions.ids for id in self._ledger.in_flight()):
            self._finish(self._round)

    def collect_dead(self) -> None:
        """Books what was given up; a round does without it."""
        self._reconciler.collect_dead(self._ledger)

    def compare_books(self) -> None:
        """Asks again what nobody has any more, and takes what older learners left. Raises BrokerFull and Fenced."""
        if self._round:
            self._reconciler.compare(self._ledger, (), self._branch.incarnation, self._round.step)
        for delivery in self._broker.inherit("eval:scored", self._settings.broker.claim_after_ms):
            self._admit(delivery)
        for delivery in self._broker.missed("eval:scored", self._committer.entries("eval")):
            self._admit(delivery)

    def audit(self) -> dict[str, int]:
        """The audited books, for a heartbeat: {"eval_issued", "eval_evaluated", ...}. Raises BooksError."""
        return {f"eval_{name}": count for name, count in self._ledger.audit().items()}

    def dump(self) -> bytes:
        """For a checkpoint: the books, and of the round that runs a few numbers for each problem."""
        state: dict[str, Any] = {
            "ledger": self._ledger.dump(),
            "met": self._met,
            "passed_over": self._passed_over,
            "abandoned": dict(self._abandoned),
            "newest": dataclasses.asdict(self.newest) if self.newest else None,
            "round": dataclasses.asdict(self._round) if self._round else None,
            "checksum": self._questions.checksum,
        }
        return bytes(msgpack.packb(state))

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()

    def _restore(self, saved: bytes) -> None:
        state = msgpack.unpackb(saved, strict_map_key=False)
        self._ledger = EvaluationLedger.restored(state["ledger"])
        self._met, self._passed_over = state["met"], state["passed_over"]
        self._abandoned = Counter(state["abandoned"])
        self.newest = Figure(**state["newest"]) if state["newest"] else None
        if begun := state["round"]:
            answers = {id: Answer(**answer) for id, answer in begun["answers"].items()}
            self._round = Round(**begun | {"answers": answers})
            self._questions.first = self._round.first
            if state["checksum"] != self._questions.checksum or not self._options.every_steps:
                self._abandon("other_settings")

    def _meet(self, step: int) -> None:
        self._met = step
        if self._round and step < self._settings.run.steps:
            self._passed_over += 1
            log.info("evaluation passed over: the last one still runs", step=step, since=self._round.step)
            return
        if self._round:
            self._abandon("superseded")
        self._round = Round(step, self._ledger.issued, time.time())
        self._questions.first = self._round.first

    def _admit(self, delivery: Delivery) -> None:
        group, ticket = delivery.message, delivery.ticket
        assert isinstance(group, Scored)
        if not self._reconciler.awaits(self._ledger, delivery, (), self._branch.incarnation):
            return
        versions = (version for completion in group.rollout.completions for version in completion.versions)
        if self._round is None or not self._questions.ordered(group, self._round.step):
            self._ledger.drop(ticket.id, "not_as_ordered")
        elif any(self._branch.has_left(incarnation, step) for _, incarnation, step in versions):
            try:
                self._questions.put_up_again(self._ledger, [ticket.id], self._branch.incarnation, self._round.step)
            except BrokerFull:
                return  # `compare_books` meets it again
        else:
            self._round.answers[ticket.id] = Answer.of(group)
            self._ledger.evaluate(ticket.id, self._round.step)
        self._committer.settle("eval", ticket.id, ticket.attempt, delivery.entry, payload_bytes(group))

    def _finish(self, done: Round) -> None:
        figure = done.figure(self._questions.sizes, self._options.samples, time.time())
        if figure is None:
            self._abandon("nothing_evaluated")
            return
        line = {
            "step": figure.step,
            "time": time.time(),
            "eval": dataclasses.asdict(figure),
            "tickets": self._ledger.audit(),
            "drops": dict(self._ledger.drops),
            "passed_over": self._passed_over,
            "abandoned": dict(self._abandoned),
        }
        if not self._room.write(lambda: self._write(line)):
            return  # told to stop while the disk is full: the next learner ends the round
        self.newest, self._round = figure, None
        log.info("evaluated", **{name: getattr(figure, name) for name in ("step", "accuracy", "problems", "given_up")})

    def _write(self, line: dict[str, Any]) -> bool:
        assert self._lines is not None, "a round is running"
        self._lines.write(line)
        return True

    def _abandon(self, reason: str) -> None:
        """Ends the round without a figure; what comes of its tickets is acknowledged and no more."""
        assert self._round is not None
        log.warning("evaluation abandoned", step=self._round.step, why=reason)
        self._abandoned[reason] += 1
        self._drop(self._ledger.in_flight(), reason)
        self._round = None

    def _drop(self, ids: Iterable[int], reason: str) -> None:
        attempts = self._ledger.in_flight()
        for id in ids:
            self._ledger.drop(id, reason)
            self._committer.settle("eval", id, attempts[id])
