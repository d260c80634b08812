"""What changed comes back bit for bit, is small where little did, and damage is an error and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import WeightsError
from common.weights import chunks, delta
from common.weights.chunks import PIECE_BYTES, apply, changes, whole
from common.weights.delta import Method
from common.weights.manifest import ITEM_BYTES, Bytes, Layout


def layouts(most: int) -> st.SearchStrategy[Layout]:
    """Up to five tensors of any dtype, scalars and empty ones among them."""
    shapes = st.lists(st.integers(0, most), max_size=2).map(tuple)
    tensors = st.lists(st.tuples(st.sampled_from(sorted(ITEM_BYTES)), shapes), min_size=1, max_size=5)
    return tensors.map(lambda found: Layout.of((f"t{i}", dtype, shape) for i, (dtype, shape) in enumerate(found)))


def random_tensors(layout: Layout, random: np.random.Generator) -> list[Bytes]:
    return [random.integers(0, 256, tensor.nbytes, np.uint8) for tensor in layout.tensors]


def changed(tensors: Sequence[Bytes], share: float, random: np.random.Generator) -> list[Bytes]:
    """A step's like: this share of the bytes is another."""
    found = [tensor.copy() for tensor in tensors]
    for tensor in found:
        places = random.random(len(tensor)) < share
        tensor[places] += random.integers(1, 256, int(places.sum())).astype(np.uint8)
    return found


@given(layouts(40), st.sampled_from([0.0, 0.01, 0.3, 1.0]), st.integers(0, 2**32), st.sampled_from([64, 1000, 2**22]))
@settings(max_examples=200, deadline=None)
def test_a_chain_of_changes_makes_every_version_again(layout: Layout, share: float, seed: int, piece: int) -> None:
    random = np.random.default_rng(seed)
    versions = [random_tensors(layout, random)]
    for _ in range(3):
        versions.append(changed(versions[-1], share, random))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "PIECE_BYTES", piece)
        tensors = [np.zeros_like(tensor) for tensor in versions[0]]
        for number, chunk in enumerate(whole(layout, versions[0])):
            apply(chunk, number, layout, tensors)
        for old, new in itertools.pairwise(versions):
            for number, chunk in enumerate(changes(layout, old, new)):
                apply(chunk, number, layout, tensors)
            assert [t.tobytes() for t in tensors] == [t.tobytes() for t in new]


@pytest.mark.parametrize("item_bytes", [1, 2, 4, 8])
@pytest.mark.parametrize("share", [0.0001, 0.1, 0.9])
def test_a_piece_comes_back(item_bytes: int, share: float) -> None:
    random = np.random.default_rng(1)
    old = random.integers(0, 256, 80_000, np.uint8)
    [new] = changed([old], share, random)
    found = delta.encode(old, new, item_bytes)
    assert found and np.array_equal(delta.decode(*found, old, item_bytes), new)
    assert delta.encode(old, old, item_bytes) is None


def test_extremes_of_a_difference_come_back() -> None:
    ends = np.array([0, 1, 0x7FFF, 0x8000, 0xFFFF], np.uint16)
    old, new = (np.ascontiguousarray(side).ravel().view(np.uint8) for side in np.meshgrid(ends, ends))
    found = delta.encode(old, new, 2)
    assert found and np.array_equal(delta.decode(*found, old, 2), new)


def bfloat16_steps(lr: float, values: int = 1_000_000) -> tuple[Bytes, Bytes]:
    """Weights of a usual size before and after a step of about `lr` each, in bfloat16 by truncation."""
    random = np.random.default_rng(0)
    weights = random.normal(0, 0.03, values).astype(np.float32)
    moved = weights + random.normal(0, lr, values).astype(np.float32)
    before, after = (np.ascontiguousarray(w.view(np.uint16)[1::2]).view(np.uint8) for w in (weights, moved))
    return before, after


