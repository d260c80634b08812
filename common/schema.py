"""The wire: every message of the system, its example and its limits. Only this module packs and unpacks.

    Ticket ──actor──▶ Rollout ──scorer──▶ Scored ──▶ learner          Policy: learner ──▶ actors

A message is one msgpack map {"v": 1, "k": kind, "b": body}; a tensor in it is a map of raw little-endian
bytes with dtype and shape (25 to 50 times cheaper than a list of ints). Whatever arrives is hostile until
`unpack` has checked every type, length and range; it raises SchemaError and never anything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray

from common.errors import SchemaError

T = TypeVar("T")

WIRE_VERSION = 1
MAX_MESSAGE_BYTES = 64 * 2**20  # 16 completions of 8,192 tokens are 2 MB; this leaves room for long contexts
MAX_TEXT_CHARS = 4 * 2**20
MAX_COMPLETIONS = 1024
MAX_TOKENS = 2**20
MAX_META_ITEMS = 32
MAX_EXTRACTED_CHARS = 4096
MAX_FOLDER_CHARS = 4096

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
FINISH_REASONS = ("stop", "length", "abort")
Stage = Literal["tickets", "rollouts", "scored"]
STATUSES = ("correct", "wrong", "no_answer", "unparsable", "timeout", "error", "context_overflow")


@dataclass(frozen=True)
class Ticket:
    """An order for one group: N completions of one prompt. Issued by the learner alone.

    Ticket(run="quickstart-1f", id=17, attempt=1, question="12 + 30 = ?", gold="42", meta={},
           prompt_ids=[3, 14, ...], completions=8, temperature=1.0, max_tokens=64, incarnation=1, step=0)
    """

    KIND: ClassVar[str] = "ticket"
    run: str
    id: int
    """Sequence number in the seeded prompt order; the same number is the same prompt in every attempt."""
    attempt: int
    """1 at first; higher when the broker lost the ticket and it was issued again."""
    question: str
    gold: str
    meta: dict[str, str]
    """What the task's own scorer needs; empty for plain data."""
    prompt_ids: Int32
    """int32 [P], the rendered chat prompt in the policy's tokens."""
    completions: int
    temperature: float
    max_tokens: int
    incarnation: int
    step: int
    """Learner's incarnation and step when the ticket was issued."""


@dataclass(frozen=True)
class Completion:
    """One sampled answer with what its sampler knew.

    Completion(text="12 + 30 = 42 \\\\boxed{42}", ids=[...T], logprobs=[...T], versions=[(9, 1, 3), (4, 1, 4)],
               finish="stop", seconds=0.21)
    """

    KIND: ClassVar[str] = "completion"
    text: str
    ids: Int32
    """int32 [T], with the end-of-sequence token when it was sampled."""
    logprobs: Float32
    """float32 [T], behaviour log-probability of each sampled token at the ticket's temperature."""
    versions: list[tuple[int, int, int]]
    """Run-length [(tokens, incarnation, step)]; the tokens add up to T."""
    finish: str
    seconds: float

    @property
    def oldest_step(self) -> int | None:
        """Oldest policy step in it; None for an empty completion."""
        return min((step for _, _, step in self.versions), default=None)


@dataclass(frozen=True)
class Rollout:
    """A ticket with its N completions. The group is complete or it is not published."""

    KIND: ClassVar[str] = "rollout"
    ticket: Ticket
    completions: list[Completion]
    actor: str
    seconds: float


@dataclass(frozen=True)
class Scored:
    """A rollout with its rewards and everything needed to derive them again.

    Scored(rollout=..., mode="hero", statuses=["correct", "wrong", ...N], extracted=["42", None, ...N],
           rm_scores=[1.2, -0.3, ...N], r_hat=[1.1, -0.1, ...N], weight=1.7, sigma_u=0.8, sigma_bar=0.8, ...)
    """

    KIND: ClassVar[str] = "scored"
    rollout: Rollout
    mode: str
    statuses: list[str]
    extracted: list[str | None]
    rm_scores: Float64 | None
    """float64 [N] raw logits; None where the mode needs no reward model; NaN for a context overflow."""
    r_hat: Float64
    """float64 [N], before the weight (Eq. 3)."""
    weight: float
    """w of Eq. 4; 1 outside hero."""
    sigma_u: float | None
    sigma_bar: float | None
    """As used for this weight; None where the mode has no sigma."""
    scorer: str
    seconds: float

    @property
    def rewards(self) -> Float64:
        """float64 [N], w * r_hat (Eq. 5)."""
        return self.weight * self.r_hat

    @property
    def ticket(self) -> Ticket:
        return self.rollout.ticket

    @property
    def oldest_step(self) -> int:
        """Oldest policy step in the group; the ticket's own for a group of empty completions."""
        steps = [c.oldest_step for c in self.rollout.completions if c.oldest_step is not None]
        return min(steps, default=self.ticket.step)


