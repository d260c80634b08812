"""The wire: what is packed comes back the same; what is hostile gives SchemaError and nothing else."""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common import schema
from common.errors import SchemaError
from common.lanes import LANES
from common.schema import (
    Carried,
    Completion,
    DeadLetter,
    Message,
    Part,
    Policy,
    Ring,
    Rollout,
    Scored,
    Ticket,
    pack,
    unpack,
)
from common.weights.manifest import ITEM_BYTES, Layout, Manifest
from tests import make

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
counts = st.integers(0, 2**53)
seconds = st.floats(0, 1e6)
reals = st.floats(allow_nan=False, allow_infinity=False)


def vectors(dtype: str, elements: st.SearchStrategy[Any], low: int = 0, high: int = 8) -> st.SearchStrategy[Any]:
    return hnp.arrays(dtype, st.integers(low, high), elements=elements)


ids = vectors("<i4", st.integers(0, 2**31 - 1))
logprobs32 = st.floats(-1e9, 0, width=32)


@st.composite
def tickets(draw: st.DrawFn) -> Ticket:
    lane = draw(st.sampled_from(LANES))
    return Ticket(
        run=draw(texts),
        lane=lane,
        id=draw(counts),
        attempt=draw(st.integers(1, 9)),
        question=draw(texts),
        gold=draw(texts),
        meta=draw(st.dictionaries(texts, texts, max_size=3)),
        prompt_ids=draw(vectors("<i4", st.integers(0, 2**31 - 1), low=1)),
        completions=draw(st.integers(1, 4)),
        temperature=draw(st.floats(0.01, 10)),
        top_p=1.0 if lane == "train" else draw(st.floats(0, 1, exclude_min=True)),
        max_tokens=draw(st.integers(1, schema.MAX_TOKENS)),
        incarnation=draw(counts),
        step=draw(counts),
    )


@st.composite
def completions(draw: st.DrawFn) -> Completion:
    runs = draw(st.lists(st.tuples(st.integers(1, 5), counts, counts), max_size=3))
    length = sum(run[0] for run in runs)
    return Completion(
        text=draw(texts),
        ids=draw(vectors("<i4", st.integers(0, 2**31 - 1), length, length)),
        logprobs=draw(vectors("<f4", logprobs32, length, length)),
        versions=runs,
        finish=draw(st.sampled_from(schema.FINISH_REASONS)),
        seconds=draw(seconds),
    )


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    ticket = draw(tickets())
    group = [draw(completions()) for _ in range(ticket.completions)]
    return Rollout(ticket, group, actor=draw(texts), seconds=draw(seconds))


@st.composite
def scored(draw: st.DrawFn) -> Scored:
    rollout = draw(rollouts())
    n = rollout.ticket.completions
    return Scored(
        rollout=rollout,
        mode=draw(texts),
        statuses=draw(st.lists(st.sampled_from(schema.STATUSES), min_size=n, max_size=n)),
        extracted=draw(st.lists(st.none() | texts, min_size=n, max_size=n)),
        rules=draw(st.lists(st.sampled_from(["", "same number"]), min_size=n, max_size=n)),
        reward_model=draw(st.none() | texts),
        rm_scores=draw(st.none() | vectors("<f8", reals | st.just(float("nan")), n, n)),
        r_hat=draw(vectors("<f8", st.floats(-1e4, 1e4), n, n)),
        weight=draw(st.floats(1e-3, 1e4)),
        sigma_u=draw(st.none() | reals),
        sigma_bar=draw(st.none() | reals),
        sigma_dev=draw(st.none() | reals),
        scorer=draw(texts),
        seconds=draw(seconds),
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    names = draw(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4, unique=True))
    shapes = st.lists(st.integers(0, 9), max_size=3).map(tuple)
    layout = Layout.of((name, draw(st.sampled_from(sorted(ITEM_BYTES))), draw(shapes)) for name in names)
    return Manifest(layout, tuple(draw(st.binary(min_size=16, max_size=16)) for _ in names))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    sequences = draw(st.lists(vectors("<i4", st.integers(0, 9), low=1), max_size=3))
    return Policy(
        incarnation=draw(counts),
        step=draw(counts),
        manifest=draw(manifests()),
        folder=draw(texts),
        check_ids=sequences,
        check_logprobs=[draw(vectors("<f4", logprobs32, len(s) - 1, len(s) - 1)) for s in sequences],
    )


