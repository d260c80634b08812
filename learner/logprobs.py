"""Log-probabilities of completion tokens under a Hugging Face causal LM, at the sampler's temperature.

Of the positions of a batch only those that predict completion tokens pass the output layer, and the logits
[T, V], by far the largest tensor of a step, exist once: their gradient is written over them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_CHUNK_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 26}  # a float32 chunk stays in a CPU's cache, fills a GPU
_PROBE_TOKENS = 8


class CompletionLogprobs(nn.Module):
    """`model` wrapped so that one forward gives log-probabilities: what DeepSpeed takes as the module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.skips_prompt_logits = _output_layer_is_last(model)

    def forward(self, input_ids: Tensor, positions: Tensor, targets: Tensor, temperature: float) -> Tensor:
        """Float32 [T], log p(target) after logits / temperature.

        `input_ids` int64 [B, L] right-padded, `positions` int64 [T] into the flattened [B * L], `targets`
        int64 [T]; `temperature` > 0 is the one that the completions were sampled at.
        """
        model: Any = self.model
        if self.skips_prompt_logits:
            hidden = model.base_model(input_ids=input_ids, use_cache=False)[0]
            logits = model.get_output_embeddings()(hidden.flatten(0, 1).index_select(0, positions))
        else:
            logits = model(input_ids=input_ids, use_cache=False).logits
            logits = logits.flatten(0, 1).index_select(0, positions)
        result: Tensor = _TokenLogprobs.apply(logits, targets, temperature)  # type: ignore[no-untyped-call]
        return result


@torch.no_grad()
def _output_layer_is_last(model: Any) -> bool:
    """Whether logits are output_embeddings(base_model(x)) and nothing else, tried on a few tokens.

    Some families scale or soft-cap the logits afterwards (Gemma 2, Granite, Cohere). Bits are compared, since
    a soft cap hardly moves the small logits of an untrained model.
    """
    head = model.get_output_embeddings()
    if head is None or model.base_model is model:
        return False
    tokens = torch.arange(_PROBE_TOKENS, device=head.weight.device)[None] % head.weight.shape[0]
    hidden = model.base_model(input_ids=tokens, use_cache=False)[0]
    return torch.equal(head(hidden), model(input_ids=tokens, use_cache=False).logits)


class _TokenLogprobs(torch.autograd.Function):
    """log_softmax(logits / temperature)[targets] in float32 by chunks of rows; consumes `logits`.

    backward overwrites the logits with their gradient: the linear layer that made them does not need them.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
        result = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        normalizer = torch.empty_like(result)
        for rows in _chunks(logits):
            scaled = logits[rows].float() / temperature
            normalizer[rows] = scaled.logsumexp(-1)
            result[rows] = scaled.gather(-1, targets[rows, None])[:, 0] - normalizer[rows]
        ctx.save_for_backward(logits, targets, normalizer)
        ctx.temperature = temperature
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, targets, normalizer = ctx.saved_tensors
        scale = (gradient / ctx.temperature)[:, None]
        for rows in _chunks(logits):
            chunk = logits[rows].float()  # float32 logits are worked on in place
            chunk.div_(ctx.temperature).sub_(normalizer[rows, None]).exp_().mul_(-scale[rows])
            chunk.scatter_add_(-1, targets[rows, None], scale[rows])
            logits[rows] = chunk
        return logits, None, None


def _chunks(logits: Tensor) -> list[slice]:
    rows = max(1, _CHUNK_ELEMENTS[logits.device.type] // logits.shape[-1])
    return [slice(start, start + rows) for start in range(0, len(logits), rows)]
