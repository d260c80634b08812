"""This machine: cores, memory against what the processes need, open files, OpenMP."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from common.errors import ModelError
from common.settings import Sections
from deploy.doctor import machine, sizes
from deploy.doctor.case import Case
from deploy.doctor.devices import listed
from deploy.doctor.finding import Finding, error, ok, skipped, warning
from deploy.doctor.folders import versions_folder
from deploy.doctor.machine import Memory, place
from deploy.doctor.shapes import policy_shape, reward_model_shape
from deploy.doctor.sizes import Need, shown
from scorer.rewards import NEEDS_REWARD_MODEL

LEAST_FILES = 1024


def host(case: Case) -> Iterator[Finding]:
    yield cores(case, machine.cores())
    try:
        yield memory(needs(case, on_gpu=bool(listed())), machine.memory())
    except ModelError as problem:
        yield skipped("host.memory", f"what is needed is not known: {problem}")
    yield open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield openmp(os.environ)


def cores(case: Case, count: float) -> Finding:
    """A process may have no more threads than there are cores; more processes than cores take turns."""
    threads = {role: getattr(case.settings, role).threads for role in sorted(case.roles)}
    found = f"{count:g}; threads of each process: " + ", ".join(f"{role} {n}" for role, n in threads.items())
    worst = max(threads, key=lambda role: threads[role])
    if threads[worst] > count:
        return warning("host.cores", found, f"set {worst}.threads = {max(1, int(count))}")
    return ok("host.cores", found)


def needs(case: Case, *, on_gpu: bool) -> list[tuple[int, Need]]:
    """(how many, what each takes of the host's memory). Raises ModelError."""
    s, found = case.settings, []
    shape = policy_shape(case) if case.roles & {"learner", "actor"} else None
    if "learner" in case.roles and shape:
        one = sizes.learner(s, shape, on_gpu=on_gpu)
        found.append((s.learner.ranks, Need(one.what, sizes.PROCESS_BYTES, "the process") if on_gpu else one))
        if place(versions_folder(case)).kind == "tmpfs":
            found.append((1, replace(sizes.weights_folder(s, shape), what="weights in shared memory")))
    if "actor" in case.roles and shape:
        one = sizes.actor(s, shape)
        count = s.actor.count if case.everything else 1
        found.append((count, Need(one.what, sizes.PROCESS_BYTES, "the process") if on_gpu else one))
    if "scorer" in case.roles:
        count = max(s.scorer.count, s.scorer.most or 0) if case.everything else 1
        found.append((count, sizes.scorer(s, _reward_model_parameters(case), on_gpu=on_gpu)))
    if case.everything and case.url is None:
        found.append((1, Need("broker", s.broker.memory_mb * 2.0**20, "broker.memory_mb")))
    return [(count, need) for count, need in found if count]


def memory(found: Sequence[tuple[int, Need]], have: Memory) -> Finding:
    total = sum(count * need.bytes for count, need in found)
    parts = "; ".join(f"{f'{count} x ' if count > 1 else ''}{n.what} {shown(n.bytes)} ({n.sum})" for count, n in found)
    said = f"about {shown(total)} of {shown(have.total)}, {shown(have.available)} are free: {parts}"
    remedy = (
        "fewer actors and scorers, a smaller actor.kv_cache_gib, learner.micro_batch_tokens or model; "
        "learner.gradient_checkpointing; or other hosts for some of them"
    )
    if total > have.total:
        return error("host.memory", said, remedy)
    return (
        ok("host.memory", said) if total <= have.available else warning("host.memory", said, f"end others, or {remedy}")
    )


def open_files(limit: int) -> Finding:
    if limit < LEAST_FILES:
        return warning("host.files", f"a process may open {limit} files", "ulimit -n 4096, or LimitNOFILE= of its unit")
    return ok("host.files", f"a process may open {limit:,} files")


def openmp(environment: Mapping[str, str]) -> Finding:
    """`hero up` sets both for its processes; a process that is started by hand has those of its shell."""
    threads, policy = environment.get("OMP_NUM_THREADS"), environment.get("OMP_WAIT_POLICY")
    found = f"OMP_NUM_THREADS = {threads or 'unset'}, OMP_WAIT_POLICY = {policy or 'unset'}"
    if (policy or "").upper() == "ACTIVE":
        remedy = "export OMP_WAIT_POLICY=PASSIVE: processes that spin while they wait slow each other down 70-fold"
        return warning("host.openmp", found, remedy)
    return ok("host.openmp", found)


def _reward_model_parameters(case: Case) -> float | None:
    """Of a model in the scorer's own process; None without one."""
    settings: Sections = case.settings
    if settings.reward.mode not in NEEDS_REWARD_MODEL or settings.reward_model.backend in ("http", "none"):
        return None
    shape = reward_model_shape(case)
    return float(shape.parameters) if shape else 0.0
