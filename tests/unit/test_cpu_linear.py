"""Batch sizes of small layers: few, never too small, never much too large."""

from __future__ import annotations

from actors.cpu_linear import padded_rows


def test_batches_are_padded_to_few_sizes() -> None:
    sizes = {padded_rows(rows) for rows in range(1, 2049)}

    assert len(sizes) <= 32  # as many kernels as vLLM keeps for one layer
    for rows in range(1, 4097):
        assert rows <= padded_rows(rows) < rows + max(32, rows / 2)
    assert padded_rows(256) == 256 and padded_rows(257) == 384
