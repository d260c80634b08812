"""reasoning-gym problems of a run: no two parts of it share a question."""

from __future__ import annotations

from typing import Literal

from common.settings import Sections
from common.tasks import Problem, generate

Split = Literal["sft", "rm", "train"]
_SEED_OFFSETS: dict[Split, int] = {"sft": 2_000_003, "rm": 3_000_017, "train": 4_000_037}
_HELD_OUT_SEED = 20_240_229  # the held-out problems are the same whatever run.seed is


def held_out(settings: Sections) -> dict[str, list[Problem]]:
    """The reasoning-gym sets of eval.data by name; each leaves out what those before it have."""
    seen: set[str] = set()
    found: dict[str, list[Problem]] = {}
    for name, one in settings.eval.sets.items():
        if one.source == "reasoning-gym":
            assert settings.eval.problems is not None, "the settings were checked"
            families = one.families or settings.data.families
            # A seed of its own, or a second set of these families would have to pass over all problems of the first.
            seed = _HELD_OUT_SEED + len(found)
            found[name] = generate(families, settings.eval.problems, seed, exclude=seen)
            seen |= {problem.question for problem in found[name]}
    return found


def training(settings: Sections, split: Split, count: int | None) -> list[Problem]:
    """The problems of one part, generated after those that come before it: held-out ones, cold start, reward model."""
    s = settings
    sizes: dict[Split, int] = {
        "sft": s.sft.taken,
        "rm": s.rm.prompts,
        "train": s.data.limit or s.run.steps * s.learner.groups_per_step,
    }
    seen = {problem.question for problems in held_out(s).values() for problem in problems}
    for name, size in sizes.items():
        seed = s.run.seed + _SEED_OFFSETS[name]
        problems = generate(s.data.families, (count or size) if name == split else size, seed, exclude=seen)
        if name == split:
            return problems
        seen |= {problem.question for problem in problems}
    raise AssertionError(split)
