"""Small linear layers on a CPU meet few batch sizes: rows are padded up to the next of some twenty.

vLLM multiplies through oneDNN, which compiles a kernel for every number of rows that a layer meets, and with
continuous batching that is another one at nearly every step. Compiling takes 0.3 ms, multiplying 256 rows by a layer of
128 x 256 weights 0.07 ms, and the kernels that oneDNN keeps fill 300 MB. torch's own product compiles nothing, but
takes twice the time of a compiled kernel where it does not use AVX-512.
"""

from __future__ import annotations

from typing import Any

SMALL_WEIGHTS = 2**18
"""Of a layer. Beyond it multiplying takes longer than compiling, and such a model's many layers share kernels."""


def padded_rows(rows: int) -> int:
    """The batch size for so many rows: a multiple of 32, above 256 of 128."""
    step = 32 if rows <= 256 else 128
    return -(-rows // step) * step


def pad_small_linears() -> None:
    """From now on, wherever vLLM prepares a layer of up to SMALL_WEIGHTS weights, let it multiply padded rows.

    It wraps the one function that vLLM asks for each linear layer and output head, at the start and after an update.
    """
    from vllm.model_executor.layers import utils

    prepare = utils.dispatch_cpu_unquantized_gemm
    if getattr(prepare, "pads", False):
        return

    def dispatch(layer: Any, remove_weight: bool) -> None:
        small = layer.weight.ndim == 2 and 0 < layer.weight.numel() <= SMALL_WEIGHTS
        prepare(layer, remove_weight)
        if small:
            layer.cpu_linear = _padded(layer.cpu_linear)

    dispatch.pads = True  # type: ignore[attr-defined]
    utils.dispatch_cpu_unquantized_gemm = dispatch


def _padded(multiply: Any) -> Any:
    from torch.nn.functional import pad

    def padded(x: Any, weight: Any, bias: Any) -> Any:
        rows = x.shape[0]
        more = padded_rows(rows) - rows
        if x.ndim != 2 or not more:
            return multiply(x, weight, bias)
        return multiply(pad(x, (0, 0, 0, more)), weight, bias)[:rows]

    return padded
