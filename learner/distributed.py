"""DeepSpeed and torch.distributed, brought up for one process or for the rank that a launcher made."""

from __future__ import annotations

import atexit
import ctypes
import gc
import logging
import os
import sys
import warnings
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from common.errors import ConfigError

# Not LOCAL_RANK alone: `start` sets that one itself, and processes that we start inherit it.
_LAUNCHER = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_COLLECTIVE = timedelta(minutes=30)  # the longest that a rank waits for another: to come, or to write a checkpoint


def launched() -> tuple[int, int] | None:
    """Rank and number of ranks, as a launcher has set them; None without one.

    Raises ConfigError when only a part of the launcher's variables is set.
    """
    present = [name for name in _LAUNCHER if name in os.environ]
    missing = [name for name in (*_LAUNCHER, "LOCAL_RANK") if name not in os.environ]
    if present and missing:
        raise ConfigError(
            f"{', '.join(present)} set but {', '.join(missing)} not; start the learner with torchrun, or unset them"
        )
    return (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if present else None


def join() -> None:
    """Join or make the process group; safe to call again. ConfigError as `launched`.

    Under torchrun or the deepspeed launcher the group is theirs (nccl on a GPU, gloo on a CPU). Without one
    this process is a group of its own that opens no port.
    """
    if dist.is_initialized():
        return
    # torch's own collectives warn about torch's own renamed functions, once per call.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if launched():
        if backend == "nccl":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group(backend, timeout=_COLLECTIVE)
    else:
        # A store in memory: no port to find, to lose in a race, or to be open to others.
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed reads it and asks for MPI otherwise
    if backend == "gloo":
        atexit.register(leave)


def leave() -> None:
    """End the process group, if there is one.

    Gloo's threads are waited for. One that lets go of its last tensor only after Python has ended would abort the
    process, and with that change its exit code.
    """
    if not dist.is_initialized():
        return
    deepspeed = sys.modules.get("deepspeed.comm")  # has groups of its own, once it has begun
    (deepspeed if deepspeed and deepspeed.is_initialized() else dist).destroy_process_group()
    gc.collect()  # an engine that only its own parts refer to holds groups too


def start() -> Any:
    """Import DeepSpeed, `join` the process group, and return the module; safe to call again."""
    deepspeed = _import()
    join()
    deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
    return deepspeed


def _import() -> Any:
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        _keep_freed_memory()
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    # DeepSpeed would compile a shared-memory all-reduce for up to 80 s, and need g++ for it. Only tensor
    # parallel inference calls that op; every collective of ZeRO goes through torch.distributed.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of unmapping them.

    Every step frees and takes tensors of the model's size again; mapped afresh, their page faults cost 0.9 s
    of CPU a step for 135 M parameters, two thirds of all that DeepSpeed adds to a plain loop.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library: nothing to set, only slower
        return
    m_trim_threshold, m_mmap_max, never = -1, -4, -1  # malloc.h
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, never)


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this is rank 0, which writes what is written once."""
    return rank() == 0


def total(values: list[float], device: torch.device) -> list[float]:
    """Sums over all ranks, in float64; every rank must call it."""
    if world_size() == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return [float(value) for value in tensor.tolist()]


def most(value: int, device: torch.device) -> int:
    """The largest over all ranks; every rank must call it."""
    if world_size() == 1:
        return value
    tensor = torch.tensor(value, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor)


def combine(sums: dict[str, Any]) -> dict[str, Any]:
    """Tensors of all ranks, of any shape: added, but the largest of `*_max`; every rank must call it."""
    if world_size() > 1:
        for name, value in sums.items():
            dist.all_reduce(value, op=dist.ReduceOp.MAX if name.endswith("_max") else dist.ReduceOp.SUM)
    return sums
