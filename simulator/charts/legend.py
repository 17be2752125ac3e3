"""The legend under a timeline's picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from simulator.charts.style import CYCLE, EDGES, IDLE, WAITING, look_of, looks_of, palette
from simulator.program.operation_columns import Look
from simulator.timeline.timeline import Timeline


def draw_legend(figure: Figure, timelines: Sequence[Timeline], detailed: bool) -> None:
    """Draw the operations in one line under the time axis, and the microbatches in the next."""

    def swatch(looks: Iterable[Look], numbers: Iterable[int]) -> tuple[Patch, ...]:
        return tuple(
            Patch(fc=palette(k)[n % len(CYCLE)], ec=EDGES[k.coloured], hatch=k.hatch, lw=0.4)
            for n in numbers
            for k in looks
        )

    looks = [look if detailed else look._replace(hatch="") for look in looks_of(timelines)]
    first: dict[str, Any] = {k.label: swatch([k], range(3 if k.coloured else 1)) for k in looks}
    if any((timeline.start > timeline.posted).any() for timeline in timelines):
        first[WAITING.label] = Line2D([], [], color=palette(WAITING)[0])
    first[IDLE.label] = Patch(facecolor=palette(IDLE)[0])
    looks = [look for look in looks if look.coloured][:2]
    numbers = [t.microbatch[t.of_kind(lambda kind: look_of(kind).coloured)] for t in timelines]
    count = 1 + max(int(mine.max(initial=-1)) for mine in numbers)
    if count > len(CYCLE):
        second = {f"colour = microbatch modulo {len(CYCLE)}": swatch(looks[:1], range(len(CYCLE)))}
    else:
        second = {str(n) if n else "microbatch 0": swatch(looks, [n]) for n in range(count)}
    for number, line in enumerate(filter(None, (first, second))):
        letters = sum(len(label) + 8 for label in line)  # 185 fill the width in 9 points
        figure.legend(
            [*line.values()], [*line], ncols=len(line), fontsize=9.0 * min(1.0, 185 / letters),
            loc="center", bbox_to_anchor=(0.5, (0.45 - 0.25 * number) / figure.get_figheight()),
            columnspacing=1.4, handlelength=2.5, handler_map={tuple: HandlerTuple(None, pad=0.0)},
        )  # fmt: skip
