"""The folder of a small run, written by the project's own logs: for whatever reads run folders."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import config
from common.schema import Completion, Scored
from common.settings import Sections
from common.sigma import Sigma
from deploy.evaluation import rows
from deploy.evaluation.run import conclude
from deploy.run_folder import open_run, write_atomically
from deploy.summary import summarize
from learner.advantage import advantages
from learner.json_lines import JsonLines
from learner.ledger import Ledger
from learner.metrics import batch_metrics
from learner.metrics_log import MetricsLog
from learner.reward_log import RewardLog
from scorer.rewards import shape
from tests import make

OTHERS = ("no_answer", "unparsable", "timeout")
COMPLETIONS = 4
Text = Callable[[int, int], str]
"""Of a completion, by ticket and place."""


def plain(ticket: int, place: int) -> str:
    return f"completion {place} of ticket {ticket}: \\boxed{{{place}}}"


class Run:
    """A run of `steps` steps in a folder; each `step` is two groups trained on and, every tenth, one dropped."""

    def __init__(self, folder: Path, steps: int = 30, text: Text = plain, seed: int = 0, **sections: Any) -> None:
        self.settings = Sections.model_validate(
            {"run": {"folder": folder, "name": folder.name, "steps": steps}, **sections}
        )
        self.folder = folder
        self.id, _ = open_run(self.settings)
        write_atomically(folder / "settings.json", config.dump(self.settings))
        self._metrics = MetricsLog(folder / "metrics.jsonl")
        self._rewards = RewardLog(folder / "rewards", self.settings.learner.reward_log_mb)
        self._ledger, self._random, self._text = Ledger(), np.random.default_rng(seed), text
        self.done = 0

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.done += 1
            batch = [self._group() for _ in range(2)]
            gains = [advantages(group.r_hat, group.weight, "centered") for group in batch]
            metrics = batch_metrics(batch, gains, self.done) | {
                "loss": float(self._random.normal()), "entropy": 1 / self.done, "kl_behaviour": 1e-4,
                "grad_norm": 0.1, "lr": 1e-5, "ratio_histogram": [0, 9, 0], "tokens_per_second": 1e4 + self.done,
            }  # fmt: skip
            for group, gain in zip(batch, gains, strict=True):
                self._rewards.write(group, "trained", self.done, gain)
            self._ledger.train([group.ticket.id for group in batch], self.done)
            if self.done % 10 == 0:
                late = self._group()
                self._rewards.write(late, "dropped: stale", self.done)
                self._ledger.drop(late.ticket.id, "stale")
            seconds = {"forward": 0.2, "backward": 0.3, "waiting": 0.1 * self.done % 0.7, "step": 0.5}
            self._metrics.write(self.done, metrics, seconds, self._ledger)

    def evaluated(self, rounds: Sequence[int] = (0, 10, 20)) -> None:
        """Evaluations beside training."""
        lines = JsonLines(self.folder / "eval.jsonl")
        for step in rounds:
            value = 0.3 + 0.01 * step
            one = {"accuracy": value, "low": value - 0.05, "high": value + 0.05}
            lines.write({"step": step, "eval": {"step": step, **one, "sets": {"sums": one}, "problems": 50}})
        lines.close()

    def finish(self) -> None:
        """Evaluated before and after, summed up."""
        out = self.folder / "eval"
        make.evaluated(out, "before", [True] * 10 + [False] * 30)
        make.evaluated(out, "after", [True] * 30 + [False] * 10)
        found = conclude(out, rows.read_all(out), k=())
        summary = summarize(self.settings, self.id, found, training_s=60.0, worst_difference=2e-5)
        write_atomically(self.folder / "summary.json", json.dumps(summary))

    def _group(self) -> Scored:
        id = self._ledger.issued
        self._ledger.issue(id)
        chance = 0.2 + 0.6 * self.done / self.settings.run.steps
        statuses = ["correct" if self._random.random() < chance else "wrong" for _ in range(COMPLETIONS)]
        if id % 9 == 0:
            statuses[-1] = OTHERS[id // 9 % len(OTHERS)]
        scores = self._random.normal(size=COMPLETIONS)
        mode = self.settings.reward.mode
        right = [status == "correct" for status in statuses]
        made = shape(mode, right, scores, sigma=Sigma(1.0), options=self.settings.reward)
        rollout = make.rollout(make.ticket(id=id, completions=COMPLETIONS), step=self.done - 1)
        return dataclasses.replace(
            make.scored(dataclasses.replace(rollout, completions=self._completions(id, rollout.completions))),
            mode=mode,
            statuses=statuses,
            rules=["same text" if one else "" for one in right],
            rm_scores=scores,
            **{name: getattr(made, name) for name in ("r_hat", "weight", "sigma_u", "sigma_bar", "sigma_dev")},
        )

    def _completions(self, id: int, made: Sequence[Completion]) -> list[Completion]:
        return [dataclasses.replace(one, text=self._text(id, place)) for place, one in enumerate(made)]
