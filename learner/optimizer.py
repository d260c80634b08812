"""AdamW on the policy: which weights decay, at which rate a step is taken, and which step is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import structlog
import torch
from torch import nn

from learner.options import PolicyOptions
from learner.schedule import factor

log = structlog.get_logger(__name__)


def adamw(module: nn.Module, lr: float, betas: tuple[float, float], weight_decay: float) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) on all trained weights. Matrices decay, biases and the gains of norms do not."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay}
    others = {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0}
    return torch.optim.AdamW([g for g in (matrices, others) if g["params"]], lr=lr, betas=betas, fused=True)


class OptimizerSteps:
    """Takes the optimizer's steps and counts them; the count is the schedule's only clock."""

    def __init__(self, engine: Any, optimizer: torch.optim.Optimizer, options: PolicyOptions) -> None:
        self._engine = engine
        self._optimizer = optimizer
        self._options = options
        self.applied = 0
        """Steps that changed the weights."""
        self.skipped = 0
        """Steps that did not, because their gradient was not finite."""

    def take(self) -> float:
        """One step on the accumulated gradient unless that is not finite; returns its norm before clipping."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate(self.applied)
        if self._options.zero_stage == 0:
            # Without ZeRO the engine neither reports the norm nor looks at it, so both are done here.
            norm = float(torch.nn.utils.clip_grad_norm_(self._engine.parameters(), self._options.max_grad_norm))
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
            self.applied += 1
        else:
            self.skipped += 1
            log.warning(
                "optimizer step skipped, its gradient is not finite; look at the batch's log-probabilities",
                applied_steps=self.applied,
                skipped_steps=self.skipped,
            )
        return norm

    def rate(self, step: int) -> float:
        """Learning rate of optimizer step `step`, counted from 0 over applied steps."""
        o = self._options
        return o.lr * factor(
            step,
            warmup_steps=o.warmup_steps,
            total_steps=o.total_steps,
            shape=o.lr_schedule,
            final=o.final_lr_fraction,
        )
