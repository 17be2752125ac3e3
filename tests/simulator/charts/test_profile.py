"""The picture of a profile: fitted lines, and panels that use the whole width."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.charts.profile import fit, profile_figure
from simulator.cluster.profile import Profile
from simulator.cluster.timing import Timing
from small_profile import PROFILE, timed


@given(st.floats(0, 1e-2), st.floats(1e3, 1e12), st.sets(st.integers(1, 10**9), min_size=2))
def test_a_line_is_found_again(latency: float, bandwidth: float, sizes: set[int]) -> None:
    line = timed([(size, latency + size / bandwidth) for size in sorted(sizes)])
    found_latency, found_bandwidth = fit(line)
    for size, timing in line:
        assert found_latency + size / found_bandwidth == pytest.approx(timing.mean_s, rel=1e-3)


def test_what_gets_no_slower_has_no_end_of_bandwidth() -> None:
    assert fit(timed([(1, 2.0)])) == (2.0, float("inf"))
    latency, bandwidth = fit(timed([(1, 2.0), (10, 1.0)]))
    assert bandwidth == float("inf")
    assert 1.0 < latency < 2.0


def test_the_picture_is_written_and_nothing_is_refused(tmp_path: Path) -> None:
    profile_figure(PROFILE).save(tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="nothing to draw"):
        profile_figure(Profile({"cores": 1}))


def test_long_names_of_passes_leave_no_gap_beside_the_transfers(lines) -> None:
    passes = {"a segment pass with a very long name " * 2: Timing.certain(1.0)}
    figure = profile_figure(Profile({"cores": 1}, messages=timed([(1, 1.0)]), passes=passes))
    figure.draw_without_rendering()
    transfers, named = (axes.get_window_extent() for axes in figure.axes)
    assert transfers.x0 < 0.15 * figure.bbox.width < 0.3 * figure.bbox.width < named.x0
    assert lines.outside(figure) == []
