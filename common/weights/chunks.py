"""A version as chunks of at most 4 MiB: whole, or as what changed since another version. Pure.

    chunk:   b"HW", format, number, checksum of the rest | records
    record:  tensor, piece of it, method, length | as `delta` writes it

A record stands for itself and a chunk has whole records: either end needs room for a few pieces, not for a policy, and
what was lost is known by the number of its chunk. Pieces that did not change are left out of a delta.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import xxhash

from common.errors import WeightsError
from common.weights import delta
from common.weights.delta import Method
from common.weights.manifest import Bytes, Layout

PIECE_BYTES = 2**22
"""A server stores chunks of 4 MiB at three to ten times the speed of those of 16 MiB."""

_MAGIC, _FORMAT = b"HW", 1
_CHUNK = struct.Struct("<2sHIQ")  # magic, format, number, XXH3-64 of the rest
_RECORD = struct.Struct("<IIII")  # tensor, piece, method, bytes


@dataclass(frozen=True)
class Piece:
    """A part of one tensor: PIECE_BYTES, but for the last one of it."""

    tensor: int
    number: int
    item_bytes: int
    span: slice
    """Of the tensor's bytes."""


def pieces(layout: Layout) -> Iterator[Piece]:
    """All of them, tensor by tensor; an empty tensor has none."""
    for place, tensor in enumerate(layout.tensors):
        for number, start in enumerate(range(0, tensor.nbytes, PIECE_BYTES)):
            yield Piece(place, number, tensor.item_bytes, slice(start, min(start + PIECE_BYTES, tensor.nbytes)))


def whole(layout: Layout, new: Sequence[Bytes]) -> Iterator[bytes]:
    """Chunks of a whole version; `new` is uint8 [nbytes] for each tensor."""
    return _chunks((piece, Method.RAW, new[piece.tensor][piece.span].data) for piece in pieces(layout))


def changes(layout: Layout, old: Sequence[Bytes], new: Sequence[Bytes]) -> Iterator[bytes]:
    """Chunks of what changed from `old` to `new`, two versions of one layout; none at all when nothing did."""
    return _chunks(
        (piece, *found)
        for piece in pieces(layout)
        if (found := delta.encode(old[piece.tensor][piece.span], new[piece.tensor][piece.span], piece.item_bytes))
    )


def apply(chunk: bytes, number: int, layout: Layout, tensors: Sequence[Bytes]) -> int:
    """Writes what the chunk of that number holds into `tensors`; of a delta they hold the version before.

    Returns the bytes written. Raises WeightsError for a chunk that is damaged, another, or not of this layout.
    """
    written = 0
    for piece, method, body in _records(chunk, number, layout):
        part = tensors[piece.tensor][piece.span]
        part[:] = delta.decode(method, body, part, piece.item_bytes)
        written += len(part)
    return written


def _chunks(records: Iterable[tuple[Piece, Method, bytes | memoryview]]) -> Iterator[bytes]:
    number, held, parts = 0, 0, list[bytes | memoryview]()
    for piece, method, body in records:
        if held and held + len(body) > PIECE_BYTES:
            yield _chunk(number, parts)
            number, held, parts = number + 1, 0, []
        parts += [_RECORD.pack(piece.tensor, piece.number, method, len(body)), body]
        held += _RECORD.size + len(body)
    if parts:
        yield _chunk(number, parts)


def _chunk(number: int, parts: Sequence[bytes | memoryview]) -> bytes:
    digest = xxhash.xxh3_64()
    for part in parts:
        digest.update(part)
    return b"".join((_CHUNK.pack(_MAGIC, _FORMAT, number, digest.intdigest()), *parts))


def _records(chunk: bytes, number: int, layout: Layout) -> Iterator[tuple[Piece, int, memoryview]]:
    if len(chunk) < _CHUNK.size:
        raise WeightsError(f"chunk {number} of the weights has no head")
    magic, version, found, checksum = _CHUNK.unpack_from(chunk)
    if (magic, version) != (_MAGIC, _FORMAT):
        raise WeightsError(f"chunk {number} of the weights is not of format {_FORMAT}; upgrade the older side")
    rest = memoryview(chunk)[_CHUNK.size :]
    if found != number or xxhash.xxh3_64_intdigest(rest) != checksum:
        raise WeightsError(f"chunk {number} of the weights is damaged or another one ({found})")
    while rest:
        if len(rest) < _RECORD.size:
            raise WeightsError(f"chunk {number} of the weights ends within a record")
        tensor, piece, method, length = _RECORD.unpack_from(rest)
        end = _RECORD.size + length
        if len(rest) < end:
            raise WeightsError(f"chunk {number} of the weights ends within a record")
        yield _piece(layout, tensor, piece), method, rest[_RECORD.size : end]
        rest = rest[end:]


def _piece(layout: Layout, tensor: int, number: int) -> Piece:
    if tensor >= len(layout.tensors) or number * PIECE_BYTES >= (known := layout.tensors[tensor]).nbytes:
        raise WeightsError(f"piece {number} of tensor {tensor} is beyond this policy's {len(layout.tensors)} tensors")
    start = number * PIECE_BYTES
    return Piece(tensor, number, known.item_bytes, slice(start, min(start + PIECE_BYTES, known.nbytes)))