parts = st.builds(Part, step=counts, base=st.none() | counts, chunks=counts, bytes=counts)
carried = st.builds(Carried, policy=policies(), parts=st.lists(parts, max_size=4))
rings = st.builds(
    Ring, generation=counts, address=texts, device=st.sampled_from(["cpu", "cuda"]), members=st.lists(texts, max_size=4)
)
letters = st.builds(
    DeadLetter,
    stage=texts,
    id=st.none() | counts,
    attempt=st.none() | counts,
    reason=texts,
    traceback=texts,
    origin=texts,
    body=st.binary(max_size=50),
)
messages: st.SearchStrategy[Message] = st.one_of(tickets(), rollouts(), scored(), policies(), carried, rings, letters)


def plain(value: Any) -> Any:
    """A message as nested tuples that compare exactly: arrays by dtype and bytes."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if dataclasses.is_dataclass(value):
        return (type(value).__name__, *(plain(getattr(value, f.name)) for f in dataclasses.fields(value)))
    if isinstance(value, list | tuple):
        return tuple(map(plain, value))
    return value


@given(messages)
@settings(max_examples=150, deadline=None)
def test_every_message_comes_back_as_it_went(message: Message) -> None:
    assert plain(unpack(pack(message))) == plain(message)


SAMPLES: list[Message] = [
    make.ticket(),
    make.ticket(lane="eval", top_p=0.95),
    make.rollout(make.ticket()),
    make.scored(make.rollout(make.ticket())),
    make.policy(1, 2, check_ids=[np.arange(3, dtype=np.int32)], check_logprobs=[np.zeros(2, np.float32)]),
    Carried(make.policy(1, 2), [Part(1, None, 3, 9000), Part(2, 1, 1, 70)]),
    Ring(3, "10.0.0.1:41877", "cuda", ["actor-1"]),
    DeadLetter("rollouts", 3, 1, "why", "trace", "scorer-1", b"\x00body"),
]
POLICY, CARRIED, RING, LETTER = SAMPLES[-4:]
by_kind = pytest.mark.parametrize("message", SAMPLES, ids=lambda m: m.KIND)


@by_kind
def test_cut_off_at_any_length_it_is_refused(message: Message) -> None:
    data = pack(message)
    for length in range(len(data)):
        with pytest.raises(SchemaError):
            unpack(data[:length])
    with pytest.raises(SchemaError):
        unpack(data + b"\x00")


@by_kind
def test_every_flipped_bit_is_found(message: Message) -> None:
    data = pack(message)
    for position in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[position] ^= 1 << bit
            with pytest.raises(SchemaError):
                unpack(bytes(broken))


OURS, OLDEST = schema.WIRE_VERSION, schema.OLDEST_WIRE


def sealed(rest: Any, version: int = schema.WIRE_VERSION, magic: bytes = b"HERO") -> bytes:
    """Bytes with a head that fits, whatever follows it."""
    body: bytes = rest if isinstance(rest, bytes) else msgpack.packb(rest)
    return magic + struct.pack("<BI", version, zlib.crc32(body)) + body


def opened(message: Message) -> Any:
    """What follows the head of a message."""
    return msgpack.unpackb(pack(message)[9:])


@by_kind
def test_a_flipped_bit_under_a_checksum_that_fits_gives_a_message_or_a_schema_error(message: Message) -> None:
    data = pack(message)[9:]
    assert unpack(sealed(data)).KIND == message.KIND
    refused = 0
    for position in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[position] ^= 1 << bit
            try:
                again = unpack(sealed(bytes(broken)))
            except SchemaError:
                refused += 1
            else:
                assert isinstance(again, type(message)), "a flipped bit must not change the kind"
                unpack(pack(again))
    assert refused > 0


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(SchemaError):
        unpack(data)


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value of a nested message is, the message itself left out."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [here] if here else []
    for key, item in inner:
        found += paths(item, (*here, key))
    return found


@given(st.data())
@settings(max_examples=600, deadline=None)
def test_a_value_of_any_other_type_gives_a_message_or_a_schema_error(data: st.DataObject) -> None:
    outer = opened(data.draw(st.sampled_from(SAMPLES)))
    path = data.draw(st.sampled_from(paths(outer)))
    holder = outer
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = data.draw(junk)
    try:
        unpack(sealed(outer))
    except SchemaError:
        pass


def changed(message: Message, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The bytes of a message after `change` was let loose on its body."""
    outer = opened(message)
    change(outer["b"])
    return sealed(outer)


