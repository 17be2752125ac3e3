"""Bytes on the wire in closed form, and where fewer of them are sent than by an all-reduce."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cluster.collective_algorithms import ring_seconds
from simulator.program.codecs.block_int8 import BlockInt8
from simulator.program.codecs.codec import Codec, Encoding, Values
from simulator.program.codecs.table import CODECS
from simulator.program.operations import Op

FP32 = 4
KEYS: dict[str, dict[str, Any]] = {
    "top-k": {"density": 0.01},
    "qsgd": {"levels": 7},
    "power-sgd": {"compression_rank": 2},
}


def codec(name: str, **keys: Any) -> Codec:
    return CODECS[name](**KEYS.get(name, {}) | keys)


def received(of: Codec, values: Values, ranks: int) -> float:
    """Bytes that a rank receives, in a ring."""
    total = 0.0
    for sent in (sent for of_round in of.rounds(values) for sent in of_round):
        op = Op.ALL_REDUCE if sent.is_summed else Op.ALL_GATHER
        whole = sent.nbytes * (1 if sent.is_summed else ranks)
        total += ring_seconds(op, ranks, whole, 0.0, 1.0)
    return total


def dense(values: Values, ranks: int) -> float:
    return ring_seconds(Op.ALL_REDUCE, ranks, values.nbytes, 0.0, 1.0)


@given(st.integers(2, 64), st.integers(1, 1 << 16))
def test_bytes_that_a_rank_receives(ranks: int, count: int) -> None:
    values = Values(count, FP32)
    others = ranks - 1
    for name in ("fp16", "bf16"):
        assert received(codec(name), values, ranks) == pytest.approx(dense(values, ranks) / 2)
    assert received(codec("int8"), values, ranks) == pytest.approx(others * (count + 8))
    blocks = -(-count // 2048)
    assert received(BlockInt8(), values, ranks) == pytest.approx(others * (count + 4 * blocks))
    signs = -(-count // 8)
    assert received(codec("one-bit"), values, ranks) == pytest.approx(others * (signs + 4))
    groups = -(-count // 512)
    for levels, bits in ((1, 2), (7, 4), (8, 8), (127, 8)):
        sent = received(codec("qsgd", levels=levels), values, ranks)
        assert sent == pytest.approx(others * groups * (64 * bits + 4))
    kept = max(1, -(-count // 4))
    assert received(codec("top-k", density=0.25), values, ranks) == pytest.approx(others * 8 * kept)


@given(st.integers(2, 32), st.integers(1, 200))
def test_the_largest_values_are_fewer_bytes_only_below_a_density_of_one_nth(
    ranks: int, hundredths: int
) -> None:
    count = 100 * ranks
    values = Values(count, FP32)
    density = min(hundredths / (100 * ranks), 1.0)
    kept = codec("top-k", density=density).kept(values)  # type: ignore[attr-defined]
    sent = received(codec("top-k", density=density), values, ranks)
    assert (sent < dense(values, ranks) - 1e-6) == (kept * ranks < count)


def test_integers_are_fewer_bytes_only_for_less_than_eight_ranks() -> None:
    """And less than four of what a cast sends."""
    values = Values(1 << 20, FP32)
    less = [n for n in range(2, 20) if received(codec("int8"), values, n) < dense(values, n)]
    assert less == [2, 3, 4, 5, 6, 7]
    cast = [n for n in range(2, 20) if received(codec("int8"), values, n) < dense(values, n) / 2]
    assert cast == [2, 3]
    signs = [n for n in range(2, 99) if received(codec("one-bit"), values, n) < dense(values, n)]
    assert signs == list(range(2, 64))


@pytest.mark.parametrize("name", CODECS)
def test_errors_take_the_memory_of_gradients_and_more_work(name: str) -> None:
    values = Values(1000, FP32, ((20, 50),))
    plain, fed = Encoding(codec(name), FP32), Encoding(codec(name), FP32, feeds_back=True)
    assert fed.kept_bytes(values) - plain.kept_bytes(values) == values.nbytes
    work = [of.encoding(values).nbytes + of.decoding(values, 2).nbytes for of in (plain, fed)]
    assert work[1] >= work[0] + 3 * values.nbytes
    for rounds in (plain.codec.rounds(values),):
        assert all(sent.nbytes > 0 for of_round in rounds for sent in of_round)


SIDES = st.tuples(st.integers(1, 300), st.integers(1, 300))


@given(st.lists(SIDES, min_size=1, max_size=5), st.integers(1, 8), st.integers(2, 9))
def test_factors_are_sent_where_they_are_less_than_half_as_large(
    sides: list[tuple[int, int]], rank: int, ranks: int
) -> None:
    """Bytes are r(rows + columns)w, FLOPs of the products 6 · rows · columns · r."""
    vector = (7,)
    values = Values(sum(a * b for a, b in sides) + 7, FP32, (*sides, vector))
    of = codec("power-sgd", compression_rank=rank)
    sent, flops = 7, 0
    for a, b in sides:
        r = min(a, b, rank)
        small = 2 * r * (a + b) < a * b
        sent += r * (a + b) if small else a * b
        flops += 6 * a * b * r if small else 0
    assert received(of, values, ranks) == pytest.approx(2 * (ranks - 1) / ranks * FP32 * sent)
    works = [of.encoding(values, n) for n in range(len(of.rounds(values)))]
    products = [p for work in (*works, of.decoding(values, ranks)) for p in work.products]
    assert sum(2 * m * n * k for m, n, k in products) == flops
