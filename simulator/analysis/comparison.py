"""Join two timelines by instruction: the errors, and the reason for them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.analysis.attribution import attribute
from simulator.analysis.cause import Cause
from simulator.analysis.pushes import steps_of_accepts
from simulator.analysis.results import html_table
from simulator.program.program import Program
from simulator.timeline.timeline import Timeline
from simulator.units import percent, seconds


class OtherProgramError(ValueError):
    """Two timelines are not of the same program, or one is empty; the message is one line."""


@dataclass
class Comparison:
    """The errors of a predicted timeline, and the reason for them.

    Errors are signed, predicted − measured, relative to measured.

    Attributes:
        iteration_time_error: of the iteration time.
        instruction_start_error: mean |Δstart| of all instructions ÷ iteration time.
        peak_memory_errors: per rank, in the order of the timelines; empty if unknown. Measured
            is what the allocator held, where it says (on GPUs), else the sizes of tensors.
        noise_floor: of the measurement (see `Measurement`), None if unknown.
        attribution: seconds that each cause adds to the predicted iteration time to arrive
            at the measured one, None where the program is not known.
        cause: the largest one with its place, ``compute of rank 1 (+38%)``; ``none`` where no
            cause adds anything, ``ranks late in turn (+5.2 ms)`` where they wait now for one and
            now for another, ``remainder`` where nothing explains the most; None as above.
        causes: the places of its kind, the named one first, then those that add most.
        rows: per operation name: count, predicted and measured median duration in seconds.
    """

    iteration_time_error: float
    instruction_start_error: float
    peak_memory_errors: list[float]
    noise_floor: float | None
    attribution: dict[str, float] | None
    rows: list[tuple[str, int, float, float]]
    cause: str | None = None
    causes: list[Cause] = field(default_factory=list)

    @property
    def peak_memory_error(self) -> float:
        """The error of peak memory on the rank where it is largest."""
        return max(self.peak_memory_errors, key=abs, default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the part ``comparison`` of ``--json``."""
        return {
            "iteration_time_error": self.iteration_time_error,
            "instruction_start_error": self.instruction_start_error,
            "peak_memory_error": self.peak_memory_error,
            "peak_memory_errors": self.peak_memory_errors,
            "noise_floor": self.noise_floor,
            "attribution": self.attribution,
            "cause": self.cause,
            "causes": [asdict(cause) for cause in self.causes],
        }

    def _repr_html_(self) -> str:
        """Return the errors and their reasons as HTML, for notebooks."""
        title = f"iteration time: error {percent(self.iteration_time_error, signed=True)}"
        if self.noise_floor is not None:
            title += f", noise floor {percent(self.noise_floor)}"
        rows = [
            (name, str(count), seconds(mine), seconds(theirs))
            for name, count, mine, theirs in self.rows
        ]
        notes = [f"largest cause: {self.cause}"] if self.cause else []
        return html_table(title, ("operation", "count", "predicted", "measured"), rows, notes)


def compare_timelines(
    predicted: Timeline,
    measured: Timeline,
    program: Program | None = None,
) -> Comparison:
    """Compare two timelines of the same program.

    Their iteration times are those of the ``statistics`` in their metadata, if there are
    any, else the end; the ``noise_floor`` is that of the measured one's.

    Args:
        program: what both executed; without it there is no attribution.

    Raises:
        OtherProgramError: the timelines do not hold the same instructions.
    """
    order = _join(predicted, measured)
    same = _by_request(predicted, measured, order)
    expected, total = map(_iteration_time, (predicted, measured))
    if total <= 0:
        raise OtherProgramError("the measured timeline is empty")
    starts = np.abs(predicted.start - measured.start[same])
    found = attribute(program, predicted, measured, order, total - expected) if program else None
    return Comparison(
        iteration_time_error=(expected - total) / total,
        instruction_start_error=float(starts.mean()) / total,
        peak_memory_errors=_memory_errors(predicted, measured),
        noise_floor=measured.meta.get("noise_floor"),
        attribution=found.seconds if found else None,
        rows=_rows(predicted, measured, same),
        cause=found.cause if found else None,
        causes=found.causes if found else [],
    )


def _iteration_time(timeline: Timeline) -> float:
    if timeline.statistics is not None and timeline.statistics.iteration_time_s > 0:
        return timeline.statistics.iteration_time_s
    return timeline.iteration_time


def _join(predicted: Timeline, measured: Timeline) -> Any:
    """Return for each predicted span the index of the measured one of the same instruction."""
    if predicted.members != measured.members:
        raise OtherProgramError(
            f"not the same program: {predicted.num_ranks} ranks predicted, "
            f"{measured.num_ranks} measured"
        )
    theirs: dict[tuple[int, str], int] = {}
    for span in range(len(measured)):
        theirs[int(measured.rank[span]), measured.label(span)] = span
    order = np.empty(len(predicted), dtype=np.int64)
    for span in range(len(predicted)):
        key = (int(predicted.rank[span]), predicted.label(span))
        if key not in theirs:
            raise OtherProgramError(
                f"not the same program: rank {key[0]}, {key[1]} was not measured"
            )
        order[span] = theirs.pop(key)
    if theirs:
        rank, label = next(iter(theirs))
        raise OtherProgramError(f"not the same program: rank {rank}, {label} was not predicted")
    return order


def _by_request(
    predicted: Timeline, measured: Timeline, order: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the order in which an ACCEPT stands beside the one that served the same request.

    So does the optimizer step behind it. Who comes first may differ, and what a server did for
    one worker says nothing about what it did for another. Those that served what only one of the
    timelines has, as workers ask for less work or for more, stand beside each other.
    """
    served = {decision.request: decision.accept for decision in measured.decisions}
    theirs, mine = steps_of_accepts(measured), steps_of_accepts(predicted)
    same = order.copy()
    pairs = {
        accept: served.pop(int(order[request]))
        for accept, request in predicted.decisions
        if int(order[request]) in served
    }
    alone = [accept for accept, _ in predicted.decisions if accept not in pairs]
    pairs |= dict(zip(alone, served.values(), strict=True))
    for accept, other in pairs.items():
        same[accept] = other
        if accept in mine:
            same[mine[accept]] = theirs[other]
    return same


def _memory_errors(predicted: Timeline, measured: Timeline) -> list[float]:
    """Return the error of each rank's peak memory; 0 where nothing was held."""
    held = measured.statistics.allocator_peak_bytes if measured.statistics else None
    held = held or [sample.peak for sample in measured.memory]
    return [
        (mine.peak - theirs) / theirs if theirs > 0 else 0.0
        for mine, theirs in zip(predicted.memory, held, strict=False)
    ]


def _rows(
    predicted: Timeline, measured: Timeline, order: Any
) -> list[tuple[str, int, float, float]]:
    acts = np.ones(len(predicted), dtype=bool)  # steps of a server that had something to do
    acts[predicted.idle] = False
    acts &= ~np.isin(order, measured.idle)
    mine = predicted.end - predicted.start
    theirs = (measured.end - measured.start)[order]
    rows = []
    for name in dict.fromkeys(kind.name for kind in predicted.kinds):
        chosen = predicted.of_kind(lambda kind, name=name: kind.name == name) & acts
        if not chosen.any():
            continue
        rows.append(
            (
                name,
                int(chosen.sum()),
                float(np.median(mine[chosen])),
                float(np.median(theirs[chosen])),
            )
        )
    return rows
