"""Scored groups on their way into a batch: which may not be trained on, and what the others become. Pure."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.schema import Completion, Scored
from common.settings import Sections
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
    mask_truncated: bool
    """Whether what was cut for its length is left out of the loss."""

    def trains_on(self, completion: Completion) -> bool:
        return len(completion.ids) > 0 and not (self.mask_truncated and completion.finish == "length")

    def misfit(self, group: Scored) -> str | None:
        """Why a group is none that was ordered; None if it is one."""
        prompt, completions = group.ticket.prompt_ids, [completion.ids for completion in group.rollout.completions]
        longest = max(map(len, completions))
        parts = [part for part in (prompt, *completions) if len(part)]
        if group.ticket.temperature != self.temperature:
            return f"it was sampled at temperature {group.ticket.temperature:g}, not {self.temperature:g}"
        if len(prompt) > self.prompt_tokens or longest > self.completion_tokens:
            most = f"{self.prompt_tokens} and {self.completion_tokens}"
            return f"prompt and completion have {len(prompt)} and {longest} tokens, at most {most} were ordered"
        lowest = min((int(part.min()) for part in parts), default=0)
        highest = max((int(part.max()) for part in parts), default=0)
        if lowest < 0 or highest >= self.vocabulary:
            return f"its token ids are {lowest} to {highest}, the learner's model reads 0 to {self.vocabulary - 1}"
        return None


def order_of(settings: Sections, vocabulary: int) -> Order:
    """What the tickets of a run ask a policy of so many token ids for."""
    sampling = settings.sampling
    return Order(
        vocabulary,
        settings.data.max_prompt_tokens,
        sampling.max_tokens,
        sampling.temperature,
        mask_truncated=settings.learner.truncated == "mask",
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
    if order.misfit(group):
        return "not_as_ordered"
    versions = {(incarnation, of) for c in group.rollout.completions for _, incarnation, of in c.versions}
    versions = versions or {(group.ticket.incarnation, group.ticket.step)}
    if any(abs(step - of) > max_staleness for _, of in versions):
        left = any(of > step or branch.has_left(incarnation, of) for incarnation, of in versions)
        return "abandoned_branch" if left else "stale"
    if not any(order.trains_on(completion) for completion in group.rollout.completions):
        return "all_truncated" if any(len(c.ids) for c in group.rollout.completions) else "empty"
    return None


def graded(group: Scored) -> Group:
    """What of a scored group its advantages depend on."""
    correct = np.array([status == "correct" for status in group.statuses])
    return Group(correct, group.rm_scores, group.r_hat, group.weight)


def sequences(groups: SequenceOf[Scored], advantages: SequenceOf[NDArray[np.float64]], order: Order) -> list[Sequence]:
    """One sequence per completion that is trained on; `advantages` float64 [N] for each group."""
    return [
        Sequence(group.ticket.prompt_ids, completion.ids, completion.logprobs, float(advantage))
        for group, advantages_of in zip(groups, advantages, strict=True)
        for completion, advantage in zip(group.rollout.completions, advantages_of, strict=True)
        if order.trains_on(completion)
    ]


def payload_bytes(group: Scored) -> int:
    """About what a group takes in the broker: token ids, as many log-probabilities, text."""
    return sum(completion.ids.nbytes * 2 + len(completion.text) for completion in group.rollout.completions)