@pytest.mark.parametrize(("lr", "most"), [(1e-6, 0.02), (1e-5, 0.09), (1e-4, 0.3)])
def test_an_optimizer_step_takes_few_bytes(lr: float, most: float) -> None:
    old, new = bfloat16_steps(lr)
    layout = Layout.of([("w", "BF16", (len(old) // 2,))])
    assert sum(map(len, changes(layout, [old], [new]))) < most * len(new)


def test_chunks_are_bounded_and_hold_whole_pieces() -> None:
    layout = Layout.of([("large", "BF16", (5_000_001,)), *((f"norm{i}", "BF16", (576,)) for i in range(60))])
    tensors = random_tensors(layout, np.random.default_rng(0))
    made = list(whole(layout, tensors))
    assert len(made) == 3 and max(map(len, made)) <= PIECE_BYTES + 100
    again = [np.zeros_like(tensor) for tensor in tensors]
    for number in (2, 0, 1):  # in any order
        apply(made[number], number, layout, again)
    assert [t.tobytes() for t in again] == [t.tobytes() for t in tensors]


SMALL = Layout.of([("a", "BF16", (1000,)), ("b", "F32", (10,))])


def one_chunk() -> tuple[bytes, list[Bytes]]:
    random = np.random.default_rng(0)
    old = random_tensors(SMALL, random)
    [chunk] = changes(SMALL, old, changed(old, 0.05, random))
    return chunk, old


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_chunk_is_an_error_and_nothing_else(data: st.DataObject) -> None:
    chunk, old = one_chunk()
    at = data.draw(st.integers(0, len(chunk) - 1))
    damaged = data.draw(
        st.sampled_from(
            [
                chunk[:at],
                chunk[:at] + bytes([chunk[at] ^ data.draw(st.integers(1, 255))]) + chunk[at + 1 :],
                chunk + b"x",
            ]
        )
    )
    with pytest.raises(WeightsError):
        apply(damaged, 0, SMALL, old)


def test_a_chunk_in_anothers_place_is_refused() -> None:
    chunk, old = one_chunk()
    with pytest.raises(WeightsError, match=r"damaged or another one \(0\)"):
        apply(chunk, 1, SMALL, old)


@given(st.integers(0, 9), st.binary(max_size=60), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_hostile_records_behind_a_right_checksum(method: int, body: bytes, tensor: int, piece: int) -> None:
    """Who may write to the broker can also write checksums."""
    chunk = chunks._chunk(0, [chunks._RECORD.pack(tensor, piece, method, len(body)), body])
    tensors = [np.zeros(t.nbytes, np.uint8) for t in SMALL.tensors]
    try:
        apply(chunk, 0, SMALL, tensors)
    except WeightsError:
        pass
    assert [len(t) for t in tensors] == [2000, 40]


def sparse(changed: int, long: int, body: bytes) -> bytes:
    return delta._COUNTS.pack(changed, long) + zstandard.ZstdCompressor().compress(body)


@pytest.mark.parametrize(
    ("method", "written", "why"),
    [
        (Method.RAW, b"xy", "another length"),
        (Method.DENSE, zstandard.ZstdCompressor().compress(bytes(10**7)), "10000000 bytes where 20 are expected"),
        (Method.DENSE, b"xyz", "damaged"),
        (Method.SPARSE, b"xyz", "without its counts"),
        (Method.SPARSE, sparse(11, 0, bytes(33)), "11 changes and 0 long gaps among 10 values"),
        (Method.SPARSE, sparse(1, 0, b"\xff\x00\x00"), "not as many"),
        (Method.SPARSE, sparse(1, 0, b"\x0a\x00\x00"), "beyond the end"),
        (Method.SPARSE, sparse(1, 1, b"\xff\xff\xff\xff\xff\x00\x00"), "beyond the end"),
        (7, b"", "method 7"),
    ],
)
def test_what_no_encoder_wrote(method: int, written: bytes, why: str) -> None:
    with pytest.raises(WeightsError, match=why):
        delta.decode(method, written, np.zeros(20, np.uint8), 2)