@dataclass(frozen=True)
class Policy:
    """The newest published weights. `check_*` are a few fixed sequences with the learner's own
    log-probabilities (temperature 1): an actor compares its engine after every load.

    Policy(incarnation=1, step=7, checksum="9f2c...", folder="/dev/shm/hero-x/v1-7", check_ids=[[...], ...],
           check_logprobs=[[...], ...])
    """

    KIND: ClassVar[str] = "policy"
    incarnation: int
    step: int
    checksum: str
    folder: str
    check_ids: list[Int32] = field(default_factory=list)
    check_logprobs: list[Float32] = field(default_factory=list)
    """float32 [len - 1] each: of token i + 1 given the tokens up to i."""


@dataclass(frozen=True)
class DeadLetter:
    """A message that was given up, as it was, with the reason."""

    KIND: ClassVar[str] = "dead"
    stage: str
    id: int | None
    attempt: int | None
    reason: str
    traceback: str
    origin: str
    """Consumer that gave it up."""
    body: bytes


Message = Ticket | Rollout | Scored | Policy | DeadLetter


def pack(message: Message) -> bytes:
    """Bytes of a message. Raises SchemaError when it is over MAX_MESSAGE_BYTES."""
    # msgpack walks the plain values itself and asks for the rest; "replace": a lone surrogate has no bytes.
    data: bytes = msgpack.packb(
        {"v": WIRE_VERSION, "k": message.KIND, "b": message}, default=_plain, unicode_errors="replace"
    )
    if len(data) > MAX_MESSAGE_BYTES:
        raise SchemaError(
            f"a {message.KIND} of {len(data):,} bytes is over the limit of {MAX_MESSAGE_BYTES:,}; "
            "lower sampling.completions or sampling.max_tokens"
        )
    return data


