"""What a run's folder says of its work: groups, their tokens, and the processes that its settings ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.settings import Sections
from deploy.recorded import batches
from learner.render import Renderer
from tests.bench.simulate.inputs import Plant, Work
from tests.bench.stages import Group

LAST_STEPS = 8  # lengths change as a policy learns, so the last ones are those of its weights


def last_groups(settings: Sections) -> list[Group]:
    """Those that the last steps of the run trained on."""
    last = list(batches(settings.run.folder, settings.learner.groups_per_step))[-LAST_STEPS:]
    return [group for batch in last for group in batch]


def group_tokens(settings: Sections, groups: Sequence[Group]) -> list[int]:
    """Prompts and completions of each group, in tokens of the policy."""
    renderer, n = Renderer(Path(settings.model.policy), settings.data.system_prompt), settings.sampling.completions
    prompts = [len(renderer.prompt_ids(group["question"])) for group in groups]
    sampled = [sum(c["tokens"] for c in group["completions"]) for group in groups]
    return [n * prompt + tokens for prompt, tokens in zip(prompts, sampled, strict=True)]


def work_of(settings: Sections, groups: Sequence[Group]) -> Work:
    """Lengths as they were in these groups."""
    lengths = tuple(tuple(int(c["tokens"]) for c in group["completions"]) for group in groups)
    n = settings.sampling.completions
    prompts = sum(group_tokens(settings, groups)) - sum(map(sum, lengths))
    return Work(completions=n, prompt_tokens=prompts / (n * len(groups)), groups=lengths)


def plant_of(settings: Sections) -> Plant:
    """The processes of `hero up` with these settings, and the rules that they keep."""
    return Plant(
        actors=settings.actor.count,
        scorers=settings.scorer.count,
        groups_in_flight=settings.actor.groups_in_flight,
        batch_groups=settings.scorer.batch_groups,
        groups_per_step=settings.learner.groups_per_step,
        max_staleness=settings.learner.max_staleness,
        over_sampling=settings.learner.over_sampling,
        checkpoint_every_steps=settings.learner.checkpoint_every_steps,
        claim_after_s=settings.broker.claim_after_ms / 1000,
    )
