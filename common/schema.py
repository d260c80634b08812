"""The wire: every message of the system, its example and its limits. Only this module packs and unpacks.

    Ticket ──actor──▶ Rollout ──scorer──▶ Scored ──▶ learner          Policy, Carried: learner ──▶ actors

A message is a head of nine bytes (b"HERO", version, CRC-32 of the rest) and one msgpack map {"k": kind, "b": body}; a
tensor in it is a map of raw little-endian bytes with dtype and shape (25 to 50 times cheaper than a list of ints).
Whatever arrives is hostile until `unpack` has checked every type, length and range; it raises SchemaError and never
anything else. The checksum is for accidents: a bit that flips in a token id would be trained on without a word.

The version in a head is the oldest wire whose readers understand the message, and `unpack` reads OLDEST_WIRE and all
since: so processes of two releases work on one run while it is upgraded. A field that is new has a default that stands
for its absence. A change that older readers would misread is made in two releases: one that reads it, then one that
writes it.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import msgpack
import numpy as np
from numpy.typing import NDArray

from common.errors import NewerWire, SchemaError
from common.lanes import LANES, Lane
from common.untrusted import MAX_TEXT_CHARS, MAX_TOKENS, Fields, plain_values
from common.weights.manifest import CHECKSUM_BYTES, ITEM_BYTES, Layout, Manifest

WIRE_VERSION = 6
OLDEST_WIRE = 5  # without adapters and rings
MAX_MESSAGE_BYTES = 64 * 2**20  # 16 completions of 8,192 tokens are 2 MB; this leaves room for long contexts
MAX_COMPLETIONS = 1024
MAX_GROUP_TOKENS = MAX_MESSAGE_BYTES // 8  # an id and a log-probability take 8 bytes
MAX_EXTRACTED_CHARS = 4096
MAX_FOLDER_CHARS = 4096
MAX_NAME_CHARS = 512
MAX_RULE_CHARS = 64
MAX_TENSORS = 2**16
MAX_DIMENSIONS = 8
MAX_POLICY_BYTES = 2**42
MAX_PARTS = 4096
MAX_MEMBERS = 4096
MAX_REWARD = 1e9  # far above any reward model's, far below where a batch's sums leave float32

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
FINISH_REASONS = ("stop", "length", "abort")
UNSCORED = ("context_overflow", "not_finite")  # the reward model could not read it, or gave no finite score
STATUSES = ("correct", "wrong", "no_answer", "unparsable", "timeout", "error", *UNSCORED)


@dataclass(frozen=True)
class Ticket:
    """An order for one group: N completions of one prompt. Issued by the learner alone.

    Ticket(run="quickstart-1f", lane="train", id=17, attempt=1, question="12 + 30 = ?", gold="42", meta={},
           prompt_ids=[3, 14, ...], completions=8, temperature=1.0, top_p=1.0, max_tokens=64, incarnation=1, step=0)
    """

    KIND: ClassVar[str] = "ticket"
    run: str
    lane: Lane
    """What it is for: training, or evaluation beside it."""
    id: int
    """Sequence number of its lane; the same number is the same prompt in every attempt."""
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
    top_p: float
    """1 in training: a truncated distribution's log-probabilities are not the policy's."""
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
           rules=["same number", "", ...N], reward_model="AceMath-7B-RM@1a2b3c4d5e6f", rm_scores=[1.2, -0.3, ...N],
           r_hat=[1.1, -0.1, ...N], weight=1.7, sigma_u=0.8, sigma_bar=0.8, sigma_dev=0.2, ...)
    """

    KIND: ClassVar[str] = "scored"
    rollout: Rollout
    mode: str
    statuses: list[str]
    extracted: list[str | None]
    rules: list[str]
    """What made each completion correct; "" for the others."""
    reward_model: str | None
    """Name and revision; None where the mode needs no model."""
    rm_scores: Float64 | None
    """float64 [N] raw logits; None where the mode needs no reward model; NaN for what is UNSCORED."""
    r_hat: Float64
    """float64 [N], before the weight (Eq. 3)."""
    weight: float
    """w of Eq. 4; 1 outside hero."""
    sigma_u: float | None
    sigma_bar: float | None
    sigma_dev: float | None
    """Both as used for this weight; None where the mode has no sigma."""
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
class Frozen:
    """Weights that are not trained: W + scale * B A is the policy's, for each pair of adapters A, B that it publishes.

    Frozen(manifest=Manifest(...), folder="/dev/shm/hero-x/frozen-1", scale=2.0)
    """

    manifest: Manifest
    folder: str
    scale: float


