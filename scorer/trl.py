"""HERO as a reward function for TRL's GRPOTrainer: `pip install -e .[trl]`.

    from common.config import load

    args = GRPOConfig(..., num_generations=8, scale_rewards="none")
    with HeroReward(args, load(Path("my.toml"))) as hero:
        GRPOTrainer(model, reward_funcs=hero, args=args, train_dataset=dataset).train()

The data set has a column with the gold answer. Needs a whole group at a time: HERO ranks the completions of one prompt
among themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from common.errors import ConfigError, DataError
from common.settings import Sections
from common.sigma import Sigma, next_sigma
from scorer.reward_models.backends import make_reward_model
from scorer.reward_models.protocol import Sample
from scorer.rewards import reward_group
from scorer.sandbox import Item
from scorer.worker import make_sandbox


class Arguments(Protocol):
    """What is read of trl.GRPOConfig."""

    num_generations: int | None
    scale_rewards: Any
    multi_objective_aggregation: str


class HeroReward:
    """`HeroReward(args, settings, gold="answer")`: rewards w * r_hat of Eq. 3 to 5, or of another `reward.mode`.

    args: the trainer's own GRPOConfig. settings: [verifier], [reward_model] and [reward] are read. gold: the column of
    the data set that holds the gold answer. sigma_bar and sigma_dev run over the groups that this process scores.

    Raises ConfigError where the trainer would divide by the group's standard deviation: the weight w of Eq. 5 is one
    number for a group and cancels then.
    """

    def __init__(self, args: Arguments, settings: Sections, *, gold: str = "answer") -> None:
        if args.scale_rewards not in ("none", False):
            raise ConfigError(
                f"scale_rewards = {args.scale_rewards!r} divides by the standard deviation of the group or the batch, "
                'and HERO\'s weight cancels: set GRPOConfig(scale_rewards="none")'
            )
        if args.multi_objective_aggregation != "sum_then_normalize":
            raise ConfigError(
                f"multi_objective_aggregation = {args.multi_objective_aggregation!r} normalizes each reward, and "
                'HERO\'s weight cancels: set "sum_then_normalize"'
            )
        if not args.num_generations or args.num_generations < 2:
            raise ConfigError(f"num_generations = {args.num_generations}: a group needs 2 completions at least")
        self.__name__ = f"hero_{settings.reward.mode}"  # TRL names its metrics after it
        self.sigma: Sigma | None = None
        self._completions = args.num_generations
        self._options = settings.reward
        self._gold = gold
        self._sandbox = make_sandbox(settings)
        self._model = make_reward_model(settings)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """One reward per completion. Raises ConfigError for split groups, DataError without gold answers."""
        if self._gold not in columns:
            raise DataError(f"the data set has no column {self._gold!r}: name the gold answers' with gold=...")
        texts, questions = [_text(c) for c in completions], [_text(p) for p in prompts]
        golds = [str(gold) for gold in columns[self._gold]]
        groups = self._groups(questions)
        verdicts = self._sandbox.verify([Item(*pair) for pair in zip(golds, texts, strict=True)])
        samples = [Sample(*parts) for parts in zip(questions, texts, golds, strict=True)]
        scores = self._model.score(samples) if self._model else None
        rewards: list[float] = []
        for group in groups:
            found = None if scores is None else np.asarray(scores[group], dtype=np.float64)
            given = [verdict.status for verdict in verdicts[group]]
            statuses, made = reward_group(self._options.mode, given, found, sigma=self.sigma, options=self._options)
            self.sigma = next_sigma(self.sigma, made.sigma_u, self._options.sigma_momentum)
            _log(columns.get("log_metric"), statuses, made.weight)
            rewards += made.rewards.tolist()
        return rewards

    def _groups(self, questions: Sequence[str]) -> list[slice]:
        size = self._completions
        groups = [slice(start, start + size) for start in range(0, len(questions), size)]
        if len(questions) % size or any(len(set(questions[group])) > 1 for group in groups):
            raise ConfigError(
                f"this process got {len(questions)} completions that are no whole groups of {size}: make "
                f"per_device_train_batch_size * steps_per_generation a multiple of num_generations = {size}"
            )
        return groups

    def close(self) -> None:
        """Ends the verifier's children, and the connection to a reward model's server."""
        self._sandbox.close()
        if self._model is not None:
            self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _text(value: Any) -> str:
    """A text, or the last message of a conversation."""
    return value if isinstance(value, str) else str(value[-1]["content"])


def _log(metric: Callable[[str, float], None] | None, statuses: Sequence[str], weight: float) -> None:
    if metric is not None:
        metric("hero/accuracy", statuses.count("correct") / len(statuses))
        metric("hero/weight", weight)
