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
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
import torch
from torch import Tensor

from common.errors import CheckpointError
from learner import distributed, export, random_state
from learner.batch import MicroBatch, Sequence, by_sequence, micro_batches, padding_share
from learner.logprobs import CompletionLogprobs
from learner.loss import LossInputs, LossOptions, add, policy_loss, summarize, token_shares
from learner.options import PolicyOptions, deepspeed_config

__all__ = ["Policy", "PolicyOptions", "StepResult"]

log = structlog.get_logger(__name__)

_TAG = "deepspeed"
PARTS = ("proximal", "forward", "backward", "optimizer")


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
            model=self._module, optimizer=self._optimizer, config=deepspeed_config(options, distributed.world_size())
        )
        self._gathered = deepspeed.zero.GatheredParameters
        self._engine.train()  # changes nothing without dropout, but gradient checkpointing asks for it
        self._loss = LossOptions(options.clip_low, options.clip_high, options.correction, options.tis_cap)
        self.applied_steps = 0
        self.skipped_steps = 0

    @property
    def vocabulary(self) -> int:
        """Token ids that the model can read."""
        return int(self._module.model.config.get_text_config().vocab_size)

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
        for start, end in pairwise(bounds):
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

    def export(self, folder: Path) -> Path:
        """Write a Hugging Face folder that transformers and vLLM load; every rank must call it. Returns it."""
        first = distributed.is_first()
        weights = {name: weight.to("cpu", copy=True) for name, weight in self.named_weights() if first}
        if first:
            export.write(folder, self._module.model, weights, self._folder)
        return folder

    @property
    def _rank(self) -> int:
        return int(self._engine.global_rank)


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
