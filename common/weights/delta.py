"""What an optimizer step changed in a piece of one tensor, without loss. Pure.

Values are compared as the unsigned integers that their bits make. One step moves most bfloat16 values nowhere and
nearly all others by one unit in the last place, which is 1 or -1 as a difference of these integers; so differences are
written "zigzag" (0, -1, 1, -2, ... as 0, 1, 2, 3, ...), their bytes plane by plane, and compressed. Where few changed
only those are written, with their places as gaps.

Xor, the usual choice, takes twice the bytes: a carry flips many bits where the difference is 1.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import numpy as np
import zstandard
from numpy.typing import NDArray

from common.errors import WeightsError
from common.weights.manifest import Bytes

LEVEL = 1
"""Of zstd; higher ones take longer and save nothing here."""
SPARSE_BELOW = 0.4
"""Share of changed values under which their places are written. Level at a half; gaps take longer to make."""

_LONG = 255
_COUNTS = struct.Struct("<II")  # changed values, gaps of _LONG or more
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_SIGNED = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


class Method(IntEnum):
    """How a piece is written."""

    RAW = 0
    """Its bytes."""
    SPARSE = 1
    """Number of changed values and of long gaps; compressed: gaps (uint8; 255 stands for a long one), long gaps
    (uint32), planes of zigzag differences."""
    DENSE = 2
    """Planes of zigzag differences of all values, compressed."""


def encode(old: Bytes, new: Bytes, item_bytes: int) -> tuple[Method, bytes] | None:
    """`new` as its difference from `old`, both uint8 of the same length; None where nothing changed."""
    unsigned = _UNSIGNED[item_bytes]
    difference = new.view(unsigned) - old.view(unsigned)
    places = np.flatnonzero(difference)
    if not len(places):
        return None
    if len(places) < SPARSE_BELOW * len(difference):
        method, written = Method.SPARSE, _sparse(places, _zigzag(difference[places]))
    else:
        method, written = Method.DENSE, _compressed(_planes(_zigzag(difference)))
    return (method, written) if len(written) < len(new) else (Method.RAW, new.tobytes())


def decode(method: int, written: bytes | memoryview, old: Bytes, item_bytes: int) -> Bytes:
    """What `encode` was given as `new`: uint8, as long as `old`. WeightsError for what it cannot have written."""
    if method == Method.RAW:
        new = np.frombuffer(written, np.uint8)
        _check(len(new) == len(old), "a raw piece of another length")
        return new
    before = old.view(_UNSIGNED[item_bytes])
    if method == Method.DENSE:
        after = before + _unzigzag(_values(_expanded(written, len(old)), item_bytes))
    else:
        _check(method == Method.SPARSE, f"method {method}")
        places, zigzag = _read_sparse(written, len(before), item_bytes)
        after = before.copy()
        after[places] += _unzigzag(zigzag)
    return np.frombuffer(after, np.uint8)


def _sparse(places: NDArray[np.intp], zigzag: NDArray[np.unsignedinteger]) -> bytes:
    gaps = np.diff(places, prepend=-1) - 1
    long = gaps[gaps >= _LONG].astype("<u4")
    body = [np.minimum(gaps, _LONG).astype(np.uint8), long.view(np.uint8), _planes(zigzag)]
    return _COUNTS.pack(len(places), len(long)) + _compressed(np.concatenate(body))


def _read_sparse(
    written: bytes | memoryview, values: int, item_bytes: int
) -> tuple[NDArray[np.int64], NDArray[np.unsignedinteger]]:
    """Places and zigzag differences, among so many values."""
    _check(len(written) >= _COUNTS.size, "a sparse piece without its counts")
    count, long_count = _COUNTS.unpack_from(written)
    _check(long_count <= count <= values, f"{count} changes and {long_count} long gaps among {values} values")
    body = _expanded(memoryview(written)[_COUNTS.size :], count * (1 + item_bytes) + 4 * long_count)
    gaps = body[:count].astype(np.int64)
    is_long = gaps == _LONG
    _check(int(is_long.sum()) == long_count, "long gaps that are not as many as it says")
    end = count + 4 * long_count
    gaps[is_long] = body[count:end].view("<u4")
    places = np.cumsum(gaps + 1) - 1
    _check(count == 0 or int(places[-1]) < values, "changes beyond the end")
    return places, _values(body[end:], item_bytes)


def _zigzag(difference: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    signed = difference.view(_SIGNED[difference.itemsize])
    sign = signed >> (8 * difference.itemsize - 1)  # 0 or -1
    zigzag: NDArray[np.unsignedinteger] = ((signed << 1) ^ sign).view(difference.dtype)
    return zigzag


def _unzigzag(zigzag: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    one = zigzag.dtype.type(1)
    difference: NDArray[np.unsignedinteger] = (zigzag >> one) ^ (~(zigzag & one) + one)
    return difference


def _planes(values: NDArray[np.unsignedinteger]) -> Bytes:
    """First the lowest byte of each, then the next, ..."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little.view(np.uint8).reshape(-1, values.itemsize).T).ravel()


def _values(planes: Bytes, item_bytes: int) -> NDArray[np.unsignedinteger]:
    dtype = np.dtype(_UNSIGNED[item_bytes]).newbyteorder("<")
    little = np.ascontiguousarray(planes.reshape(item_bytes, -1).T).view(dtype)
    return little.ravel().astype(_UNSIGNED[item_bytes], copy=False)


def _compressed(body: Bytes) -> bytes:
    return zstandard.ZstdCompressor(level=LEVEL).compress(body.data)


def _expanded(frame: bytes | memoryview, expected: int) -> Bytes:
    """What is compressed in it, which must be so many bytes: a short frame could be made to fill any memory."""
    try:
        says = zstandard.get_frame_parameters(frame).content_size
        _check(says == expected, f"{says} bytes where {expected} are expected")
        return np.frombuffer(zstandard.ZstdDecompressor().decompress(frame), np.uint8)
    except zstandard.ZstdError as error:
        raise WeightsError(f"a piece of the weights is damaged: {error}") from error


def _check(holds: bool, found: str) -> None:
    if not holds:
        raise WeightsError(f"a piece of the weights is damaged: {found}")