def tensor(values: Any, dtype: str) -> dict[str, Any]:
    array = np.asarray(values, dtype)
    return {"d": dtype, "s": [len(array)], "t": array.tobytes()}


def columns(**new: Any) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["completions"].update(new)


TICKET = make.ticket()
EVAL = make.ticket(lane="eval", top_p=0.95)
ROLLOUT = make.rollout(TICKET)
SCORED = make.scored(ROLLOUT)


@pytest.mark.parametrize(
    ("message", "change", "says"),
    [
        (TICKET, lambda b: b.update(id=-1), "id = -1 is outside"),
        (TICKET, lambda b: b.update(id=True), "id is bool"),
        (TICKET, lambda b: b.update(attempt=0), "attempt = 0"),
        (TICKET, lambda b: b.update(completions=0), "completions = 0"),
        (TICKET, lambda b: b.update(completions=schema.MAX_COMPLETIONS + 1), "completions = 1025"),
        (TICKET, lambda b: b.update(max_tokens=schema.MAX_TOKENS + 1), "max_tokens"),
        (TICKET, lambda b: b.update(temperature=float("nan")), "temperature = nan is not finite"),
        (TICKET, lambda b: b.update(temperature=0.0), "temperature 0"),
        (TICKET, lambda b: b.update(run="r" * 129), "run has 129 characters"),
        (TICKET, lambda b: b.update(meta={str(i): "" for i in range(33)}), "meta has 33 items"),
        (TICKET, lambda b: b.update(meta={"a": 1}), "not a map of strings"),
        (TICKET, lambda b: b.update(prompt_ids=tensor([], "<i4")), "no prompt"),
        (TICKET, lambda b: b.update(prompt_ids=tensor([1.0], "<f4")), "dtype '<f4', expected <i4"),
        (TICKET, lambda b: b.update(prompt_ids=tensor([1], "<i4") | {"s": [2**40]}), "does not fit"),
        (TICKET, lambda b: b.update(prompt_ids=tensor([1], "<i4") | {"s": [1, 1]}), "does not fit"),
        (TICKET, lambda b: b.update(prompt_ids=tensor([1], "<i4") | {"t": b"\x00" * 5}), "does not fit"),
        (TICKET, lambda b: b.pop("gold"), "gold is NoneType"),
        (TICKET, lambda b: b.pop("lane"), "lane is NoneType"),
        (TICKET, lambda b: b.update(lane="test"), "lane = 'test' is none of train, eval"),
        (TICKET, lambda b: b.update(lane="eval:tickets"), "lane has 12 characters, the limit is 8"),
        (TICKET, lambda b: b.update(lane=["eval"]), "lane is list"),
        (TICKET, lambda b: b.pop("top_p"), "top_p is NoneType"),
        (TICKET, lambda b: b.update(top_p=0.95), "of train has top_p 0.95; training takes 1 alone"),
        (EVAL, lambda b: b.update(lane="train"), "of train has top_p 0.95; training takes 1 alone"),
        (EVAL, lambda b: b.update(top_p=0.0), "of eval has top_p 0.0"),
        (EVAL, lambda b: b.update(top_p=-0.5), "of eval has top_p -0.5"),
        (EVAL, lambda b: b.update(top_p=1.0000001), "of eval has top_p 1.0000001"),
        (EVAL, lambda b: b.update(top_p=float("nan")), "top_p = nan is not finite"),
        (EVAL, lambda b: b.update(top_p=True), "top_p is bool"),
        (EVAL, lambda b: b.update(top_p="0.5"), "top_p is str"),
        (ROLLOUT, lambda b: b["completions"]["texts"].pop(), "2 ordered, 1 texts"),
        (ROLLOUT, lambda b: b["completions"]["finish"].pop(), "2 ordered, 2 texts"),
        (ROLLOUT, lambda b: b.update(completions=[]), "completions is not a map"),
        (ROLLOUT, lambda b: b["ticket"].update(completions=3), "3 ordered, 2 texts"),
        (ROLLOUT, columns(texts=["a", 1]), "no text"),
        (ROLLOUT, columns(texts=["a", "x" * (schema.MAX_TEXT_CHARS + 1)]), "no text"),
        (ROLLOUT, columns(finish=["stop", "tired"]), "'tired'"),
        (ROLLOUT, columns(seconds=[0.1, float("inf")]), "not a finite number"),
        (ROLLOUT, columns(seconds=[0.1, True]), "not a finite number"),
        (ROLLOUT, columns(versions=[[[4, 1, 0]], []]), "8 ids, 8 log-probabilities, versions of 4"),
        (ROLLOUT, columns(versions=[[[4, 1, 0]], [[5, 1, 0]]]), "versions of 9"),
        (ROLLOUT, columns(versions=[[[4, 1, 0]], None]), "not a list for each completion"),
        (ROLLOUT, columns(versions=[[[4, 1, 0]], [[4, 1, 0], [0, 1, 0]]]), "not (tokens, incarnation, step)"),
        (ROLLOUT, columns(versions=[[[4, 1, 0]], [[5, 1, 0], [-1, 1, 0]]]), "not (tokens, incarnation, step)"),
        (ROLLOUT, columns(logprobs=tensor([0] * 7 + [np.nan], "<f4")), "not finite"),
        (ROLLOUT, columns(logprobs=tensor([0] * 7, "<f4")), "7 log-probabilities"),
        (ROLLOUT, columns(ids=tensor([0] * 7 + [-3], "<i4")), "negative id"),
        (SCORED, lambda b: b.update(statuses=["correct"]), "lengths [1, 2, 2, 2, 2]"),
        (SCORED, lambda b: b.update(statuses=["correct", "great"]), "unknown status"),
        (SCORED, lambda b: b.update(statuses=["correct", ["wrong"]]), "unknown status"),
        (SCORED, lambda b: b.update(extracted=["2", "x" * 4097]), "no short text"),
        (SCORED, lambda b: b.update(rules=["", "x" * 65]), "no name of a rule"),
        (SCORED, lambda b: b.update(reward_model="x" * 513), "reward_model"),
        (SCORED, lambda b: b.update(r_hat=tensor([0, np.nan], "<f8")), "a reward over 1e+09"),
        (SCORED, lambda b: b.update(r_hat=tensor([0, -1e300], "<f8")), "a reward over 1e+09"),
        (SCORED, lambda b: b.update(rm_scores=tensor([0, np.inf], "<f8")), "a score that is not finite"),
        (SCORED, lambda b: b.update(weight=float("inf")), "weight = inf"),
        (SCORED, lambda b: b.update(weight=0.0), "has weight 0.0"),
        (SCORED, lambda b: b.update(weight=-1), "has weight -1"),
        (SCORED, lambda b: b.update(weight=1e300), "a reward over 1e+09"),
        (SCORED, lambda b: b.update(rollout=None), "scored.rollout is not a map"),
        (POLICY, lambda b: b.update(check_logprobs=[]), "do not fit"),
        (POLICY, lambda b: b["manifest"].update(names=[]), "0 names, 1 dtypes"),
        (POLICY, lambda b: b["manifest"].update(names=[7]), "no name"),
        (POLICY, lambda b: b["manifest"].update(names=["__metadata__"]), "no name"),
        (POLICY, lambda b: b["manifest"].update(dtypes=["F7"]), "not of F64"),
        (POLICY, lambda b: b["manifest"].update(shapes=[3]), "no shape"),
        (POLICY, lambda b: b["manifest"].update(shapes=[[-1]]), "no size"),
        (POLICY, lambda b: b["manifest"].update(shapes=[[2**31 - 1, 2**31 - 1]]), "the limit is"),
        (POLICY, lambda b: b["manifest"].update(checksums=b""), "no checksums"),
        (CARRIED, lambda b: b["parts"][0].update(chunks=-1), "outside"),
        (CARRIED, lambda b: b.update(parts=[3]), "not a map"),
        (RING, lambda b: b.update(device="tpu"), "neither cpu nor cuda"),
        (RING, lambda b: b.update(members=[3]), "no name"),
        (POLICY, lambda b: b.update(check_logprobs=[tensor([0] * 3, "<f4")]), "do not fit"),
        (LETTER, lambda b: b.update(body="text"), "body is str"),
    ],
)
def test_what_cannot_be_is_refused_with_what_is_wrong(message: Message, change: Any, says: str) -> None:
    with pytest.raises(SchemaError) as caught:
        unpack(changed(message, change))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (sealed({}, version=OLDEST - 1), f"wire version {OLDEST - 1}, this process reads {OLDEST} and later"),
        (sealed({}, version=OURS + 1), f"wire version {OURS + 1}, this process reads up to {OURS}; upgrade it"),
        (sealed({"k": "ticket", "b": {}}, magic=b"ZERO"), "it has no head"),
        (msgpack.packb({"v": 2, "k": "ticket", "b": {}}), "it has no head"),
        (b"HERO" + bytes([OURS]), "it has no head"),
        (b"HERO" + bytes([OURS]) + bytes(9), "damaged on its way"),
        (sealed({"k": "pickle", "b": {}}), "unknown kind"),
        (sealed({"k": ["ticket"], "b": {}}), "unknown kind"),
        (sealed({"k": "completion", "b": {}}), "unknown kind"),
        (sealed({"k": "ticket", "b": []}), "ticket is not a map"),
        (sealed({"k": "ticket"}), "no kind and body"),
        (sealed({"k": "ticket", "b": {}, "x": 0}), "no kind and body"),
        (sealed({1: 2}), "not a message of ours"),
        (sealed(b""), "not a message of ours"),
        (sealed(b"\xdd\xff\xff\xff\xff"), "not a message of ours"),  # an array that claims 4 billion items
        (sealed(b"\xc6\xff\xff\xff\xff"), "not a message of ours"),  # bytes that claim 4 GiB
        (sealed(b"\xdf\xff\xff\xff\xff"), "not a message of ours"),  # a map that claims 4 billion items
        (sealed(b"\x91" * 100_000), "not a message of ours"),  # nested 100,000 deep
        (sealed(b"\x81\xa1v\xa2\xff\xfe"), "not a message of ours"),  # text that is no UTF-8
    ],
)
def test_a_foreign_envelope_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(SchemaError) as caught:
        unpack(data)
    assert says in str(caught.value)