@dataclass(frozen=True)
class Policy:
    """Published weights. `check_*` are a few fixed sequences with the learner's own log-probabilities (temperature 1):
    an actor compares its engine after every load.

    Policy(incarnation=1, step=7, manifest=Manifest(...), folder="/dev/shm/hero-x/v1-7", check_ids=[[...], ...],
           check_logprobs=[[...], ...])
    """

    KIND: ClassVar[str] = "policy"
    incarnation: int
    step: int
    manifest: Manifest
    """Its tensors, each with its checksum."""
    folder: str
    """Of `common.weights.folder`."""
    frozen: Frozen | None = None
    """What these tensors are the adapters of; None when they are all weights."""
    check_ids: list[Int32] = field(default_factory=list)
    check_logprobs: list[Float32] = field(default_factory=list)
    """float32 [len - 1] each: of token i + 1 given the tokens up to i."""

    @property
    def checksum(self) -> str:
        """Of all tensors: two versions with the same one are the same policy."""
        return self.manifest.checksum


@dataclass(frozen=True)
class Part:
    """Chunks in the broker: a whole version, or what changed in it since another.

    Part(step=57, base=56, chunks=3, bytes=11_534_336)
    """

    step: int
    base: int | None
    """Step of the version before; None for a whole one."""
    chunks: int
    bytes: int
    frozen: bool = False
    """Whether it is the frozen weights, whole; its step is 0 then."""


@dataclass(frozen=True)
class Carried:
    """The newest weights that the broker itself holds, and the parts out of which they can be put together.

    Carried(policy=Policy(incarnation=1, step=57, ...), parts=[Part(40, None, 65, ...), Part(41, 40, 3, ...), ...])
    """

    KIND: ClassVar[str] = "carried"
    policy: Policy
    parts: list[Part]
    """All of the policy's incarnation."""
    frozen: Part | None = None
    """Where the policy has frozen weights."""


@dataclass(frozen=True)
class Ring:
    """Who gets weights together, by collective operations: the learner, which is rank 0, and these actors after it.

    Ring(generation=3, address="10.0.0.1:41877", device="cuda", members=["actor-node1-41-3f", ...])
    """

    KIND: ClassVar[str] = "ring"
    generation: int
    """Another for every change of members."""
    address: str
    """Of the learner's store, where they meet."""
    device: Literal["cpu", "cuda"]
    """Where the tensors are that are sent: by gloo, or by nccl."""
    members: list[str]


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


Message = Ticket | Rollout | Scored | Policy | Carried | Ring | DeadLetter


def pack(message: Message) -> bytes:
    """Bytes of a message. Raises SchemaError when it is over MAX_MESSAGE_BYTES."""
    # msgpack walks the plain values itself and asks for the rest; "replace": a lone surrogate has no bytes.
    rest: bytes = msgpack.packb({"k": message.KIND, "b": message}, default=_plain, unicode_errors="replace")
    data = _HEAD.pack(_MAGIC, _understood_since(message), zlib.crc32(rest)) + rest
    if len(data) > MAX_MESSAGE_BYTES:
        raise SchemaError(
            f"a {message.KIND} of {len(data):,} bytes is over the limit of {MAX_MESSAGE_BYTES:,}; "
            "lower sampling.completions or sampling.max_tokens"
        )
    return data


