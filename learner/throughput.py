"""How fast a step was: tokens a second, and the share of what the devices can do (MFU)."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import Any

import structlog

from common.settings import LearnerSettings
from learner.batch import Sequence
from learner.flops import FORWARD_AND_BACKWARD, batch_flops, peak_flops, shape_of

log = structlog.get_logger("learner")


class Throughput:
    """Of one policy on `ranks` devices of the name `device`; says once why there is no MFU where there is none."""

    def __init__(self, config: Any, device: str, ranks: int, options: LearnerSettings) -> None:
        self._ranks = ranks
        self._passes = FORWARD_AND_BACKWARD
        self._passes += options.mini_steps > 1  # the proximal log-probabilities are a forward pass more,
        self._passes += options.kl_coefficient > 0  # those of the reference model another
        self._passes -= options.lora_rank > 0  # frozen weights need no gradient, and adapters hardly count
        self._shape = shape_of(config)
        self._peak = peak_flops(device) if options.dtype == "bfloat16" else None
        if self._shape is None:
            log.info("no mfu in the metrics: FLOPs are counted for dense decoders", model=type(config).__name__)
        elif self._peak is None:
            log.info(
                "no mfu in the metrics: a peak is known for bfloat16 on some GPUs", device=device, dtype=options.dtype
            )

    def metrics(self, sequences: SequenceOf[Sequence], seconds: float, shared: float) -> dict[str, float]:
        """Of a step on `sequences`, those of all ranks: `tokens_per_second`, prompts included, and `mfu` if known.

        `shared` is the share of the tokens that was not computed (`shared_prompt_share`); it counts in the first alone.
        """
        tokens = sum(sequence.width for sequence in sequences)
        found = {"tokens_per_second": tokens / seconds}
        if self._shape is not None and self._peak is not None:
            sizes = ((sequence.width, len(sequence.completion_ids)) for sequence in sequences)
            flops = batch_flops(self._shape, sizes, self._passes, shared * tokens)
            found["mfu"] = flops / (seconds * self._peak * self._ranks)
        return found