@pytest.mark.parametrize("item", [b"\x80", b"\x90", b"\xc0", b"\xa2ab"])
def test_memory_stays_in_proportion(item: bytes) -> None:
    """8 MiB of empty maps would take 600 MiB, in one row or in rows of rows."""
    count = 2**23 // len(item)
    row = b"\xdc\xff\xff" + item * 0xFFFF
    for rest in (b"\xdd" + count.to_bytes(4, "big") + item * count, b"\xdc" + b"\x00\x80" + row * 128):
        data = sealed(rest)
        tracemalloc.start()
        try:
            with pytest.raises(SchemaError):
                unpack(data)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 64 * 2**20


def test_a_message_over_the_limit_is_neither_packed_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MAX_MESSAGE_BYTES", 600)
    fits = pack(make.ticket())
    assert isinstance(unpack(fits), Ticket)
    with pytest.raises(SchemaError, match=r"lower sampling\.completions"):
        pack(make.ticket(question="x" * 600))
    with pytest.raises(SchemaError, match="over the limit"):
        unpack(fits + b"\x00" * 600)


@pytest.mark.parametrize("field", ["question", "gold"])
def test_a_text_over_the_limit_is_refused(field: str) -> None:
    with pytest.raises(SchemaError, match=f"ticket.{field} has 4,194,305 characters, the limit is 4,194,304"):
        unpack(pack(make.ticket(**{field: "x" * (schema.MAX_TEXT_CHARS + 1)})))


@pytest.mark.parametrize("column", ["ids", "logprobs", "versions"])
def test_columns_of_other_lengths_are_not_packed(column: str) -> None:
    """Joined, a token too few in one row and a token too many in the next would shift every token between."""
    good = make.rollout(make.ticket()).completions[0]
    longer, shorter = {"versions": ([(5, 0, 0)], [(3, 0, 0)])}.get(
        column, (np.zeros(5, np.int32), np.zeros(3, np.int32))
    )
    rows = [dataclasses.replace(good, **{column: value}) for value in (longer, shorter)]
    with pytest.raises(SchemaError, match=r"ids, .* log-probabilities, versions"):
        pack(Rollout(make.ticket(), rows, "actor", 0.1))


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    assert unpack(pack(make.ticket(question="a\ud800b"))).question == "a?b"


def test_derived_values() -> None:
    group = make.scored(make.rollout(make.ticket(step=7), step=4))
    assert group.oldest_step == 4
    assert list(dataclasses.replace(group, weight=2.0).rewards) == pytest.approx([1.8, 2.2])
    assert make.scored(make.rollout(make.ticket(step=7), tokens=0)).oldest_step == 7, "no token: the ticket's step"