def unpack(data: bytes) -> Message:
    """The checked message in `data`; raises SchemaError with what is wrong, NewerWire for one of a later release."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise SchemaError(f"message of {len(data):,} bytes is over the limit of {MAX_MESSAGE_BYTES:,}")
    if len(data) < _HEAD.size or not data.startswith(_MAGIC):
        raise SchemaError("not a message of ours: it has no head")
    _, version, checksum = _HEAD.unpack_from(data)
    rest = memoryview(data)[_HEAD.size :]
    if checksum != zlib.crc32(rest):
        raise SchemaError("damaged on its way: the checksum in its head is not that of the rest")
    if version > WIRE_VERSION:
        raise NewerWire(f"wire version {version}, this process reads up to {WIRE_VERSION}; upgrade it")
    if version < OLDEST_WIRE:
        raise SchemaError(f"wire version {version}, this process reads {OLDEST_WIRE} and later; upgrade its sender")
    outer = plain_values(rest)
    if type(outer) is not dict or set(outer) != {"k", "b"}:
        raise SchemaError("not a message of ours: no kind and body")
    reader = _READERS.get(outer["k"]) if isinstance(outer["k"], str) else None
    if reader is None:
        raise SchemaError(f"unknown kind of message: {outer['k']!r:.80}")
    return reader(Fields(outer["b"], outer["k"]))


def _understood_since(message: Message) -> int:
    """The oldest wire whose readers understand it."""
    policy = message.policy if isinstance(message, Carried) else message
    adapters = isinstance(policy, Policy) and policy.frozen is not None
    return 6 if adapters or isinstance(message, Ring) else OLDEST_WIRE


_MAGIC = b"HERO"
_HEAD = struct.Struct("<4sBI")
_THREE_COUNTS = [int, int, int]


def _plain(value: Any) -> dict[str, Any]:
    """A tensor or one of our dataclasses as a map."""
    if isinstance(value, np.ndarray):
        little = value if value.dtype.str[0] == "<" else value.astype(value.dtype.newbyteorder("<"))
        return {"d": little.dtype.str, "s": little.shape, "t": little.tobytes()}
    if isinstance(value, Rollout):
        return {**vars(value), "completions": _columns(value.completions)}
    if isinstance(value, Manifest):
        names, dtypes, shapes = zip(*((t.name, t.dtype, t.shape) for t in value.layout.tensors), strict=True)
        return {"names": names, "dtypes": dtypes, "shapes": shapes, "checksums": b"".join(value.checksums)}
    if hasattr(value, "KIND") or isinstance(value, Frozen | Part):
        fields: dict[str, Any] = vars(value)
        return fields
    raise TypeError(f"a {type(value).__name__} has no place on the wire")


def _ticket(m: Fields) -> Ticket:
    ticket = Ticket(
        run=m.text("run", 128),
        lane=_lane(m),
        id=m.count("id"),
        attempt=m.count("attempt", low=1),
        question=m.text("question"),
        gold=m.text("gold"),
        meta=m.strings("meta"),
        prompt_ids=m.array("prompt_ids", "<i4"),
        completions=m.count("completions", low=1, high=MAX_COMPLETIONS),
        temperature=m.number("temperature"),
        top_p=m.number("top_p"),
        max_tokens=m.count("max_tokens", low=1, high=MAX_TOKENS),
        incarnation=m.count("incarnation"),
        step=m.count("step"),
    )
    if not len(ticket.prompt_ids) or ticket.temperature <= 0:
        raise SchemaError(f"ticket {ticket.id} has no prompt, or temperature {ticket.temperature}")
    if not 0 < ticket.top_p <= 1 or (ticket.lane == "train" and ticket.top_p != 1):
        raise SchemaError(f"ticket {ticket.id} of {ticket.lane} has top_p {ticket.top_p}; training takes 1 alone")
    return ticket


def _lane(m: Fields) -> Lane:
    if (lane := m.text("lane", 8)) not in LANES:
        raise SchemaError(f"{m.where}.lane = {lane!r} is none of {', '.join(LANES)}")
    return lane


def _rollout(m: Fields) -> Rollout:
    ticket = _ticket(m.inner("ticket"))
    completions = _completions(m.inner("completions"), ticket.completions)
    return Rollout(ticket, completions, actor=m.text("actor", 256), seconds=m.number("seconds"))


def _columns(completions: Sequence[Completion]) -> dict[str, Any]:
    """The completions of a group as one map of columns: few tensors where rows had two each, so half of the time."""
    for c in completions:
        if not len(c.ids) == len(c.logprobs) == sum([tokens for tokens, _, _ in c.versions]):
            raise SchemaError(f"{len(c.ids)} ids, {len(c.logprobs)} log-probabilities, versions {c.versions!r:.80}")
    return {
        "texts": [c.text for c in completions],
        "ids": np.concatenate([c.ids for c in completions]),
        "logprobs": np.concatenate([c.logprobs for c in completions]),
        "versions": [c.versions for c in completions],
        "finish": [c.finish for c in completions],
        "seconds": [c.seconds for c in completions],
    }


def _completions(m: Fields, ordered: int) -> list[Completion]:
    """Rows out of the columns; a completion is as long as the runs of its versions say."""
    texts, versions = m.items("texts", MAX_COMPLETIONS), m.items("versions", MAX_COMPLETIONS)
    finish, seconds = m.items("finish", MAX_COMPLETIONS), m.items("seconds", MAX_COMPLETIONS)
    ids, logprobs = m.array("ids", "<i4", MAX_GROUP_TOKENS), m.array("logprobs", "<f4", MAX_GROUP_TOKENS)
    if not ordered == len(texts) == len(versions) == len(finish) == len(seconds):
        raise SchemaError(f"{m.where}: {ordered} ordered, {len(texts)} texts, {len(versions)} lists of versions")
    if not all([type(text) is str and len(text) <= MAX_TEXT_CHARS for text in texts]):
        raise SchemaError(f"{m.where}.texts holds something that is no text of {MAX_TEXT_CHARS:,} characters")
    if not all([reason in FINISH_REASONS for reason in finish]):
        raise SchemaError(f"{m.where}.finish = {finish!r:.80} holds one not of {', '.join(FINISH_REASONS)}")
    if not all([type(second) in (int, float) and math.isfinite(second) for second in seconds]):
        raise SchemaError(f"{m.where}.seconds holds something that is not a finite number")
    if not np.isfinite(logprobs).all() or (ids < 0).any():
        raise SchemaError(f"{m.where} has a negative id or a log-probability that is not finite")
    rows, start = [], 0
    for text, runs, reason, second in zip(texts, versions, finish, seconds, strict=True):
        history = _versions(runs, m)
        tokens = sum([run[0] for run in history])
        if tokens > MAX_TOKENS:
            raise SchemaError(f"{m.where} has a completion of {tokens:,} tokens, the limit is {MAX_TOKENS:,}")
        end = start + tokens
        rows.append(Completion(text, ids[start:end], logprobs[start:end], history, reason, second))
        start = end
    if not start == len(ids) == len(logprobs):
        raise SchemaError(f"{m.where}: {len(ids)} ids, {len(logprobs)} log-probabilities, versions of {start} tokens")
    return rows


def _versions(runs: Any, m: Fields) -> list[tuple[int, int, int]]:
    if type(runs) is not list:
        raise SchemaError(f"{m.where}.versions holds {runs!r:.60}, not a list for each completion")
    for run in runs:
        if not (type(run) is list and [type(n) for n in run] == _THREE_COUNTS and min(run) >= 0 and run[0]):
            raise SchemaError(f"{m.where}.versions holds {run!r:.60}, not (tokens, incarnation, step)")
    return [(tokens, incarnation, step) for tokens, incarnation, step in runs]


def _scored(m: Fields) -> Scored:
    rollout = _rollout(m.inner("rollout"))
    statuses = m.items("statuses", MAX_COMPLETIONS)
    extracted = m.items("extracted", MAX_COMPLETIONS)
    rules = m.items("rules", MAX_COMPLETIONS)
    if not all(status in STATUSES for status in statuses):
        raise SchemaError(f"{m.where}.statuses holds an unknown status")
    if not all(e is None or (isinstance(e, str) and len(e) <= MAX_EXTRACTED_CHARS) for e in extracted):
        raise SchemaError(f"{m.where}.extracted holds something that is no short text")
    if not all(isinstance(rule, str) and len(rule) <= MAX_RULE_CHARS for rule in rules):
        raise SchemaError(f"{m.where}.rules holds something that is no name of a rule")
    scored = Scored(
        rollout=rollout,
        mode=m.text("mode", 64),
        statuses=statuses,
        extracted=extracted,
        rules=rules,
        reward_model=m.optional("reward_model", lambda key: m.text(key, MAX_NAME_CHARS)),
        rm_scores=m.optional("rm_scores", lambda key: m.array(key, "<f8")),
        r_hat=m.array("r_hat", "<f8"),
        weight=m.number("weight"),
        sigma_u=m.optional("sigma_u", m.number),
        sigma_bar=m.optional("sigma_bar", m.number),
        sigma_dev=m.optional("sigma_dev", m.number),
        scorer=m.text("scorer", 256),
        seconds=m.number("seconds"),
    )
    n = rollout.ticket.completions
    lengths = [len(statuses), len(extracted), len(rules), len(scored.r_hat)] + (
        [] if scored.rm_scores is None else [len(scored.rm_scores)]
    )
    if any(length != n for length in lengths):
        raise SchemaError(f"ticket {rollout.ticket.id}: {n} completions but scores of lengths {lengths}")
    if not (scored.weight > 0 and float(np.abs(scored.r_hat).max()) * max(scored.weight, 1.0) <= MAX_REWARD):  # nor NaN
        raise SchemaError(f"ticket {rollout.ticket.id} has weight {scored.weight}, or a reward over {MAX_REWARD:g}")
    if scored.rm_scores is not None and np.isinf(scored.rm_scores).any():
        raise SchemaError(f"ticket {rollout.ticket.id} has a score that is not finite")
    return scored


def _policy(m: Fields) -> Policy:
    policy = Policy(
        incarnation=m.count("incarnation"),
        step=m.count("step"),
        manifest=_manifest(m.inner("manifest")),
        folder=m.text("folder", MAX_FOLDER_CHARS),
        frozen=m.optional("frozen", lambda key: _frozen(m.inner(key))),
        check_ids=m.arrays("check_ids", "<i4", 64),
        check_logprobs=m.arrays("check_logprobs", "<f4", 64),
    )
    pairs = zip(policy.check_ids, policy.check_logprobs, strict=False)
    if len(policy.check_ids) != len(policy.check_logprobs) or any(len(i) != len(p) + 1 for i, p in pairs):
        raise SchemaError("policy: check sequences and log-probabilities do not fit")
    return policy


def _manifest(m: Fields) -> Manifest:
    names, dtypes, shapes = (m.items(key, MAX_TENSORS) for key in ("names", "dtypes", "shapes"))
    checksums = m.raw("checksums")
    if not 0 < len(names) == len(dtypes) == len(shapes) or len(checksums) != CHECKSUM_BYTES * len(names):
        raise SchemaError(f"{m.where}: {len(names)} names, {len(dtypes)} dtypes, {len(shapes)} shapes, or no checksums")
    if not all(isinstance(name, str) and len(name) <= MAX_NAME_CHARS and name != "__metadata__" for name in names):
        raise SchemaError(f"{m.where}.names holds something that is no name")
    if len({*names}) < len(names):
        raise SchemaError(f"{m.where}.names holds one twice")
    if not all(isinstance(dtype, str) and dtype in ITEM_BYTES for dtype in dtypes):
        raise SchemaError(f"{m.where}.dtypes holds one not of {', '.join(ITEM_BYTES)}")
    if not all(type(shape) is list and len(shape) <= MAX_DIMENSIONS for shape in shapes):
        raise SchemaError(f"{m.where}.shapes holds something that is no shape")
    if not all(type(size) is int and 0 <= size < 2**31 for shape in shapes for size in shape):
        raise SchemaError(f"{m.where}.shapes holds something that is no size")
    layout = Layout.of((name, dtype, tuple(shape)) for name, dtype, shape in zip(names, dtypes, shapes, strict=True))
    if layout.data_bytes > MAX_POLICY_BYTES:
        raise SchemaError(f"{m.where} has {layout.data_bytes:,} bytes, the limit is {MAX_POLICY_BYTES:,}")
    return Manifest(
        layout, tuple(checksums[at : at + CHECKSUM_BYTES] for at in range(0, len(checksums), CHECKSUM_BYTES))
    )


def _frozen(m: Fields) -> Frozen:
    return Frozen(_manifest(m.inner("manifest")), m.text("folder", MAX_FOLDER_CHARS), m.number("scale"))


def _carried(m: Fields) -> Carried:
    policy = _policy(m.inner("policy"))
    parts = [_part(Fields(part, f"{m.where}.parts")) for part in m.items("parts", MAX_PARTS)]
    frozen = m.optional("frozen", lambda key: _part(m.inner(key)))
    if (frozen is None) != (policy.frozen is None):
        raise SchemaError(f"{m.where}: frozen weights without a part, or the other way round")
    return Carried(policy, parts, frozen)


def _part(m: Fields) -> Part:
    counts = (m.count("step"), m.optional("base", m.count), m.count("chunks"), m.count("bytes"))
    return Part(*counts, frozen=m.optional("frozen", m.flag) or False)


def _ring(m: Fields) -> Ring:
    device, members = m.text("device", 8), m.items("members", MAX_MEMBERS)
    if device not in ("cpu", "cuda"):
        raise SchemaError(f"{m.where}.device = {device!r} is neither cpu nor cuda")
    if not all(isinstance(member, str) and len(member) <= MAX_NAME_CHARS for member in members):
        raise SchemaError(f"{m.where}.members holds something that is no name")
    return Ring(
        m.count("generation"), m.text("address", MAX_NAME_CHARS), "cuda" if device == "cuda" else "cpu", members
    )


def _dead(m: Fields) -> DeadLetter:
    return DeadLetter(
        stage=m.text("stage", 32),
        id=m.optional("id", m.count),
        attempt=m.optional("attempt", m.count),
        reason=m.text("reason"),
        traceback=m.text("traceback"),
        origin=m.text("origin", 256),
        body=m.raw("body"),
    )


_READERS: dict[str, Callable[[Fields], Message]] = {
    "ticket": _ticket,
    "rollout": _rollout,
    "scored": _scored,
    "policy": _policy,
    "carried": _carried,
    "ring": _ring,
    "dead": _dead,
}
