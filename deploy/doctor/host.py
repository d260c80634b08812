"""This machine: cores, memory against what the processes need, open files, OpenMP."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from deploy.doctor import machine, sizes
from deploy.doctor.case import ROLES, Case
from deploy.doctor.devices import listed
from deploy.doctor.finding import Finding, error, ok, skipped, warning
from deploy.doctor.folders import versions_folder
from deploy.doctor.machine import Memory, place
from deploy.doctor.shapes import UNKNOWN, policy_shape, reward_model_shape
from deploy.doctor.sizes import Need, shown
from learner.footprint import ELEMENT_BYTES, kv_bytes

LEAST_FILES = 1024


def host(case: Case) -> Iterator[Finding]:
    yield cores(case, machine.cores())
    on_gpu = bool(listed())
    found = needs(case, on_gpu=on_gpu)
    yield memory(found, machine.memory()) if found else skipped("host.memory", UNKNOWN)
    shape = policy_shape(case) if "actor" in case.roles and not on_gpu else None
    if shape:
        yield cache(case, kv_bytes(shape, ELEMENT_BYTES[case.settings.actor.dtype]))
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
    """(how many, what each takes of the host's memory); nothing where a model's size is not known."""
    s, found = case.settings, []
    trains, samples, scores = (role in case.roles for role in ROLES)
    policy = policy_shape(case) if trains or samples else None
    judge = reward_model_shape(case) if scores and sizes.has_reward_model(s) else None
    if ((trains or samples) and policy is None) or (scores and sizes.has_reward_model(s) and judge is None):
        return []
    if trains and policy:
        rank = sizes.beside_gpu(s, policy) if on_gpu else sizes.learner(s, policy, on_gpu=False)
        found.append((s.learner.ranks, rank))
        if place(versions_folder(case)).kind == "tmpfs":
            found.append((1, replace(sizes.weights_folder(s, policy), what="weights in shared memory")))
    if samples and policy:
        actor = sizes.actor(s, policy, on_gpu=on_gpu)
        found.append((s.actor.count if case.everything else 1, actor))
    if scores:
        count = s.scorer.at_most if case.everything else 1
        found.append((count, sizes.scorer(s, judge.parameters if judge else None, on_gpu=on_gpu)))
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
    if total > have.available:
        return warning("host.memory", said, f"end what else runs here, or take {remedy}")
    return ok("host.memory", said)


def cache(case: Case, token: float) -> Finding:
    """Whether an actor's KV cache holds a sequence: vLLM does not start with less. `token`: bytes of one."""
    s = case.settings.actor
    one, running = s.max_model_len * token, s.groups_in_flight * case.settings.sampling.completions
    fit = int(s.kv_cache_gib * 2**30 / one)
    found = f"actor.kv_cache_gib = {s.kv_cache_gib:g} holds {fit:,} whole sequences of {shown(one)}"
    if not fit:
        return error("host.kv_cache", found, f"set actor.kv_cache_gib to {one / 2**30:.2f} or more")
    return ok("host.kv_cache", f"{found}; up to {running:,} are sampled at once")


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
