"""What a run needs: bytes of memory and of disk, from its settings and the shapes of its models. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from common.settings import Sections
from learner.flops import Shape
from learner.footprint import ELEMENT_BYTES, adapter_parameters, checkpoint_bytes, training_bytes
from scorer.rewards import NEEDS_REWARD_MODEL

PROCESS_BYTES = 0.8e9
"""What a process takes that has loaded torch and computes with a small model: the quickstart's three take 2.7 GB."""
CHILD_BYTES = 0.15e9
"""Of a verifier's child."""
TEXT_BYTES = 4
"""Of one token as text: BPE vocabularies take about four characters for one."""
GROUP_BYTES, COMPLETION_BYTES = 1000, 300
"""Names, statuses, scores and answers of a group, and of each of its completions."""
PARTS_OF_WEIGHTS = 3
"""In a broker, in whole versions: the newest one, what has changed since, and the next one while it is written."""
OFFLOADED = {"none": set[str](), "optimizer": {"optimizer"}, "parameters": {"optimizer", "weights"}}
"""What learner.offload keeps in the host's memory."""
LEAST_PART = 1000
"""Of a sum: what is less than a thousandth of it is not named."""


@dataclass(frozen=True)
class Need:
    """`Need("learner", 7.9e9, "weights 0.5 + gradients 0.5 + ... GB")`: bytes, and how they come together."""

    what: str
    bytes: float
    sum: str


def shown(size: float) -> str:
    """Bytes for people: `shown(2.15e9)` is "2.1 GB"; small ones in MB and kB."""
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if size >= 0.95 * unit), (1e3, "kB"))
    return f"{size / unit:,.1f} {name}" if size < 100 * unit else f"{size / unit:,.0f} {name}"


def has_reward_model(settings: Sections) -> bool:
    """Whether a scorer has one in its own process."""
    return settings.reward.mode in NEEDS_REWARD_MODEL and settings.reward_model.backend in ("classifier", "likelihood")


def learner(settings: Sections, shape: Shape, *, on_gpu: bool) -> Need:
    """Of one rank, on its device; on a CPU with what the process itself takes."""
    s = settings.learner
    element = ELEMENT_BYTES[s.dtype]
    parts = training_bytes(shape, s.zero_stage, s.ranks, s.micro_batch_tokens, element, s.gradient_checkpointing)
    if s.lora_rank:
        trained = adapter_parameters(shape, s.lora_rank) / shape.parameters
        parts |= {name: parts[name] * trained for name in ("gradients", "optimizer")}
    elif s.kl_coefficient:
        parts["reference"] = element * shape.parameters
    kept = {name: size for name, size in parts.items() if not (on_gpu and name in OFFLOADED[s.offload])}
    return _need("rank of the learner", kept, process=not on_gpu)


def beside_gpu(settings: Sections, shape: Shape) -> Need:
    """Of one rank whose device is a GPU: what the host's memory holds all the same."""
    on_cpu, on_gpu = (learner(settings, shape, on_gpu=gpu).bytes for gpu in (False, True))
    parts = {"offloaded": on_cpu - on_gpu - PROCESS_BYTES}
    return _need("rank of the learner", parts, process=True)


def actor(settings: Sections, shape: Shape, *, on_gpu: bool) -> Need:
    """Of one actor, of the host's memory; weights and caches are on its GPU where it has one."""
    weights = ELEMENT_BYTES[settings.actor.dtype] * shape.parameters
    parts = {} if on_gpu else {"weights": weights, "KV cache": settings.actor.kv_cache_gib * 2**30}
    return _need("actor", parts, process=True)


def scorer(settings: Sections, reward_model_parameters: float | None, *, on_gpu: bool) -> Need:
    """Of one scorer with its children; without a model of its own in the process when there is none."""
    parts = {"verifier's children": CHILD_BYTES * settings.verifier.children}
    if reward_model_parameters is None:
        return _need("scorer", parts, process=False)
    weights = 0.0 if on_gpu else ELEMENT_BYTES[settings.reward_model.dtype] * reward_model_parameters
    return _need("scorer", {"weights": weights} | parts, process=True)


def published(settings: Sections, shape: Shape) -> float:
    """Bytes of one published version; with adapters these are small and what they belong to is there once."""
    element = ELEMENT_BYTES[settings.learner.dtype]
    if settings.learner.lora_rank:
        return element * adapter_parameters(shape, settings.learner.lora_rank)
    return element * shape.parameters


def weights_folder(settings: Sections, shape: Shape) -> Need:
    """The versions that are kept, and the next one while it is written."""
    versions, one = settings.weights.keep + 1, published(settings, shape)
    parts = {f"{versions} versions of {shown(one)} =": versions * one}
    if settings.learner.lora_rank:
        parts["frozen weights"] = ELEMENT_BYTES[settings.learner.dtype] * shape.parameters
    return _need("weights folder", parts, process=False)


def run_folder(settings: Sections, shape: Shape) -> Need:
    """Checkpoints with the next one while it is written, exports, reward log, logs."""
    s = settings.learner
    element = ELEMENT_BYTES[s.dtype]
    one, export = checkpoint_bytes(shape, s.zero_stage, element), element * shape.parameters
    if s.lora_rank:
        one = export + 3 * 4 * adapter_parameters(shape, s.lora_rank)
    kept = s.keep_checkpoints + 1
    exports = 1 + s.keep_best + (settings.run.steps // s.export_every_steps if s.export_every_steps else 0)
    parts = {
        f"{kept} checkpoints of {shown(one)} =": kept * one,
        "the best one": one * s.keep_best,
        f"{exports} model folder(s)": exports * export,
        "reward log": s.reward_log_mb * 2.0**20,
    }
    return _need("run folder", parts, process=False)


def group_bytes(settings: Sections) -> float:
    """Of one scored group in the broker when all completions are as long as they may be.

    A token is an id and a log-probability, 4 bytes each, and its text.
    """
    prompt = settings.data.max_prompt_tokens * (4 + TEXT_BYTES)
    completion = settings.sampling.max_tokens * (8 + TEXT_BYTES) + COMPLETION_BYTES
    return GROUP_BYTES + prompt + settings.sampling.completions * completion


def _need(what: str, parts: dict[str, float], *, process: bool) -> Need:
    """`process`: with what it takes beside these."""
    if process:
        parts = parts | {"the process": PROCESS_BYTES}
    total = sum(parts.values())
    named = " + ".join(f"{name} {shown(value)}" for name, value in parts.items() if value > total / LEAST_PART)
    return Need(what, total, named)
