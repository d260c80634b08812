"""What a simulation is fed with: seconds of the stages, completion lengths, and how many there are of each process.

As JSON, that of a run measured by `python -m tests.bench.stage_times`:

    {"origin": "measured ...", "times": {"decode_step_s": 0.0032, ...}, "plant": {"actors": 1, "scorers": 2, ...},
     "work": {"completions": 2, "prompt_tokens": 21, "groups": [[40, 38], ...]}}
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Times:
    """Seconds of one process of each kind; of one rank for the learner."""

    decode_step_s: float
    """Of an engine step, whatever runs in it: the weights are read once."""
    decode_sequence_s: float
    """More for each running completion."""
    decode_context_s: float
    """More for each token in the KV cache of those."""
    start_group_s: float
    """Prefill of one group."""
    load_s: float
    """New weights: pause, load, check, resume."""
    recompute_token_s: float
    """After that, keys and values of a token of a running completion."""
    verify_completion_s: float
    score_batch_s: float
    """Of a scorer's batch, however small."""
    score_token_s: float
    """Reward model, prompt and completion."""
    train_step_s: float
    """Of a step, whatever is in it: optimizer, collectives."""
    train_token_s: float
    """Forward and backward of a token, prompt or completion, on one rank."""
    learner_group_s: float
    """Books, logs and broker, for a group, in the learner."""
    publish_s: float
    checkpoint_s: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} = {value}: seconds are finite and not negative")

    def decode_s(self, running: float, context: float) -> float:
        """Of one engine step for `running` completions with `context` tokens in their caches."""
        return self.decode_step_s + self.decode_sequence_s * running + self.decode_context_s * context


@dataclass(frozen=True)
class Work:
    """Prompts and completions. Lengths of whole groups as they were recorded, or lognormal ones."""

    completions: int
    prompt_tokens: float
    """Mean."""
    groups: tuple[tuple[int, ...], ...] = ()
    """Recorded lengths, a group each, so that what groups have in common stays; empty: lognormal."""
    mean_tokens: float = 0.0
    """Of the lognormal lengths before they are cut."""
    sigma: float = 0.0
    """Standard deviation of the logarithm; 0: all are alike."""
    max_tokens: float = math.inf

    def __post_init__(self) -> None:
        if any(len(group) != self.completions for group in self.groups):
            raise ValueError(f"a recorded group has not {self.completions} completions")
        if not self.groups and self.mean_tokens < 1:
            raise ValueError(f"mean_tokens = {self.mean_tokens:g}, and no groups are recorded: give one of them")

    def lengths(self, groups: int, chance: np.random.Generator) -> NDArray[np.float64]:
        """[groups, completions], each 1 or more."""
        if self.groups:
            recorded = np.array(self.groups, dtype=np.float64)
            return np.maximum(1.0, recorded[chance.integers(len(recorded), size=groups)])
        shape = (groups, self.completions)
        drawn = self.mean_tokens * np.exp(self.sigma * chance.standard_normal(shape) - self.sigma**2 / 2)
        return np.clip(np.rint(drawn), 1.0, self.max_tokens)

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean of the lengths, and of their squares; drawn, where they are lognormal and cut."""
        found = self.lengths(4096, np.random.default_rng(0))
        return float(found.mean()), float((found**2).mean())


@dataclass(frozen=True)
class Plant:
    """How many of each, and the rules that they keep. Example: `Plant(actors=4, scorers=2, ranks=1)`."""

    actors: int
    scorers: int
    ranks: int = 1
    groups_in_flight: int = 32
    """Of one actor, `actor.groups_in_flight`."""
    batch_groups: int = 16
    groups_per_step: int = 32
    max_staleness: int = 1
    over_sampling: float = 0.0
    checkpoint_every_steps: int = 50
    shared_cores: float = math.inf
    """Cores that learner and scorers share; actors have their own. math.inf: nothing is shared."""
    kill_every_s: float = math.inf
    """Mean time between two deaths of one actor; it is back after `restart_s`."""
    restart_s: float = 60.0
    claim_after_s: float = 30.0
    """`broker.claim_after_ms`: then others take over what a dead one held."""


@dataclass(frozen=True)
class Inputs:
    """All that a simulation is fed with, and where it is from."""

    times: Times
    work: Work
    plant: Plant
    origin: str

    def save(self, file: Path) -> None:
        parts = {name: _finite(asdict(getattr(self, name))) for name in ("times", "work", "plant")}
        file.write_text(json.dumps({"origin": self.origin, **parts}, indent=1), encoding="utf-8")


def load(file: Path) -> Inputs:
    """What `Inputs.save` wrote. ValueError names what is missing or unknown."""
    read = json.loads(file.read_text(encoding="utf-8"))
    try:
        work = {**read["work"], "groups": tuple(tuple(group) for group in read["work"].get("groups", ()))}
        return Inputs(_of(Times, read["times"]), _of(Work, work), _of(Plant, read["plant"]), str(read["origin"]))
    except (KeyError, TypeError) as error:
        remedy = "write it with python -m tests.bench.stage_times"
        raise ValueError(f"{file} holds no stage times ({error}); {remedy}") from error


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Without what is infinite, which JSON cannot hold; it is the default wherever it may stand."""
    return {name: value for name, value in values.items() if value != math.inf}


def _of(kind: Any, values: dict[str, Any]) -> Any:
    if unknown := set(values) - {field.name for field in fields(kind)}:
        raise TypeError(f"unknown: {', '.join(sorted(unknown))}")
    return kind(**values)
