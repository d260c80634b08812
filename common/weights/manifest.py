"""What a published policy consists of: its tensors, the place of each in its file, and their checksums.

A file is in the safetensors format:

    8 bytes: length of the header, little-endian | header: JSON, padded with spaces | tensors, one after the other

Written here and not by the `safetensors` package, which wants all tensors in memory at once: a learner that gathers one
after the other never holds them all. The package reads what is written here, and tests compare the two.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from io import FileIO

import numpy as np
import xxhash
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

ITEM_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "U8": 1}
"""Bytes of a value by its dtype's name in safetensors."""

CHECKSUM_BYTES = 16

_LENGTH = struct.Struct("<Q")
_ALIGNED = 8
_BLOCK_BYTES = 2**18


@dataclass(frozen=True)
class Tensor:
    """One of them: `Tensor("model.norm.weight", "BF16", (576,))`. A scalar has the shape (), an empty one a 0 in it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def item_bytes(self) -> int:
        return ITEM_BYTES[self.dtype]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.item_bytes


@dataclass(frozen=True)
class Layout:
    """All of them, in the order in which the learner walks them."""

    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> Layout:
        return cls(tuple(Tensor(*one) for one in tensors))

    @cached_property
    def header(self) -> bytes:
        """What the file begins with."""
        table = {
            tensor.name: {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": span}
            for tensor, span in zip(self.tensors, self._spans, strict=True)
        }
        text = json.dumps(table, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNED)
        return _LENGTH.pack(len(text)) + text

    @cached_property
    def offsets(self) -> list[int]:
        """Where each begins in the file, in bytes."""
        return [len(self.header) + begin for begin, _ in self._spans]

    @cached_property
    def data_bytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def file_bytes(self) -> int:
        return len(self.header) + self.data_bytes

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        """[(begin, end)] after the header. Wide values first, so that each lies at a multiple of its own size."""
        spans, end = [(0, 0)] * len(self.tensors), 0
        for place in sorted(range(len(self.tensors)), key=lambda place: -self.tensors[place].item_bytes):
            spans[place] = (end, end := end + self.tensors[place].nbytes)
        return spans


@dataclass(frozen=True)
class Manifest:
    """Its tensors, and a checksum of each."""

    layout: Layout
    checksums: tuple[bytes, ...]

    @cached_property
    def checksum(self) -> str:
        """Of all of it, 32 hexadecimal digits."""
        return xxhash.xxh3_128_hexdigest(b"".join((self.layout.header, *self.checksums)))


def checksum(tensor: Bytes) -> bytes:
    """CHECKSUM_BYTES, by XXH3: against accidents. A cryptographic one takes fifteen times as long, and keeps nobody
    out: who may announce a checksum may announce any weights."""
    return xxhash.xxh3_128_digest(np.ascontiguousarray(tensor).data)


def checksum_read(file: FileIO, size: int) -> bytes:
    """As `checksum`, of the next bytes of an unbuffered file; of fewer where it ends."""
    digest, block = xxhash.xxh3_128(), memoryview(bytearray(min(size, _BLOCK_BYTES)))
    while size and (read := file.readinto(block[:size])):
        digest.update(block[:read])
        size -= read
    return digest.digest()
