"""The policy that is trained: a Hugging Face causal LM under DeepSpeed.

This is one rank's part of it. All ranks call the same methods in the same order, each with its own sequences
(`learner.team` sees to that); means are over all ranks. On one CPU rank the same calls give the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
import torch
from torch import Tensor, nn

from learner import distributed, export, lora, policy_state, random_state
from learner.attention import Segments
from learner.batch import EMPTY, MicroBatch, Sequence, by_sequence, filled_up, micro_batches
from learner.logprobs import CompletionLogprobs
from learner.loss import policy_loss, token_shares
from learner.loss_inputs import LossInputs
from learner.loss_metrics import add, summarize
from learner.optimizer import OptimizerSteps, adamw
from learner.options import PolicyOptions, deepspeed_config
from learner.padding import attention_padding_share, padding_share
from learner.reference import load_reference
from learner.shares import cut

__all__ = ["Policy", "PolicyOptions", "StepResult"]

log = structlog.get_logger(__name__)

PARTS = ("proximal", "forward", "backward", "optimizer")


@dataclass(frozen=True)
class StepResult:
    """What one batch did."""

    metrics: dict[str, float | list[int]]
    """As `learner.loss_metrics.summarize`, and grad_norm (before clipping), lr, sequences, micro_batches,
    padding_share, attention_padding_share, shared_prompt_share (of all ranks: what of their sequences' tokens was not
    computed, since another sequence has the same prompt). What is not finite is left out: so every log can hold it."""
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
        model: Any = export.load_model(self._folder, options.dtype)
        if options.lora_rank:
            lora.add_adapters(model, options.lora_rank, options.lora_alpha, options.lora_targets)
        self._module = CompletionLogprobs(model, options.packing)
        if options.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        optimizer = adamw(self._module, options.lr, options.betas, options.weight_decay)
        self._engine, *_ = deepspeed.initialize(
            model=self._module, optimizer=optimizer, config=deepspeed_config(options, distributed.world_size())
        )
        self._steps = OptimizerSteps(self._engine, optimizer, options)
        self._gathered = deepspeed.zero.GatheredParameters if options.zero_stage == 3 else lambda _: nullcontext()
        self._engine.train()  # changes nothing without dropout, but gradient checkpointing asks for it
        self._said_too_long = False
        self.reference = None
        """A copy of the policy that the run began with, where it is asked for and cannot be had from the policy."""
        if options.loss.kl_coefficient and not options.lora_rank:
            self.reference = load_reference(self._folder, options.dtype, self._engine.device)

    @property
    def applied_steps(self) -> int:
        """Optimizer steps that changed the weights, since the first start of the run."""
        return self._steps.applied

    @property
    def vocabulary(self) -> int:
        """Token ids that the model can read."""
        return int(self.config.vocab_size)

    @property
    def config(self) -> Any:
        """The model's Hugging Face configuration, of its text part."""
        return self._module.model.config.get_text_config()

    @property
    def device_name(self) -> str:
        """Such as "NVIDIA H200" or "cpu"."""
        device = self._engine.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)

    @property
    def packs(self) -> bool:
        """Whether sequences are packed, and shared prompts computed once."""
        return self._module.packs

    # Training

    def step(
        self, sequences: SequenceOf[Sequence], temperature: float, cuts: SequenceOf[int] | None = None
    ) -> StepResult:
        """Train on one batch, sampled at `temperature` > 0.

        `sequences` are this rank's share of it, and `cuts` say where in them mini-steps begin and end; None cuts them
        evenly, which is right when there are no others. With one mini-step the proximal policy is the current one, so
        its pass is saved: pi_prox is pi without gradient and the ratio exactly 1. A gradient that is not finite is
        never applied, but reported.
        """
        clock = _Clock(self._engine.device)
        proximal: list[npt.NDArray[np.float32]] | None = None
        if self.options.mini_steps > 1:
            with clock("proximal"):
                proximal = self.logprobs(sequences, temperature)
        bounds = cut(len(sequences), self.options.mini_steps) if cuts is None else cuts
        sums, norms, batches = [], [], []
        before = self._steps.applied, self._steps.skipped
        for start, end in pairwise(bounds):
            part = None if proximal is None else proximal[start:end]
            mini_sums, mini_batches, norm = self._mini_step(sequences[start:end], part, temperature, clock)
            sums.append(mini_sums)
            norms.append(norm)
            batches.extend(mini_batches)
        metrics = summarize(distributed.combine(add(sums)))
        metrics["loss"] /= len(sums)
        tokens = [sum(batch.real_tokens for batch in batches), sum(batch.sequence_tokens for batch in batches)]
        count, computed, whole = distributed.total([len(sequences), *tokens], self._engine.device)
        metrics |= {
            "grad_norm": sum(norms) / len(norms),
            "lr": self._steps.rate(max(0, self._steps.applied - 1)),
            "sequences": float(count),
            "micro_batches": float(len(batches)),
            "padding_share": padding_share(batches),
            "attention_padding_share": attention_padding_share(batches),
            "shared_prompt_share": 1.0 - computed / whole,
        }
        finite = {name: value for name, value in metrics.items() if np.isfinite(value).all()}
        return StepResult(finite, clock.seconds, self._steps.applied - before[0], self._steps.skipped - before[1])

    def _mini_step(
        self,
        sequences: SequenceOf[Sequence],
        proximal: list[npt.NDArray[np.float32]] | None,
        temperature: float,
        clock: _Clock,
    ) -> tuple[dict[str, Tensor], list[MicroBatch], float]:
        """One optimizer step. Returns sums of the loss, the micro-batches and the gradient norm."""
        batches = self._micro_batches(sequences)
        tokens, count = distributed.total(
            [sum(len(batch.targets) for batch in batches), len(sequences)], self._engine.device
        )
        sums = []
        for number, batch in enumerate(batches, 1):
            with clock("forward"):
                reference = self._reference_logprobs(batch, temperature)
                logprobs, entropy = self._forward(batch, temperature)
                inputs = self._loss_inputs(batch, logprobs, entropy, proximal, reference, int(tokens), int(count))
                loss, part = policy_loss(inputs, self.options.loss)
            sums.append(part)
            with clock("backward"):
                # DeepSpeed reduces gradients at the boundary, and averages them over ranks where ours add.
                self._engine.set_gradient_accumulation_boundary(number == len(batches))
                self._engine.backward(_poisoned(loss) * distributed.world_size())
        with clock("optimizer"):
            norm = self._steps.take()
        return add(sums), batches, norm

    def _micro_batches(self, sequences: SequenceOf[Sequence]) -> list[MicroBatch]:
        """Of this rank's sequences, and as many on every rank: collectives of a pass need all of them."""
        budget, packed = self.options.micro_batch_tokens, self._module.packs
        longest = max((sequence.width for sequence in sequences), default=0)
        if longest > budget and not self._said_too_long:
            self._said_too_long = True
            log.warning(
                "a sequence is longer than the budget of a micro-batch and gets one of its own; "
                "if memory runs out, shorten completions, or turn on learner.gradient_checkpointing",
                tokens=longest,
                micro_batch_tokens=budget,
            )
        batches = micro_batches(sequences, budget, packed=packed) if sequences else []
        return filled_up(batches, distributed.most(len(batches), self._engine.device), packed=packed)

    def _forward(self, batch: MicroBatch, temperature: float, model: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies of the completion tokens, [T] each, by the policy or another `model`."""
        device = self._engine.device
        result: tuple[Tensor, Tensor] = (model or self._engine)(
            torch.from_numpy(batch.input_ids).to(device),
            torch.from_numpy(batch.positions).to(device),
            torch.from_numpy(batch.targets).to(device),
            temperature,
            None if batch.row is None else Segments.of(batch.row, device),
        )
        return result

    @torch.no_grad()
    def _reference_logprobs(self, batch: MicroBatch, temperature: float) -> Tensor | None:
        """log pi_ref of the completion tokens, [T]; with adapters that is the policy without them."""
        if not self.options.loss.kl_coefficient:
            return None
        with nullcontext() if self.reference else lora.without_adapters(self._module.model):
            return self._forward(batch, temperature, self.reference)[0]

    def _loss_inputs(
        self,
        batch: MicroBatch,
        logprobs: Tensor,
        entropy: Tensor,
        proximal: list[npt.NDArray[np.float32]] | None,
        reference: Tensor | None,
        tokens: int,
        sequences: int,
    ) -> LossInputs:
        device = self._engine.device
        if proximal is None:
            fixed = logprobs.detach()
        else:
            fixed = torch.from_numpy(np.concatenate([EMPTY, *(proximal[index] for index in batch.indices)])).to(device)
        lengths = torch.from_numpy(batch.lengths).to(device)
        return LossInputs(
            logprobs=logprobs,
            proximal=fixed,
            behaviour=torch.from_numpy(batch.behaviour).to(device),
            advantages=torch.from_numpy(batch.advantages).to(device),
            shares=token_shares(lengths, self.options.normalization, tokens, sequences, self.options.max_tokens),
            entropy=entropy,
            lengths=lengths,
            reference=reference,
        )

    # Looking

    @torch.no_grad()
    def logprobs(self, sequences: SequenceOf[Sequence], temperature: float) -> list[npt.NDArray[np.float32]]:
        """Log-probabilities of the completion tokens under the current weights: one [C] per sequence."""
        batches = self._micro_batches(sequences)
        found = [self._forward(batch, temperature)[0].cpu().numpy() for batch in batches]
        return by_sequence(batches, found)

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter once (tied ones under their first name), with its Hugging Face name; adapters are added in.

        A tensor is valid until the next is asked for: under ZeRO-3 it is gathered for that long, so all
        ranks must walk to the end. Copy what is to be kept.
        """
        if self.options.lora_rank:
            yield from lora.merged_weights(self._module.model, self._gathered)
            return
        for name, parameter in self._module.model.named_parameters():
            with self._gathered([parameter]):
                yield name, parameter.detach()

    def frozen_weights(self) -> Iterator[tuple[str, Tensor]]:
        """As `named_weights`, without the adapters: what never changes while they are trained."""
        return lora.frozen_weights(self._module.model, self._gathered)

    def adapter_weights(self) -> Iterator[tuple[str, Tensor]]:
        """As `named_weights`, of the adapters alone, by the names that peft gives them."""
        return lora.adapter_weights(self._module.model, self._gathered)

    # Keeping

    def save(self, folder: Path) -> None:
        """Write all that `load` needs into `folder`; every rank must call it. Raises DiskFull when all have tried."""
        counters = {"applied_steps": self._steps.applied, "skipped_steps": self._steps.skipped}
        policy_state.save(self._engine, self.options, folder, counters)

    def load(self, folder: Path, universal: Path | None = None) -> None:
        """Continue from what `save` wrote, bit for bit on one CPU rank; CheckpointError when it cannot be.

        `universal` is what `learner.reshard` made of it when there are more or fewer ranks now.
        """
        found = policy_state.load(self._engine, self.options, folder, universal, self.options.seed)
        self._steps.applied = found["applied_steps"]
        self._steps.skipped = found["skipped_steps"]

    def export(self, folder: Path) -> Path:
        """Write a Hugging Face folder that transformers and vLLM load; every rank must call it. Returns it.

        Adapters are added in, and beside it in `adapter` as peft's own folder.
        """
        weights = _kept(self.named_weights())
        if distributed.is_first():
            export.write(folder, self._module.model, weights, self._folder)
        if self.options.lora_rank:
            adapter = _kept(self.adapter_weights())
            if distributed.is_first():
                lora.write_adapter(folder / "adapter", self._module.model, adapter, self._folder)
        return folder


def _kept(weights: Iterator[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Copies of them on the CPU, on rank 0; the others only walk along."""
    first = distributed.is_first()
    return {name: weight.to("cpu", copy=True) for name, weight in weights if first}


def _poisoned(loss: Tensor) -> Tensor:
    """`loss`, or NaN with a NaN gradient: so a loss that is not finite stops the step on every rank."""
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)


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
