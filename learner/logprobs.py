"""Log-probabilities of completion tokens under a Hugging Face causal LM, and entropies, at the sampler's temperature.

Of the positions of a batch only those that predict completion tokens pass the output layer. Their logits [T, V],
by far the largest tensor of a step, exist once, their gradient is written over them; beyond a bound they never
exist as a whole, but by chunks of rows, each computed once more when its gradient is.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from learner.attention import Segments
from learner.packing import enable_packing

LOGITS = 1 << 28
"""Elements of the logits that exist at once: 1 GiB in float32. A chunk of 1,700 rows of 151,936 still fills a GPU."""

_CHUNK_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 26}  # a float32 chunk stays in a CPU's cache, fills a GPU
_PROBE_TOKENS = 8


class CompletionLogprobs(nn.Module):
    """`model` wrapped so that one forward gives log-probabilities: what DeepSpeed takes as the module."""

    def __init__(self, model: nn.Module, packing: Literal["auto", "off"] = "auto", logits: int = LOGITS) -> None:
        """`logits` bounds the elements of the logits that exist at once."""
        super().__init__()
        self.model = model
        self.skips_prompt_logits = _output_layer_is_last(model)
        self.packs = packing == "auto" and enable_packing(model)
        self._logits = logits

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        targets: Tensor,
        temperature: float,
        segments: Segments | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Float32 [T] and [T]: log p(target), and the entropy in nats, of softmax(logits / temperature).

        `input_ids` int64 [B, L] right-padded, or [1, L] packed as `segments` say; `positions` int64 [T] into the
        flattened [B * L], `targets` int64 [T]; `temperature` > 0 is the one that the completions were sampled at.
        The entropy's gradient costs only where it is used.
        """
        model: Any = self.model
        layout: dict[str, Any] = {"use_cache": False}
        if segments is not None and not self.packs:
            raise ValueError("a packed row for a model that is not packed, whose sequences would see each other")
        if segments is not None:
            layout |= {"position_ids": segments.position_ids, "segments": segments}
        if not self.skips_prompt_logits:
            logits = model(input_ids=input_ids, **layout).logits
            return _from_logits(logits.flatten(0, 1).index_select(0, positions), targets, temperature)
        hidden = model.base_model(input_ids=input_ids, **layout)[0].flatten(0, 1).index_select(0, positions)
        return self._from_hidden(hidden, targets, temperature)

    def _from_hidden(self, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        model: Any = self.model
        head = model.get_output_embeddings()
        chunks = -(-len(targets) * model.config.get_text_config().vocab_size // self._logits)
        if chunks <= 1:
            return _from_logits(head(hidden), targets, temperature)

        def chunk(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            return _from_logits(head(hidden), targets, temperature)

        parts = [
            checkpoint(chunk, *rows, use_reentrant=False, preserve_rng_state=False)
            for rows in zip(hidden.chunk(chunks), targets.chunk(chunks), strict=True)
        ]
        logprobs, entropies = zip(*parts, strict=True)
        return torch.cat(logprobs), torch.cat(entropies)


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


def _from_logits(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = _LogSoftmax.apply(logits, targets, temperature)  # type: ignore[no-untyped-call]
    return result


class _LogSoftmax(torch.autograd.Function):
    """log p(target) and entropy of p = softmax(logits / temperature), float32, by chunks of rows; consumes `logits`.

    With z = logits / temperature and H the entropy,

        d log p(target) / dz_j = [j = target] - p_j,    dH / dz_j = -p_j (log p_j + H).

    backward overwrites the logits with their gradient: the linear layer that made them does not need them.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        normalizer, entropy = torch.empty_like(logprobs), torch.empty_like(logprobs)
        for rows in _chunks(logits):
            scaled = logits[rows].float() / temperature
            chosen = scaled.gather(-1, targets[rows, None])[:, 0]
            largest = scaled.amax(-1, keepdim=True)
            weights = scaled.sub_(largest).exp()
            total = weights.sum(-1)
            normalizer[rows] = largest[:, 0] + total.log()
            logprobs[rows] = chosen - normalizer[rows]
            entropy[rows] = total.log() - weights.mul_(scaled).sum(-1) / total
        ctx.save_for_backward(logits, targets, normalizer, entropy)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_logprobs: Tensor | None, of_entropy: Tensor | None) -> tuple[Tensor | None, None, None]:
        if of_logprobs is None and of_entropy is None:
            return None, None, None
        logits, targets, normalizer, entropy = ctx.saved_tensors
        scale = torch.zeros_like(normalizer) if of_logprobs is None else of_logprobs / ctx.temperature
        scale = scale[:, None]
        for rows in _chunks(logits):
            chunk = logits[rows].float()  # float32 logits are worked on in place
            chunk.div_(ctx.temperature).sub_(normalizer[rows, None])
            if of_entropy is None:
                chunk.exp_().mul_(-scale[rows])
            else:
                bonus = (of_entropy[rows] / ctx.temperature)[:, None]
                probabilities = chunk.exp()
                chunk.add_(entropy[rows, None]).mul_(bonus).add_(scale[rows]).mul_(probabilities).neg_()
            chunk.scatter_add_(-1, targets[rows, None], scale[rows])
            logits[rows] = chunk
        return logits, None, None


def _chunks(logits: Tensor) -> list[slice]:
    rows = max(1, _CHUNK_ELEMENTS[logits.device.type] // logits.shape[-1])
    return [slice(start, start + rows) for start in range(0, len(logits), rows)]
