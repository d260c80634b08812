"""Numbers of a run by name, each with its steps: those of its logs, and those that follow from them. Pure."""

from __future__ import annotations

import numpy as np

from deploy.report.panels import PHASES, STATUS
from deploy.report.steps import Floats, Steps

Series = dict[str, tuple[Floats, Floats]]
"""Name to steps and values, [n] each; nan where a step has no value."""


def series(steps: Steps, rewards: Steps) -> Series:
    """Of the metrics log, and of the mean rewards by verdict."""
    x = steps.steps
    found = {name: (x, steps.of(name)) for name in steps.names}
    if not len(steps):
        return found
    all_wrong, uniform = steps.of("all_wrong_share"), steps.of("uniform_group_share")
    made = {"mixed_share": 1 - uniform, "all_right_share": uniform - all_wrong}
    counts = {name: np.nan_to_num(steps.of(name)) for name in steps.names if name.startswith("status_")}
    if counts:
        total = np.maximum(sum(counts.values()), 1)
        made |= {STATUS + name.removeprefix("status_"): count / total for name, count in counts.items()}
    made["seconds_between_steps"] = between = _between(steps)
    made["sampled_tokens_per_second"] = steps.of("sampled_tokens") / between
    made |= {name: np.nan_to_num(found[name][1]) for phase in PHASES if (name := f"seconds.{phase}") in found}
    found |= {name: (x, values) for name, values in made.items() if np.isfinite(values).any()}
    return found | {name: (rewards.steps, rewards.of(name)) for name in rewards.names}


def _between(steps: Steps) -> Floats:
    """[steps] seconds since the step before; nan for the first, and where the clock was set back."""
    passed = np.diff(steps.of("time"), prepend=np.nan)
    return np.where(passed > 0, passed, np.nan)
