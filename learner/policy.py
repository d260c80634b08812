"""The policy that is trained: a Hugging Face causal LM under DeepSpeed.

Each rank calls the same methods in the same order with its own sequences; means are over all ranks. On one
CPU rank the same calls give the same bits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import structlog
import torch
from torch import Tensor

from common.errors import CheckpointError, ConfigError
from learner import distributed, export, random_state
from learner.batch import MicroBatch, Sequence, by_sequence, micro_batches, padding_share
from learner.logprobs import CompletionLogprobs
from learner.loss import (
    Correction,
    LossInputs,
    LossOptions,
    Normalization,
    add,
    policy_loss,
    summarize,
    token_shares,
)

log = structlog.get_logger(__name__)

_TAG = "deepspeed"
PARTS = ("proximal", "forward", "backward", "optimizer")


@dataclass(frozen=True)
class PolicyOptions:
    """How the policy is trained. Example: `PolicyOptions(lr=1e-6, mini_steps=4)`, the paper's."""

    lr: float = 5e-5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    """Decoupled, on every parameter."""
    warmup_steps: int = 0
    """Optimizer steps over which the learning rate rises linearly to `lr`, where it stays."""
    max_grad_norm: float = 1.0
    zero_stage: Literal[0, 1, 2, 3] = 1
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights; bfloat16 keeps float32 master weights and accumulates gradients in float32."""
    optimizer: Literal["adamw"] = "adamw"
    micro_batch_tokens: int = 8192
    """Padded tokens of one forward and backward pass."""
    clip_low: float = 0.2
    clip_high: float = 0.28
    correction: Correction = "tis"
    tis_cap: float = 2.0
    mini_steps: int = 1
    """Optimizer steps per batch; the sequences are cut into so many runs, in their order."""
    normalization: Normalization = "token_mean"
    seed: int = 0
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.dtype == "bfloat16" and self.zero_stage == 0:
            raise ConfigError(
                "dtype = bfloat16 with zero_stage = 0: DeepSpeed silently takes another optimizer there; "
                "use zero_stage = 1"
            )
        if self.optimizer != "adamw":
            raise ConfigError(f"optimizer = {self.optimizer!r} is unknown; use adamw")


@dataclass(frozen=True)
class StepResult:
    """What one batch did."""

    metrics: dict[str, float]
    """As `learner.loss.summarize`, and grad_norm (before clipping), lr, sequences, micro_batches,
    padding_share. What is not finite is left out, so that every log can hold it."""
    seconds: dict[str, float]
    """Wall time by part: proximal, forward, backward, optimizer."""
    applied: int
    """Optimizer steps that changed the weights."""
    skipped: int
    """Those that did not, because their gradient was not finite."""


class Policy:
    """Weights, optimizer and generators of one learner rank.

    `step` trains on a batch, `logprobs` only looks, `named_weights` hands the weights to a publication,
    `save` and `load` are the resumable state, `export` is a folder for everyone else.
    """

    def __init__(self, model_folder: Path, options: PolicyOptions) -> None:
        """Load the model in `model_folder`; ModelError when that cannot be done."""
        deepspeed = distributed.start()
        random_state.seed(options.seed)
        self.options = options
        self._folder = Path(model_folder)
        self._module = CompletionLogprobs(export.load_model(self._folder, options.dtype))
        if options.gradient_checkpointing:
            model: Any = self._module.model
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self._optimizer = torch.optim.AdamW(
            self._module.parameters(),
            lr=options.lr,
            betas=options.betas,
            weight_decay=options.weight_decay,
            fused=True,
        )
        self._engine, *_ = deepspeed.initialize(
            model=self._module, optimizer=self._optimizer, config=_deepspeed_config(options)
        )
        self._gathered = deepspeed.zero.GatheredParameters
        self._engine.train()  # changes nothing without dropout, but gradient checkpointing asks for it
        self._loss = LossOptions(options.clip_low, options.clip_high, options.correction, options.tis_cap)
        self.applied_steps = 0
        self.skipped_steps = 0

    # Training

    def step(self, sequences: SequenceOf[Sequence], temperature: float) -> StepResult:
        """Train on one batch, sampled at `temperature` > 0.

        With one mini-step the proximal policy is the current one, so its pass is saved: pi_prox is pi without
        gradient and the ratio exactly 1. A gradient that is not finite is never applied, but reported.
        """
        clock = _Clock(self._engine.device)
        proximal: list[npt.NDArray[np.float32]] | None = None
        if self.options.mini_steps > 1:
            with clock("proximal"):
                proximal = self.logprobs(sequences, temperature)
        bounds = np.linspace(0, len(sequences), min(self.options.mini_steps, len(sequences)) + 1).astype(int)
        sums, norms, batches = [], [], []
        before = self.applied_steps, self.skipped_steps
        for start, end in zip(bounds[:-1], bounds[1:], strict=True):
            part = None if proximal is None else proximal[start:end]
            mini_sums, mini_batches, norm = self._mini_step(sequences[start:end], part, temperature, clock)
            sums.append(mini_sums)
            norms.append(norm)
            batches.extend(mini_batches)
        metrics = summarize(distributed.combine(add(sums)))
        metrics["loss"] /= len(sums)
        metrics |= {
            "grad_norm": sum(norms) / len(norms),
            "lr": self._learning_rate(max(0, self.applied_steps - 1)),
            "sequences": float(len(sequences)),
            "micro_batches": float(len(batches)),
            "padding_share": padding_share(batches),
        }
        finite = {name: value for name, value in metrics.items() if np.isfinite(value)}
        return StepResult(finite, clock.seconds, self.applied_steps - before[0], self.skipped_steps - before[1])

    def _mini_step(
        self,
        sequences: SequenceOf[Sequence],
        proximal: list[npt.NDArray[np.float32]] | None,
        temperature: float,
        clock: _Clock,
    ) -> tuple[dict[str, Tensor], list[MicroBatch], float]:
        """One optimizer step. Returns sums of the loss, the micro-batches and the gradient norm."""
        batches = micro_batches(sequences, self.options.micro_batch_tokens)
        tokens, count = distributed.total(
            [sum(len(batch.targets) for batch in batches), len(sequences)], self._engine.device
        )
        sums = []
        for batch in batches:
            with clock("forward"):
                logprobs = self._forward(batch, temperature)
                loss, part = policy_loss(
                    self._loss_inputs(batch, logprobs, proximal, int(tokens), int(count)), self._loss
                )
            sums.append(part)
            with clock("backward"):
                # DeepSpeed reduces gradients at the boundary, and averages them over ranks where ours add.
                self._engine.set_gradient_accumulation_boundary(batch is batches[-1])
                self._engine.backward(_poisoned(loss) * distributed.world_size())
        with clock("optimizer"):
            norm = self._apply()
        return add(sums), batches, norm

    def _forward(self, batch: MicroBatch, temperature: float) -> Tensor:
        device = self._engine.device
        result: Tensor = self._engine(
            torch.from_numpy(batch.input_ids).to(device),
            torch.from_numpy(batch.positions).to(device),
            torch.from_numpy(batch.targets).to(device),
            temperature,
        )
        return result

    def _loss_inputs(
        self,
        batch: MicroBatch,
        logprobs: Tensor,
        proximal: list[npt.NDArray[np.float32]] | None,
        tokens: int,
        sequences: int,
    ) -> LossInputs:
        device = self._engine.device
        if proximal is None:
            fixed = logprobs.detach()
        else:
            fixed = torch.from_numpy(np.concatenate([proximal[index] for index in batch.indices])).to(device)
        lengths = torch.from_numpy(batch.lengths).to(device)
        return LossInputs(
            logprobs=logprobs,
            proximal=fixed,
            behaviour=torch.from_numpy(batch.behaviour).to(device),
            advantages=torch.from_numpy(batch.advantages).to(device),
            shares=token_shares(lengths, self.options.normalization, tokens, sequences),
        )

    def _apply(self) -> float:
        """Optimizer step unless the gradient is not finite; returns its norm before clipping."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate(self.applied_steps)
        if self.options.zero_stage == 0:
            # Without ZeRO the engine neither reports the norm nor looks at it, so both are done here.
            norm = float(torch.nn.utils.clip_grad_norm_(self._module.parameters(), self.options.max_grad_norm))
            applied = bool(np.isfinite(norm))
            if applied:
                self._engine.step()
            else:
                self._engine.zero_grad()
        else:
            self._engine.step()
            norm = float(self._engine.get_global_grad_norm())
            applied = bool(self._engine.was_step_applied())
        if applied:
            self.applied_steps += 1
        else:
            self.skipped_steps += 1
            log.warning(
                "optimizer step skipped, its gradient is not finite; look at the batch's log-probabilities",
                applied_steps=self.applied_steps,
                skipped_steps=self.skipped_steps,
            )
        return norm

    def _learning_rate(self, step: int) -> float:
        """Of optimizer step `step`, counted from 0 over applied steps, so that no scheduler has a state."""
        warmup = self.options.warmup_steps
        return self.options.lr * (min(1.0, (step + 1) / warmup) if warmup else 1.0)

    # Looking

    @torch.no_grad()
    def logprobs(self, sequences: SequenceOf[Sequence], temperature: float) -> list[npt.NDArray[np.float32]]:
        """Log-probabilities of the completion tokens under the current weights: one [C] per sequence."""
        batches = micro_batches(sequences, self.options.micro_batch_tokens)
        return by_sequence(batches, [self._forward(batch, temperature).cpu().numpy() for batch in batches])

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter once (tied ones under their first name), with its Hugging Face name.

        A tensor is valid until the next is asked for: under ZeRO-3 it is gathered for that long, so all
        ranks must walk to the end. Copy what is to be kept.
        """
        for name, parameter in self._module.model.named_parameters():
            if self.options.zero_stage < 3:
                yield name, parameter.detach()
                continue
            with self._gathered([parameter]):
                yield name, parameter.detach()

    # Keeping

    def save(self, folder: Path) -> None:
        """Write all that `load` needs into `folder`; every rank must call it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)
        random_state.save(folder / f"random-{self._rank}.json")
        if distributed.is_first():
            counters = {"applied_steps": self.applied_steps, "skipped_steps": self.skipped_steps}
            (folder / "counters.json").write_text(json.dumps(counters))

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote, bit for bit on one CPU rank; CheckpointError when it cannot be.

        The folder is trusted: DeepSpeed reads its own files with pickle.
        """
        try:
            counters = json.loads((folder / "counters.json").read_text())
            loaded, _ = self._engine.load_checkpoint(str(folder), tag=_TAG)
            if loaded is None:
                raise FileNotFoundError(f"no {_TAG} folder in it")
            random_state.load(folder / f"random-{self._rank}.json")
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{folder} does not hold the state of this policy: {error}; resume with the model, ZeRO stage "
                "and number of ranks that wrote it"
            ) from error
        self.applied_steps = counters["applied_steps"]
        self.skipped_steps = counters["skipped_steps"]

    def export(self, folder: Path) -> None:
        """Write a Hugging Face folder that transformers and vLLM load; every rank must call it."""
        first = distributed.is_first()
        weights = {name: weight.to("cpu", copy=True) for name, weight in self.named_weights() if first}
        if first:
            export.write(folder, self._module.model, weights, self._folder)

    @property
    def _rank(self) -> int:
        return int(self._engine.global_rank)


def _poisoned(loss: Tensor) -> Tensor:
    """`loss`, or NaN with a NaN gradient: so a loss that is not finite stops the step on every rank."""
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)


def _deepspeed_config(options: PolicyOptions) -> dict[str, Any]:
    config: dict[str, Any] = {
        # The engine divides losses by its accumulation steps; ours are means of the batch already.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": options.max_grad_norm if options.zero_stage else 0.0,
        "zero_optimization": {"stage": options.zero_stage},
    }
    if distributed.world_size() == 1:
        # Nothing to communicate: gradients need not be copied into and out of buckets, which for 135 M
        # parameters takes 0.4 s of CPU a step. A parameter beyond the bucket size is used where it lies.
        config["zero_optimization"] |= {"reduce_bucket_size": 1, "contiguous_gradients": False}
    if options.dtype == "bfloat16":
        config["bf16"] = {"enabled": True, "check_grad_overflow": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


class _Clock:
    """Wall seconds by part; waits for the GPU, whose work would otherwise count for a later part."""

    def __init__(self, device: torch.device) -> None:
        self._wait = device.type == "cuda"
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self._wait:
            torch.cuda.synchronize()
        self.seconds[part] += time.perf_counter() - start
