"""Looks can be told apart without hue, and one microbatch has one hue."""

from __future__ import annotations

import numpy as np

from simulator.charts import style
from simulator.program.operations import Op


def test_operations_are_told_apart_without_hue():
    def luminance(word: str) -> np.ndarray:
        return style.palette(Op(word).row.look) ** 2.2 @ (0.2126, 0.7152, 0.0722)

    assert luminance("F").min() > 1.3 * max(luminance("B").max(), luminance("I").max())
    assert np.all(luminance("I") > 1.5 * luminance("W"))
    assert luminance("STEP").max() < luminance("B").min()


def test_one_microbatch_has_one_hue():
    forward, backward = (style.palette(Op(word).row.look)[:-1] for word in "FB")
    assert np.array_equal(forward.argmax(axis=1), backward.argmax(axis=1))
    assert len(np.unique(forward.round(3), axis=0)) == len(style.CYCLE)
