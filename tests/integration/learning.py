"""A learner with a real, tiny policy in this process, and a thread that plays all actors and scorers."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from common.deliveries import Delivery
from common.lifecycle import Every
from common.schema import Rollout, Ticket
from common.settings import Sections
from common.streams import Broker
from common.tasks import Problem
from learner.options import policy_options
from learner.policy import Policy
from learner.ranks import Ranks
from learner.render import Renderer
from learner.team import Team
from learner.worker import Learner
from tests.make import rollout, scored

GROUPS = 2
PROBLEMS = [Problem(f"{i} + {i} = ?", str(2 * i), None, {}) for i in range(5)]


class Player(threading.Thread):
    """Plays all actors and scorers: every ticket comes back scored, sampled by the newest policy."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.broker = Broker(broker.url, broker.run, "player", stop=self.stop)
        self.step = 0
        self.seen: Counter[tuple[int, int]] = Counter()
        """(id, attempt) of every ticket of training that came."""

    def run(self) -> None:
        while not self.stop.is_set():
            self.play_actors()
            self.play_scorers()
            self.turn()

    def play_actors(self) -> None:
        orders = self.broker.read("tickets", 99, 10) + self.broker.read("eval:tickets", 99, 0)
        self.follow()  # after the tickets: never older than the learner that issued them
        for order in orders:
            if order.ticket.lane == "train":
                self.seen[order.ticket.id, order.ticket.attempt] += 1
            self.sample(order, order.ticket)

    def play_scorers(self) -> None:
        for made in self.broker.read("rollouts", 99, 0) + self.broker.read("eval:rollouts", 99, 0):
            assert isinstance(made.message, Rollout)
            self.score(made, made.message)

    def follow(self) -> None:
        policy = self.broker.policy()
        self.step = policy.step if policy else self.step

    def turn(self) -> None:
        """Called again and again, also when nothing comes."""

    def sample(self, order: Delivery, ticket: Ticket) -> None:
        self.broker.hand_over(order, rollout(ticket, step=self.step))

    def score(self, made: Delivery, message: Rollout) -> None:
        self.broker.hand_over(made, scored(message), momentum=0.9)

    def end(self) -> None:
        self.stop.set()
        self.join(30)


class Bench:
    """One run folder and one broker; learners come and go."""

    def __init__(self, broker: Broker, model: Path, folder: Path) -> None:
        self.broker = broker
        self.model = model
        self.folder = folder / "run"
        self.weights = folder / "weights"
        self.players: list[Player] = []
        self.learners: list[Learner] = []
        self.changes: dict[str, Any] = {}
        """Of the [learner] section."""
        self.data: dict[str, Any] = {}
        """The [data] section."""
        self.evaluation: dict[str, Any] = {}
        """The [eval] section."""
        self.further: dict[str, dict[str, Any]] = {}
        """Other sections."""

    def settings(self, steps: int) -> Sections:
        self.folder.mkdir(exist_ok=True)
        return Sections.model_validate(
            {
                "run": {"folder": str(self.folder), "steps": steps},
                "broker": {"claim_after_ms": 500},
                "model": {"policy": str(self.model)},
                "data": self.data,
                "sampling": {"completions": 2, "max_tokens": 16},
                "learner": {
                    "groups_per_step": GROUPS,
                    "max_staleness": 1,
                    "checkpoint_every_steps": 2,
                    "lr": 1e-2,
                    **self.changes,
                },
                "weights": {"folder": str(self.weights)},
                "eval": self.evaluation,
                **self.further,
            }
        )

    def learner(self, steps: int) -> Learner:
        settings = self.settings(steps)
        stop = threading.Event()
        broker = Broker(self.broker.url, self.broker.run, "learner", stop=stop)
        broker.check()
        policy = Team(Policy(self.model, policy_options(settings)), Ranks(0, {}))
        learner = Learner(settings, broker, policy, Renderer(self.model, ""), PROBLEMS, stop)
        learner._pulse, learner._reconcile = Every(0.05), Every(0.2)  # else every 1 and 10 seconds
        self.learners.append(learner)
        return learner

    def play(self, kind: type[Player] = Player) -> Player:
        self.players.append(kind(self.broker))
        self.players[-1].start()
        return self.players[-1]

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").open()]

    def logged(self) -> list[tuple[int, str]]:
        """(ticket, outcome) of the reward log."""
        found = [json.loads(line) for line in (self.folder / "rewards" / "rewards.jsonl").open()]
        return [(line["id"], line["outcome"]) for line in found]

    def close(self) -> None:
        for player in self.players:
            player.end()
        for learner in self.learners:
            learner.close()


def finish(learner: Learner) -> dict[str, int]:
    """Runs to the end, its last policy announced; the audited books."""
    learner.start()
    learner.loop()
    learner.finish()
    learner._publisher.settle()
    return learner._ledger.audit()
