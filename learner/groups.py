"""Scored groups on their way into a batch: which may not be trained on, and what the others become. Pure."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.schema import Scored
from learner.advantage import Group
from learner.batch import Sequence


@dataclass(frozen=True)
class Order:
    """What every ticket of this run asks for. A token beyond the vocabulary, or far too many, would end the learner."""

    vocabulary: int
    prompt_tokens: int
    """At most."""
    completion_tokens: int
    """At most."""
    temperature: float

    def fits(self, group: Scored) -> bool:
        parts = [group.ticket.prompt_ids, *(completion.ids for completion in group.rollout.completions)]
        return (
            group.ticket.temperature == self.temperature
            and len(parts[0]) <= self.prompt_tokens
            and max(map(len, parts[1:])) <= self.completion_tokens
            and all(part.min() >= 0 and part.max() < self.vocabulary for part in parts if len(part))
        )


@dataclass(frozen=True)
class Branch:
    """What the learner trains on since its start; what an older one did beyond `begun_at` was left."""

    incarnation: int
    begun_at: int
    """The step that it resumed from."""

    def has_left(self, incarnation: int, step: int) -> bool:
        return incarnation < self.incarnation and step > self.begun_at


def drop_reason(group: Scored, step: int, max_staleness: int, order: Order, branch: Branch) -> str | None:
    """Why a group may not be trained on at `step`; None if it may.

    Every token of it must be of a policy within the bound; one that is ahead of the learner's is of a branch that was
    left, and bounded like one behind it.
    """
    if not order.fits(group):
        return "not_as_ordered"
    versions = {(incarnation, of) for c in group.rollout.completions for _, incarnation, of in c.versions}
    versions = versions or {(group.ticket.incarnation, group.ticket.step)}
    if any(abs(step - of) > max_staleness for _, of in versions):
        left = any(of > step or branch.has_left(incarnation, of) for incarnation, of in versions)
        return "abandoned_branch" if left else "stale"
    if not any(len(completion.ids) for completion in group.rollout.completions):
        return "empty"
    return None


def graded(group: Scored) -> Group:
    """What of a scored group its advantages depend on."""
    correct = np.array([status == "correct" for status in group.statuses])
    return Group(correct, group.rm_scores, group.r_hat, group.weight)


def sequences(groups: SequenceOf[Scored], advantages: SequenceOf[NDArray[np.float64]]) -> list[Sequence]:
    """One sequence per completion that has tokens; `advantages` float64 [N] for each group."""
    return [
        Sequence(group.ticket.prompt_ids, completion.ids, completion.logprobs, float(advantage))
        for group, advantages_of in zip(groups, advantages, strict=True)
        for completion, advantage in zip(group.rollout.completions, advantages_of, strict=True)
        if len(completion.ids)
    ]


def payload_bytes(group: Scored) -> int:
    """About what a group takes in the broker: token ids, as many log-probabilities, text."""
    return sum(completion.ids.nbytes * 2 + len(completion.text) for completion in group.rollout.completions)
