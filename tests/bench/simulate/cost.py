"""What a job takes on GPUs, PREDICTED: operations and bytes of each stage over what a device does in a second.

Nothing here was measured on a GPU. Shares of a device's peak that are reached (`Assumptions`) are assumptions; what
they are worth is shown by halving them. The formulas are compared with measurements where there are some: FLOPs with
torch's counter (tests/unit/test_flops.py), memory and tokens a second with the learner on a CPU (`learner_scaling`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from learner.flops import FORWARD_AND_BACKWARD, Shape, flops_per_token
from learner.footprint import BF16, FP32, kv_bytes, training_bytes
from tests.bench.simulate.inputs import Inputs, Plant, Times, Work
from tests.bench.simulate.known import DEVICES, MODELS, Device

ENGINE_OVERHEAD_BYTES = 4e9  # of a device: CUDA graphs, activations, the logits of a sampler
LEAST_SEQUENCES = 64  # running in an actor; with fewer, reading the weights is most of a step


@dataclass(frozen=True)
class Assumptions:
    mfu: float = 0.3
    """Of training. A peer reports 0.15 to 0.36 for a 4 B model on 8 H200 (prime-rl)."""
    prefill_mfu: float = 0.5
    """Of forward passes over long batches: prefill, reward model."""
    mbu: float = 0.6
    """Share of the memory bandwidth that decoding reaches."""
    engine_step_s: float = 0.004
    """Of vLLM's own work on the host, in each engine step: ours is stepped synchronously."""
    carrier_bytes_s: float = 0.5e9
    """New weights through a folder in shared memory, to write and as much again to read: sha256 makes 1.07 GB/s on our
    cores, safetensors 0.8 to 1.0."""
    disk_bytes_s: float = 2e9
    """Of a checkpoint, for each host of 8 GPUs."""
    verify_completion_s: float = 0.002
    """A long answer takes 7 ms of a core; four children to a scorer."""
    memory_share: float = 0.9
    """Of a device's memory that may be filled."""


@dataclass(frozen=True)
class Job:
    """The paper's batch (arXiv:2510.07242) on one kind of device; how long its answers are, it does not say."""

    policy: str = "Qwen3-4B"
    reward_model: str = "AceMath-7B-RM"
    device: str = "H200"
    groups_per_step: int = 512
    completions: int = 8
    prompt_tokens: int = 200
    mean_tokens: float = 2000
    sigma: float = 0.8
    max_tokens: int = 8192
    max_staleness: int = 1
    mini_steps: int = 4
    micro_batch_tokens: int = 18432

    @property
    def shape(self) -> Shape:
        return MODELS[self.policy]

    @property
    def on(self) -> Device:
        return DEVICES[self.device]

    @property
    def work(self) -> Work:
        return Work(self.completions, self.prompt_tokens, (), self.mean_tokens, self.sigma, self.max_tokens)

    @property
    def context(self) -> float:
        """Mean tokens in the cache of a running completion; a long one runs longer, so it counts for more."""
        mean, square = self.work.moments
        return self.prompt_tokens + square / (2 * mean)


def sequences_that_fit(job: Job, tensor_parallel: int, given: Assumptions) -> int:
    """Completions that an actor of so many devices can run at once, with caches as long as they are on average."""
    room = tensor_parallel * (given.memory_share * job.on.memory_bytes - ENGINE_OVERHEAD_BYTES)
    return max(0, int((room - BF16 * job.shape.parameters) / (kv_bytes(job.shape) * job.context)))


def tensor_parallel(job: Job, given: Assumptions) -> int:
    """The fewest devices of an actor with room for LEAST_SEQUENCES."""
    return next(size for size in (1, 2, 4, 8, 16) if sequences_that_fit(job, size, given) >= LEAST_SEQUENCES)


def zero_stage(job: Job, ranks: int, given: Assumptions) -> int | None:
    """The lowest stage that fits on `ranks` devices; None when no stage does."""
    room = given.memory_share * job.on.memory_bytes
    for stage in (1, 2, 3):
        if sum(training_bytes(job.shape, stage, ranks, job.micro_batch_tokens).values()) <= room:
            return stage
    return None


def least_ranks(job: Job, given: Assumptions) -> int:
    """The fewest ranks on which ZeRO-3 fits; it raises ValueError when a micro-batch alone does not."""
    for ranks in range(1, 4097):
        if zero_stage(job, ranks, given):
            return ranks
    raise ValueError(f"{job.policy} does not fit on {job.device} with {job.micro_batch_tokens} tokens a micro-batch")


def predict(job: Job, size: int, given: Assumptions) -> Times:
    """Seconds of the stages on `job.device`; an actor has `size` of them."""
    shape, reward, device = job.shape, MODELS[job.reward_model], job.on
    weights = BF16 * shape.parameters
    length = job.prompt_tokens + job.work.moments[0]
    read_s = 1 / (size * device.memory_bytes_s * given.mbu)
    compute_s = 1 / (size * device.flops_s * given.prefill_mfu)
    passes = FORWARD_AND_BACKWARD + (job.mini_steps > 1)
    return Times(
        decode_step_s=weights * read_s + given.engine_step_s,
        decode_sequence_s=flops_per_token(shape, 0, passes=1) * compute_s,
        decode_context_s=kv_bytes(shape) * read_s,
        start_group_s=job.prompt_tokens * flops_per_token(shape, job.prompt_tokens, passes=1) * compute_s,
        load_s=weights / given.carrier_bytes_s,
        recompute_token_s=flops_per_token(shape, job.context, passes=1) * compute_s,
        verify_completion_s=given.verify_completion_s,
        score_batch_s=0.05,
        score_token_s=flops_per_token(reward, length, passes=1) / (device.flops_s * given.prefill_mfu),
        train_step_s=job.mini_steps * 0.25,  # optimizer, and what of the collectives nothing hides
        train_token_s=_training_flops(job, length, passes) / (device.flops_s * given.mfu),
        learner_group_s=0.002,  # measured on a CPU with short completions; a group of long ones is half a megabyte
        publish_s=weights / given.carrier_bytes_s,
        checkpoint_s=(BF16 + 3 * FP32) * shape.parameters / given.disk_bytes_s,
    )


def _training_flops(job: Job, length: float, passes: int) -> float:
    """For each token of the sequences; a prompt passes the layers once for all its completions, attention in each."""
    shared = (job.completions - 1) * job.prompt_tokens / (job.completions * length)
    once = passes * 2 * job.shape.layers * job.shape.layer_weights
    return flops_per_token(job.shape, length, passes) - shared * once


def inputs(job: Job, size: int, given: Assumptions) -> Inputs:
    """For a simulation; actors, scorers and ranks are still to be divided."""
    fits = sequences_that_fit(job, size, given) // job.completions
    plant = Plant(
        actors=1,
        scorers=1,
        groups_in_flight=max(1, fits),
        groups_per_step=job.groups_per_step,
        max_staleness=job.max_staleness,
        checkpoint_every_steps=10,
    )
    return Inputs(predict(job, size, given), job.work, plant, f"PREDICTED for {job.policy} on {job.device}")


def gpu_hours_per_1000_prompts(step_s: float, gpus: int, groups_per_step: int) -> float:
    return step_s * gpus / 3600 / groups_per_step * 1000 if math.isfinite(step_s) else math.nan
