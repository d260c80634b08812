"""Held-out accuracy: [eval]."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from common.settings.section import Positive, Section

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ENDS = re.compile(r"(\.jsonl?)?(\.gz)?$")


class EvalSet(Section):
    """One set of held-out problems."""

    source: Annotated[str, Field(min_length=1)]
    """As data.train."""
    question: str | None = None
    answer: str | None = None
    """Fields; unset: those of [data]."""
    hub_config: str | None = None
    """Unset: data.hub_config."""
    hub_split: str = "test"
    families: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - pydantic copies it
    """Of reasoning-gym; unset: data.families."""


class EvalSettings(Section):
    """Held-out accuracy: what `hero eval` measures, and `hero up` before and after."""

    data: str | tuple[str, ...] | dict[str, Any] = ()
    """Held-out sets: one as data.train has it, a list of them (`NAME=gsm8k.jsonl` gives a name), or a table of names,
    {gsm8k = "gsm8k.jsonl", aime = {source = "hub:...", hub_split = "train", question = "problem"}}; more keys: answer,
    hub_config, families. None: `hero up` does not evaluate. No other part of a run sees its reasoning-gym problems."""
    around_training: bool = True
    """`hero up` evaluates before and after. false leaves that to `hero eval`; the sets stay held out all the same."""
    problems: Positive | None = None
    """The first so many of each set; unset: all. reasoning-gym has no end: it needs a number."""
    samples: Positive = 1
    """Completions of each problem at temperature and top_p, beside the greedy one; pass@1 is their mean."""
    k: tuple[Positive, ...] = ()
    """pass@k for each of these, too; none above samples."""
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Both for the samples (the paper: 0.6, 0.95, 8 samples); the greedy completion takes the likeliest token."""
    max_tokens: Positive | None = None
    """Of one completion; unset: sampling.max_tokens."""
    every_steps: Annotated[int, Field(ge=0)] = 0
    """Also beside training, through the run's actors and scorers: at the first step, every so many, and at the last.
    0 is off. The samples alone, none greedy; judged as verifier.kind has it."""
    in_flight: Positive = 128
    """Problems that are asked at a time beside training; the learner asks further ones between two steps."""

    @property
    def sets(self) -> dict[str, EvalSet]:
        """The held-out sets by name, in the order in which they were given."""
        return {name: _set(name, one) for name, one in self._named()}

    def _named(self) -> list[tuple[str, Any]]:
        if isinstance(self.data, dict):
            return list(self.data.items())
        given = [self.data] if isinstance(self.data, str) else self.data
        return [named_source(one) for one in given if one]

    @field_validator("data", mode="before")
    @classmethod
    def _one_notation(cls, data: object) -> object:
        texts = isinstance(data, list | tuple) and all(isinstance(one, str) for one in data)
        if not texts and not isinstance(data, str | dict):
            raise ValueError("is a set, a list of sets or a table of them by name, each as data.train")
        return data

    @model_validator(mode="after")
    def _sets_can_be_told_apart(self) -> EvalSettings:
        names = [name for name, _ in self._named()]
        if twice := sorted(name for name, times in Counter(names).items() if times > 1):
            raise ValueError(f"data has two sets named {twice[0]!r}; name them apart: NAME=FILE")
        if odd := [name for name in names if not NAME.fullmatch(name)]:
            raise ValueError(f"data names a set {odd[0]!r}; a name has letters, digits and _.-, 64 at most")
        _ = self.sets
        return self

    @model_validator(mode="after")
    def _enough_samples(self) -> EvalSettings:
        if self.k and max(self.k) > self.samples:
            raise ValueError(
                f"k = {max(self.k)} is above samples = {self.samples}: pass@{max(self.k)} is estimated from at least "
                f"{max(self.k)} samples of each problem; raise samples, or lower k"
            )
        return self


def named_source(text: str) -> tuple[str, str]:
    """(name, source) of `NAME=SOURCE`; a source alone is named after its file or hub data set."""
    name, _, source = text.partition("=")
    if source and NAME.fullmatch(name):
        return name, source
    last = text.removeprefix("hub:").rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9_.-]", "-", _ENDS.sub("", last)), text


def _set(name: str, given: Any) -> EvalSet:
    """Raises ValueError that says what of it is wrong."""
    try:
        return EvalSet.model_validate({"source": given} if isinstance(given, str) else given)
    except ValidationError as error:
        known = ", ".join(EvalSet.model_fields)
        faults = [f"{'.'.join(map(str, fault['loc'])) or name}: {fault['msg']}" for fault in error.errors()]
        raise ValueError(f"data.{name}: {'; '.join(faults)}; a set is a source, or a table of {known}") from error
