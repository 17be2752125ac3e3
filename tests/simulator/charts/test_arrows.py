"""Arrows from a version to what comes of its gradient."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from simulator import load, predict
from simulator.charts.arrows import MOST_ARROWS, Arrow, arrows_of, chosen, draw_arrows, inside
from simulator.charts.density import Window
from simulator.charts.timeline import timeline_figure

PLAN = ["model=mlp", "pipeline=1", "data_style=asynchronous"]


def picture(workers: int, horizon: int) -> Figure:
    plan = [*PLAN, "jitter=lognormal", "jitter_spread=0.3", f"data={workers}", f"horizon={horizon}"]
    batch = [f"global_batch={8 * workers}", "microbatches=1"]
    return timeline_figure(predict(load(None, [*plan, *batch])).timeline)


def drawn(figure: Figure) -> tuple[int, str]:
    """The arrows of the first panel, and what is said of them."""
    panel = figure.axes[0]
    return sum(isinstance(p, FancyArrowPatch) for p in panel.patches), panel.get_title(loc="right")


def test_every_push_of_a_small_picture_has_an_arrow() -> None:
    count, said = drawn(picture(3, 4))
    assert count == 12
    assert said.startswith("arrows: from a version read to the update with its gradient")
    assert " of " not in said
    assert drawn(timeline_figure(predict(load(None, PLAN[:2])).timeline)) == (0, "")


def test_of_many_those_of_one_worker_are_drawn_and_named() -> None:
    count, said = drawn(picture(16, 3))
    assert count == 3
    assert "; 3 of 48, those of rank " in said


def test_the_worker_furthest_behind_is_chosen() -> None:
    few = [Arrow((0.0, 0.5), (1.0, 2.5), number % 3, number % 2) for number in range(6)]
    assert chosen(few) == few
    many = [Arrow((0.0, 0.5), (1.0, 2.5), number % 3, number % 3) for number in range(90)]
    assert chosen(many) == [many[2]] * MOST_ARROWS


def test_an_excerpt_has_the_arrows_that_lie_in_it_whole() -> None:
    arrows = [Arrow((1.0, 5.5), (2.0, 6.5), 3, 5), Arrow((1.0, 5.5), (9.0, 6.5), 3, 5)]
    assert inside(arrows, Window(5, 7, 0.5, 3.0)) == [Arrow((1.0, 0.5), (2.0, 1.5), 3, 0)]
    assert inside(arrows, Window(6, 7, 0.5, 3.0)) == []


def test_arrows_of_a_timeline_end_later_than_they_begin() -> None:
    found = arrows_of(predict(load(None, [*PLAN, "data=2", "horizon=2"])).timeline)
    assert len(found) == 4
    for arrow in found:
        assert arrow.start[0] < arrow.end[0]
        assert int(arrow.start[1]) == arrow.worker
        assert int(arrow.end[1]) == 2
    figure = Figure()
    draw_arrows(figure.add_subplot(), [], [])
    assert drawn(figure) == (0, "")