def unpack(data: bytes) -> Message:
    """The checked message in `data`; raises SchemaError with what is wrong."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise SchemaError(f"message of {len(data):,} bytes is over the limit of {MAX_MESSAGE_BYTES:,}")
    try:
        outer = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise SchemaError(f"not a message of ours: {type(error).__name__}: {error}") from error
    if not isinstance(outer, dict) or set(outer) != {"v", "k", "b"}:
        raise SchemaError("not a message of ours: no version, kind and body")
    if outer["v"] != WIRE_VERSION:
        raise SchemaError(f"wire version {outer['v']!r}, this process speaks {WIRE_VERSION}; upgrade the older side")
    reader = _READERS.get(outer["k"]) if isinstance(outer["k"], str) else None
    if reader is None:
        raise SchemaError(f"unknown kind of message: {outer['k']!r:.80}")
    return reader(_Map(outer["b"], str(outer["k"])))


def _plain(value: Any) -> dict[str, Any]:
    """A tensor or one of our dataclasses as a map."""
    if isinstance(value, np.ndarray):
        little = value if value.dtype.str[0] == "<" else value.astype(value.dtype.newbyteorder("<"))
        return {"d": little.dtype.str, "s": little.shape, "t": little.tobytes()}
    if hasattr(value, "KIND"):
        fields: dict[str, Any] = vars(value)
        return fields
    raise TypeError(f"a {type(value).__name__} has no place on the wire")


_THREE_COUNTS = [int, int, int]
_DTYPES = {name: np.dtype(name) for name in ("<i4", "<f4", "<f8")}  # made once: numpy parses a name each time


class _Map:
    """A received map, read field by field with checks."""

    __slots__ = ("_outer", "_place", "_value")

    def __init__(self, value: object, place: str, outer: _Map | None = None) -> None:
        self._place, self._outer = place, outer
        if type(value) is not dict:
            raise SchemaError(f"{self.where} is not a map")
        self._value: Mapping[str, Any] = value

    @property
    def where(self) -> str:
        """E.g. `scored.rollout.completions[3]`: put together only for an error, as it costs more than a check."""
        return self._place if self._outer is None else f"{self._outer.where}.{self._place}"

    def _get(self, key: str, kind: type | tuple[type, ...]) -> Any:
        value = self._value.get(key)
        if not isinstance(value, kind) or value is True or value is False:
            raise SchemaError(f"{self.where}.{key} is {type(value).__name__}, not what the wire says")
        return value

    def text(self, key: str, limit: int = MAX_TEXT_CHARS, among: tuple[str, ...] | None = None) -> str:
        value: str = self._get(key, str)
        if len(value) > limit:
            raise SchemaError(f"{self.where}.{key} has {len(value):,} characters, the limit is {limit:,}")
        if among is not None and value not in among:
            raise SchemaError(f"{self.where}.{key} is {value!r:.80}, not one of {', '.join(among)}")
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

    def optional(self, key: str, read: Callable[[str], T]) -> T | None:
        return None if self._value.get(key) is None else read(key)

    def items(self, key: str, limit: int) -> list[Any]:
        value: list[Any] = self._get(key, list)
        if len(value) > limit:
            raise SchemaError(f"{self.where}.{key} has {len(value):,} items, the limit is {limit:,}")
        return value

    def maps(self, key: str, limit: int) -> list[_Map]:
        return [_Map(item, f"{key}[{i}]", self) for i, item in enumerate(self.items(key, limit))]

    def inner(self, key: str) -> _Map:
        return _Map(self._value.get(key), key, self)

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


def _vector(tensor: object, dtype: str, limit: int, outer: _Map, place: str) -> NDArray[Any]:
    if type(tensor) is not dict:
        raise SchemaError(f"{outer.where}.{place} is not a map")
    found, shape, raw = tensor.get("d"), tensor.get("s"), tensor.get("t")
    if found != dtype:
        raise SchemaError(f"{outer.where}.{place} has dtype {found!s:.20}, expected {dtype}")
    if type(raw) is not bytes or type(shape) is not list or len(shape) != 1 or shape[0] is True:
        raise SchemaError(f"{outer.where}.{place} does not fit one vector of {dtype}")
    length, rest = divmod(len(raw), _DTYPES[dtype].itemsize)
    if shape[0] != length or rest or length > limit:
        raise SchemaError(
            f"{outer.where}.{place} of shape {shape!r:.60} and {len(raw)} bytes does not fit one vector of {dtype}"
        )
    return np.frombuffer(raw, _DTYPES[dtype])


def _ticket(m: _Map) -> Ticket:
    ticket = Ticket(
        run=m.text("run", 128),
        id=m.count("id"),
        attempt=m.count("attempt", low=1),
        question=m.text("question"),
        gold=m.text("gold"),
        meta=m.strings("meta"),
        prompt_ids=m.array("prompt_ids", "<i4"),
        completions=m.count("completions", low=1, high=MAX_COMPLETIONS),
        temperature=m.number("temperature"),
        max_tokens=m.count("max_tokens", low=1, high=MAX_TOKENS),
        incarnation=m.count("incarnation"),
        step=m.count("step"),
    )
    if not len(ticket.prompt_ids) or ticket.temperature <= 0:
        raise SchemaError(f"ticket {ticket.id} has no prompt, or temperature {ticket.temperature}")
    return ticket


def _completion(m: _Map) -> Completion:
    versions: list[tuple[int, int, int]] = []
    for item in m.items("versions", MAX_TOKENS):
        if not (type(item) is list and [type(n) for n in item] == _THREE_COUNTS and min(item) >= 0 and item[0]):
            raise SchemaError(f"{m.where}.versions holds {item!r:.60}, not (tokens, incarnation, step)")
        versions.append((item[0], item[1], item[2]))
    completion = Completion(
        text=m.text("text"),
        ids=m.array("ids", "<i4"),
        logprobs=m.array("logprobs", "<f4"),
        versions=versions,
        finish=m.text("finish", 16, FINISH_REASONS),
        seconds=m.number("seconds"),
    )
    tokens = len(completion.ids)
    if len(completion.logprobs) != tokens or sum([n for n, _, _ in versions]) != tokens:
        raise SchemaError(
            f"{m.where}: {tokens} ids, {len(completion.logprobs)} log-probabilities, versions {versions!r:.80}"
        )
    return completion


def _rollout(m: _Map) -> Rollout:
    ticket = _ticket(m.inner("ticket"))
    completions = [_completion(item) for item in m.maps("completions", MAX_COMPLETIONS)]
    if len(completions) != ticket.completions:
        raise SchemaError(
            f"ticket {ticket.id} ordered {ticket.completions} completions, the rollout has {len(completions)}"
        )
    # All at once: one by one, these two take a third of the time that a whole rollout does.
    logprobs, ids = (np.concatenate([getattr(c, name) for c in completions]) for name in ("logprobs", "ids"))
    if not np.isfinite(logprobs).all() or (ids < 0).any():
        raise SchemaError(f"{m.where} has a negative id or a log-probability that is not finite")
    return Rollout(ticket, completions, actor=m.text("actor", 256), seconds=m.number("seconds"))


def _scored(m: _Map) -> Scored:
    rollout = _rollout(m.inner("rollout"))
    statuses = m.items("statuses", MAX_COMPLETIONS)
    extracted = m.items("extracted", MAX_COMPLETIONS)
    if not all(status in STATUSES for status in statuses):
        raise SchemaError(f"{m.where}.statuses holds an unknown status")
    if not all(e is None or (isinstance(e, str) and len(e) <= MAX_EXTRACTED_CHARS) for e in extracted):
        raise SchemaError(f"{m.where}.extracted holds something that is no short text")
    scored = Scored(
        rollout=rollout,
        mode=m.text("mode", 64),
        statuses=statuses,
        extracted=extracted,
        rm_scores=m.optional("rm_scores", lambda key: m.array(key, "<f8")),
        r_hat=m.array("r_hat", "<f8"),
        weight=m.number("weight"),
        sigma_u=m.optional("sigma_u", m.number),
        sigma_bar=m.optional("sigma_bar", m.number),
        scorer=m.text("scorer", 256),
        seconds=m.number("seconds"),
    )
    n = rollout.ticket.completions
    lengths = [len(statuses), len(extracted), len(scored.r_hat)] + (
        [] if scored.rm_scores is None else [len(scored.rm_scores)]
    )
    if any(length != n for length in lengths):
        raise SchemaError(f"ticket {rollout.ticket.id}: {n} completions but scores of lengths {lengths}")
    if not np.isfinite(scored.r_hat).all() or (scored.rm_scores is not None and np.isinf(scored.rm_scores).any()):
        raise SchemaError(f"ticket {rollout.ticket.id} has a reward or a score that is not finite")
    return scored


def _policy(m: _Map) -> Policy:
    policy = Policy(
        incarnation=m.count("incarnation"),
        step=m.count("step"),
        checksum=m.text("checksum", 128),
        folder=m.text("folder", MAX_FOLDER_CHARS),
        check_ids=m.arrays("check_ids", "<i4", 64),
        check_logprobs=m.arrays("check_logprobs", "<f4", 64),
    )
    pairs = zip(policy.check_ids, policy.check_logprobs, strict=False)
    if len(policy.check_ids) != len(policy.check_logprobs) or any(len(i) != len(p) + 1 for i, p in pairs):
        raise SchemaError("policy: check sequences and log-probabilities do not fit")
    return policy


def _dead(m: _Map) -> DeadLetter:
    return DeadLetter(
        stage=m.text("stage", 32),
        id=m.optional("id", m.count),
        attempt=m.optional("attempt", m.count),
        reason=m.text("reason"),
        traceback=m.text("traceback"),
        origin=m.text("origin", 256),
        body=m._get("body", bytes),
    )


_READERS: dict[str, Callable[[_Map], Message]] = {
    "ticket": _ticket,
    "rollout": _rollout,
    "scored": _scored,
    "policy": _policy,
    "dead": _dead,
}
