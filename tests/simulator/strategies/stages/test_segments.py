"""Segments end where a bucket is full: against the rule, and by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.strategies.stages.segments import split_into_segments
from simulator.workloads.layer import Layer


def layer(parameters: int = 0) -> Layer:
    return Layer("x", shapes=((parameters,),), starts_block=True)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
    st.data(),
    st.sampled_from([0.5, 1, 3, 4, 7.5, 20, 1000]),
)
def test_buckets_cover_the_stage_and_are_full(sizes: list[int], data, bucket: float) -> None:
    layers = [layer(parameters=size) for size in sizes]
    first = data.draw(st.integers(0, len(sizes) - 1))
    last = data.draw(st.integers(first + 1, len(sizes)))
    segments, buckets = split_into_segments(layers, (first, last), 2, lambda axes: bucket)
    assert sum(part.parameters for part in buckets) == sum(sizes[first:last])
    assert segments[0][0] == first
    assert segments[-1][1] == last
    assert all(a[1] == b[0] for a, b in pairwise(segments))
    assert all(a < b for a, b in segments)
    held = [2 * sum(sizes[a:b]) for a, b in segments]
    assert all(nbytes >= bucket for nbytes in held[1:])
    assert held[0] > 0 or len(segments) == 1
    for (begin, _), nbytes in zip(segments[1:], held[1:], strict=True):
        assert nbytes - 2 * sizes[begin] < bucket  # closed as soon as it was full


@pytest.mark.parametrize(
    ("parameters", "bucket", "expected"),
    [
        ([4, 4, 4, 4], 16, [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ([4, 4, 4, 4], 17, [(0, 2), (2, 4)]),
        ([4, 4, 4], 32, [(0, 1), (1, 3)]),  # the first is what is left over
        ([0, 4, 4, 0], 16, [(0, 2), (2, 4)]),  # nothing to reduce is no bucket of its own
        ([4, 4, 4], 1e9, [(0, 3)]),
        ([0, 0], 1, [(0, 2)]),
    ],
)
def test_buckets_by_hand(
    parameters: list[int], bucket: float, expected: list[tuple[int, int]]
) -> None:
    layers = [layer(parameters=size) for size in parameters]
    assert split_into_segments(layers, (0, len(layers)), 4, lambda axes: bucket)[0] == expected
