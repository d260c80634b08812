"""Scored groups under a second configuration: what it shares with the first is recorded, the rest is done again."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from common.errors import BrokerError, ChildFailed
from common.schema import UNSCORED, Scored
from common.scores import recorded as on_record
from common.settings import Section, Sections
from common.sigma import Sigma, next_sigma
from scorer.reward_models.protocol import RewardModel, Sample
from scorer.rewards import NEEDS_REWARD_MODEL, reward_group
from scorer.sandbox import Item, Sandbox

# how fast, not what
NO_MATTER = {"children", "tasks_per_child", "batch_tokens"}
NO_MATTER_OF_A_MODEL = NO_MATTER | {"deadline_s", "attempts", "concurrency"}

log = structlog.get_logger("shadow")


@dataclass(frozen=True)
class Recorded:
    """What a second configuration takes from the first."""

    verdicts: bool
    scores: bool
    sigma: bool

    @classmethod
    def of(cls, first: Sections | None, second: Sections) -> Recorded:
        """`first` is None where nobody knows it: then nothing is shared, but scores if `second` names no model."""
        needs = second.reward.mode in NEEDS_REWARD_MODEL
        if first is None:
            return cls(verdicts=False, scores=needs and second.reward_model.model is None, sigma=False)
        same = second.reward_model.model is None or _same(first.reward_model, second.reward_model, NO_MATTER_OF_A_MODEL)
        scores = needs and same and first.reward.mode in NEEDS_REWARD_MODEL
        return cls(
            verdicts=_same(first.verifier, second.verifier),
            scores=scores,
            sigma=scores and first.reward.sigma_momentum == second.reward.sigma_momentum,
        )


class Second:
    """Scores what was scored once. Its sigma_bar and sigma_dev are the recorded ones, or running ones of its own.

    sandbox: asked for when a text is to be verified. model: None where the mode needs none, or its scores are recorded.
    """

    def __init__(
        self,
        settings: Sections,
        recorded: Recorded,
        sandbox: Callable[[], Sandbox],
        model: RewardModel | None,
        sigma: Sigma | None = None,
    ) -> None:
        self._reward = settings.reward
        self._recorded = recorded
        self._sandbox = sandbox
        self._model = model
        self._named = None if model is None else model.name
        self.sigma = sigma
        """Over the groups so far; None before the first, and where the recorded is taken."""

    def score(self, groups: Sequence[Scored]) -> list[Scored | None]:
        """The groups as the second configuration has them; None for one that it cannot score, told in the log."""
        started = time.monotonic()
        try:
            verdicts, scores = self._verdicts(groups), self._scores(groups)
        except (BrokerError, ChildFailed):  # nothing is wrong with the groups
            raise
        except Exception as error:
            if len(groups) > 1:  # each alone, so that one bad group harms no other
                return [found for group in groups for found in self.score([group])]
            log.warning("not scored", ticket=groups[0].ticket.id, why=f"{type(error).__name__}: {error}"[:400])
            return [None]
        seconds = time.monotonic() - started
        return [
            self._shaped(group, *found, raw, seconds)
            for group, found, raw in zip(groups, verdicts, scores, strict=True)
        ]

    def _verdicts(self, groups: Sequence[Scored]) -> list[tuple[list[str], list[str | None], list[str]]]:
        """Statuses, answers and rules of each group. Where another reward model gave no score, that hid the verdict."""
        found = [(list(group.statuses), list(group.extracted), list(group.rules)) for group in groups]
        again = [
            (number, place)
            for number, group in enumerate(groups)
            for place, status in enumerate(group.statuses)
            if not self._recorded.verdicts or (status in UNSCORED and not self._recorded.scores)
        ]
        if not again:
            return found
        items = [
            Item(rollout.ticket.gold, rollout.completions[place].text, rollout.ticket.meta)
            for rollout, place in ((groups[number].rollout, place) for number, place in again)
        ]
        for (number, place), verdict in zip(again, self._sandbox().verify(items), strict=True):
            statuses, extracted, rules = found[number]
            statuses[place], extracted[place], rules[place] = verdict.status, verdict.extracted, verdict.rule
        return found

    def _scores(self, groups: Sequence[Scored]) -> list[NDArray[np.float64] | None]:
        if self._recorded.scores:
            return [group.rm_scores for group in groups]
        if self._model is None:
            return [None] * len(groups)
        completions = [(group.ticket, c) for group in groups for c in group.rollout.completions]
        scores = self._model.score([Sample(ticket.question, c.text, ticket.gold) for ticket, c in completions])
        return list(np.split(scores, np.cumsum([len(group.rollout.completions) for group in groups])[:-1]))

    def _shaped(
        self,
        group: Scored,
        given: list[str],
        extracted: list[str | None],
        rules: list[str],
        scores: NDArray[np.float64] | None,
        seconds: float,
    ) -> Scored | None:
        theirs = None if group.sigma_bar is None else Sigma(group.sigma_bar, group.sigma_dev or 0.0)
        if self._recorded.scores and not self._recorded.sigma and self.sigma is None:
            self.sigma = theirs
        sigma = theirs if self._recorded.sigma else self.sigma
        mode = self._reward.mode
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # of scores that a stranger wrote; refused below
                statuses, shaped = reward_group(mode, given, scores, sigma=sigma, options=self._reward)
            if not (np.isfinite(shaped.rewards).all() and np.isfinite(shaped.sigma_u or 0.0) and shaped.weight > 0):
                raise ValueError(f"rewards {shaped.rewards.tolist()}, weight {shaped.weight}, sigma_u {shaped.sigma_u}")
        except ValueError as error:
            log.warning("not scored", ticket=group.ticket.id, why=str(error)[:400])
            return None
        if not self._recorded.sigma:
            self.sigma = next_sigma(self.sigma, shaped.sigma_u, self._reward.sigma_momentum)
        return dataclasses.replace(
            group,
            mode=mode,
            statuses=statuses,
            extracted=extracted,
            rules=rules,
            reward_model=group.reward_model if self._recorded.scores else self._named,
            rm_scores=None if scores is None else on_record(scores),
            r_hat=shaped.r_hat,
            weight=shaped.weight,
            sigma_u=shaped.sigma_u,
            sigma_bar=shaped.sigma_bar,
            sigma_dev=shaped.sigma_dev,
            scorer="shadow",
            seconds=seconds,
        )


def _same(one: Section, other: Section, leaving: set[str] = NO_MATTER) -> bool:
    return one.model_dump(exclude=leaving) == other.model_dump(exclude=leaving)
