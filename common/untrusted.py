"""Reading what a stranger may have written: bytes that stay in proportion, a map whose every field is checked as it is
read, a count, a figure, text that cannot steer a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray

from common.errors import SchemaError

T = TypeVar("T")

MAX_TEXT_CHARS = 4 * 2**20
MAX_TOKENS = 2**20
MAX_META_ITEMS = 32
MAX_ITEMS = 2**18
MAX_DIGITS = 15  # of a count, as the scripts on the server have it
COUNTED_BYTES = 2**20  # what is smaller cannot become large
LARGEST_FIGURE = 1e30  # beyond it there are no figures of ours

_DTYPES = {name: np.dtype(name) for name in ("<i4", "<f4", "<f8")}  # made once: numpy parses a name each time


class _Allowance:
    """Counts the items of lists and maps as they are made: 64 MiB of empty maps would take 5 GB."""

    def __init__(self) -> None:
        self._left = MAX_ITEMS

    def __call__(self, items: T) -> T:
        self._left -= len(items)  # type: ignore[arg-type]
        if self._left < 0:
            raise SchemaError(f"it has more than {MAX_ITEMS:,} items; long rows of numbers go as tensors")
        return items


def plain_values(data: bytes | memoryview) -> Any:
    """The msgpack value in `data`. SchemaError when it is none, or one that takes memory out of proportion."""
    allowance = _Allowance() if len(data) > COUNTED_BYTES else None
    try:
        return msgpack.unpackb(
            data, raw=False, max_array_len=MAX_ITEMS, max_map_len=MAX_ITEMS, list_hook=allowance, object_hook=allowance
        )
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise SchemaError(f"not a message of ours: {type(error).__name__}: {error}"[:500]) from error


def count(raw: bytes | None) -> int:
    """A count that the broker keeps as text; 0 when there is none, and for what is none or has too many digits."""
    return int(raw) if raw and raw.isdigit() and len(raw) <= MAX_DIGITS else 0


def version(raw: bytes | None) -> tuple[int, int] | None:
    """Incarnation and step, as the broker keeps them: two counts as text. None when there are none, and for others."""
    parts = (raw or b"").split(b" ")
    return (count(parts[0]), count(parts[1])) if len(parts) == 2 and all(map(bytes.isdigit, parts)) else None


def figure(value: object) -> float | None:
    """A figure that can be shown and drawn; None for what is none, or is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST_FIGURE:
        return None
    return float(value)


def printable(text: str) -> str:
    """Text of a stranger for people: what steers a terminal, or turns the reading direction, stands there escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def printable_lines(text: str) -> str:
    """The same with its line breaks."""
    return "\n".join(map(printable, text.splitlines()))


class Fields:
    """A received map, read field by field: each call gives a value of the kind it names, or raises SchemaError."""

    __slots__ = ("_outer", "_place", "_value")

    def __init__(self, value: object, place: str, outer: Fields | None = None) -> None:
        self._place, self._outer = place, outer
        if type(value) is not dict:
            raise SchemaError(f"{self.where} is not a map")
        self._value: Mapping[str, Any] = value

    @property
    def where(self) -> str:
        """E.g. `scored.rollout.completions`: put together only for an error, as it costs more than a check."""
        return self._place if self._outer is None else f"{self._outer.where}.{self._place}"

    def _get(self, key: str, kind: type | tuple[type, ...]) -> Any:
        value = self._value.get(key)
        if not isinstance(value, kind) or value is True or value is False:
            raise SchemaError(f"{self.where}.{key} is {type(value).__name__}, not what the wire says")
        return value

    def text(self, key: str, limit: int = MAX_TEXT_CHARS) -> str:
        value: str = self._get(key, str)
        if len(value) > limit:
            raise SchemaError(f"{self.where}.{key} has {len(value):,} characters, the limit is {limit:,}")
        return value

    def count(self, key: str, low: int = 0, high: int = 2**53) -> int:
        value: int = self._get(key, int)
        if not low <= value <= high:
            raise SchemaError(f"{self.where}.{key} = {value} is outside {low} to {high}")
        return value

    def number(self, key: str) -> float:
        value = float(self._get(key, (int, float)))
        if not math.isfinite(value):
            raise SchemaError(f"{self.where}.{key} = {value} is not finite")
        return value

    def flag(self, key: str) -> bool:
        value = self._value.get(key)
        if value is not True and value is not False:
            raise SchemaError(f"{self.where}.{key} is {type(value).__name__}, not what the wire says")
        return value

    def optional(self, key: str, read: Callable[[str], T]) -> T | None:
        return None if self._value.get(key) is None else read(key)

    def items(self, key: str, limit: int) -> list[Any]:
        value: list[Any] = self._get(key, list)
        if len(value) > limit:
            raise SchemaError(f"{self.where}.{key} has {len(value):,} items, the limit is {limit:,}")
        return value

    def raw(self, key: str) -> bytes:
        value: bytes = self._get(key, bytes)
        return value

    def inner(self, key: str) -> Fields:
        return Fields(self._value.get(key), key, self)

    def array(self, key: str, dtype: str, limit: int = MAX_TOKENS) -> NDArray[Any]:
        return _vector(self._value.get(key), dtype, limit, self, key)

    def arrays(self, key: str, dtype: str, limit: int) -> list[NDArray[Any]]:
        return [_vector(item, dtype, MAX_TOKENS, self, f"{key}[{i}]") for i, item in enumerate(self.items(key, limit))]

    def strings(self, key: str) -> dict[str, str]:
        inner = self._get(key, dict)
        if len(inner) > MAX_META_ITEMS:
            raise SchemaError(f"{self.where}.{key} has {len(inner)} items, the limit is {MAX_META_ITEMS}")
        if not all(isinstance(k, str) and isinstance(v, str) and len(v) <= MAX_TEXT_CHARS for k, v in inner.items()):
            raise SchemaError(f"{self.where}.{key} is not a map of strings")
        return dict(inner)


def _vector(tensor: object, dtype: str, limit: int, outer: Fields, place: str) -> NDArray[Any]:
    if type(tensor) is not dict:
        raise SchemaError(f"{outer.where}.{place} is not a map")
    found, shape, raw = tensor.get("d"), tensor.get("s"), tensor.get("t")
    if found != dtype:
        raise SchemaError(f"{outer.where}.{place} has dtype {found!r:.20}, expected {dtype}")
    if type(raw) is not bytes or type(shape) is not list or len(shape) != 1 or shape[0] is True:
        raise SchemaError(f"{outer.where}.{place} does not fit one vector of {dtype}")
    length, rest = divmod(len(raw), _DTYPES[dtype].itemsize)
    if shape[0] != length or rest or length > limit:
        raise SchemaError(
            f"{outer.where}.{place} of shape {shape!r:.60} and {len(raw)} bytes does not fit one vector of {dtype}"
        )
    return np.frombuffer(raw, _DTYPES[dtype])
