"""Times of skipped periods, on a stream that repeats two instructions."""

from __future__ import annotations

import numpy as np

from simulator.program.skipped_periods import Skip, blocks, put_right


class OneStream:
    """Ten instructions on one stream, which is what is asked about repetitions."""

    first = np.array([0])
    order = np.arange(10)
    index = np.arange(10)
    stream = np.zeros(10, dtype=np.int64)


SKIP = Skip(np.array([4]), np.array([2]), 2, 3.0, np.array([1.0, 3, 4, 6, -1, -1, -1, -1, -1, -1]))


def test_a_block_has_a_row_for_every_period() -> None:
    ((source, target),) = blocks(SKIP, OneStream())
    assert source.tolist() == [2, 3]
    assert target.tolist() == [[4, 5], [6, 7]]


def test_skipped_instructions_are_periods_later_and_others_are_moved() -> None:
    end = [0.0, 0.0, 0.0, 0.0, 3.5, 4.5, 4.0, 6.0, 7.0, 9.0]  # earlier ones moved to the front
    columns = np.array([[0.0] * 10, [0.0, 1, 3, 4, 0, 0, 0, 0, 6, 7], end])
    put_right(columns, [SKIP], OneStream())
    assert columns[1].tolist() == [0, 1, 3, 4, 6, 7, 9, 10, 12, 13]
    assert columns[2].tolist() == [1, 3, 4, 6, 7, 9, 10, 12, 13, 15]
