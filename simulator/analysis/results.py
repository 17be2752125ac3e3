"""The figures of one timeline as dataclasses: named fields, JSON, and a table for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

from simulator.analysis.contents import StageContents
from simulator.analysis.memory_fit import MemoryFit
from simulator.analysis.rates import Rates
from simulator.analysis.step_times import StepTimes
from simulator.experiment.roles import TRAINER
from simulator.program.staleness import StageStaleness
from simulator.timeline.statistics import ExpertLoad, Statistics
from simulator.timeline.timeline import MemoryParts, Timeline
from simulator.units import nbytes, percent, seconds

MOST_ROWS = 16
"""A notebook shows so many ranks; `Result.to_json` has all of them."""


@dataclass(frozen=True)
class RankMetrics:
    """The figures of one rank.

    ``compute_s + exposed_comm_s + idle_s`` is the iteration time of the timeline.

    Attributes:
        rank: its global number.
        compute_s: seconds, union of the compute intervals.
        exposed_comm_s: seconds of communication that no compute of this rank covers.
        idle_s: seconds, the rest.
        first_start_s, last_end_s: seconds, start of its first and end of its last instruction.
        peak_memory_bytes: largest sum of resident bytes and held tensors.
        peak_inflight_microbatches: largest number of stage activations held at once.
        peak_memory_parts: what the peak consists of; None: not known, as of an old trace.
        stages: what it has of the model.
        parameters: how many it computes with, before ZeRO shards them; of a server, how many it
            updates.
        role: what kind of rank it is, ``trainer`` or ``server``.
        microbatches: how many it got of those that a server hands out, in all steps; None where
            none does.
    """

    rank: int
    compute_s: float
    exposed_comm_s: float
    idle_s: float
    first_start_s: float
    last_end_s: float
    peak_memory_bytes: int
    peak_inflight_microbatches: int
    peak_memory_parts: MemoryParts | None = None
    stages: tuple[StageContents, ...] = ()
    parameters: int = 0
    role: str = TRAINER
    microbatches: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all fields under their names."""
        parts = self.peak_memory_parts
        return vars(self) | {
            "peak_memory_parts": parts and parts._asdict(),
            "stages": [dict(vars(stage)) for stage in self.stages],
        }


@dataclass(frozen=True)
class ProgramSummary:
    """A program in three words: its hash, the world size, the instructions of all ranks."""

    hash: str
    ranks: int
    instructions: int


@dataclass(frozen=True)
class Metrics:
    """The figures of a timeline.

    Attributes:
        program: of which program.
        iteration_time_s: seconds from 0 to the end of the last instruction, of all training
            steps of the program; of a run the median of the iterations.
        bubble_fraction: time without compute ÷ (ranks × iteration time).
        bubble_ratio: the same time ÷ time with compute.
        mfu: model FLOPs of the steps ÷ (iteration time × devices × peak FLOP/s); None where there
            is no peak.
        hfu: the same with the FLOPs that are computed again.
        tokens_per_s: tokens (images, for image models) of the global batches ÷ iteration time;
            None for the workload ``unit``.
        token: what `tokens_per_s` counts, ``token`` or ``image``.
        ranks: one entry a rank of the timeline, in order.
        parameters: of the whole model, a count.
        steps: the times of single training steps.
        rates: updates and samples per second in steady state; None where nothing settles.
    """

    program: ProgramSummary
    iteration_time_s: float
    bubble_fraction: float
    bubble_ratio: float
    mfu: float | None
    hfu: float | None
    tokens_per_s: float | None
    token: str
    ranks: list[RankMetrics]
    parameters: int = 0
    steps: StepTimes | None = None
    rates: Rates | None = None

    def over_iterations(self, statistics: Statistics | None) -> Metrics:
        """Return the figures of a median timeline for the iteration time of its `statistics`.

        The rates become those of that iteration time; None changes nothing.
        """
        if statistics is None:
            return self
        time = statistics.iteration_time_s
        scale = self.iteration_time_s / time if time > 0 else 1.0
        mfu, hfu, rate = (
            None if value is None else value * scale
            for value in (self.mfu, self.hfu, self.tokens_per_s)
        )
        steps = self.steps and self.steps.scaled(1.0 / scale)
        rates = self.rates and self.rates.scaled(1.0 / scale)
        return replace(
            self,
            iteration_time_s=time,
            mfu=mfu,
            hfu=hfu,
            tokens_per_s=rate,
            steps=steps,
            rates=rates,
        )

    def to_json(self) -> dict[str, Any]:
        """Return all fields under their names."""
        return vars(self) | {
            "program": dict(vars(self.program)),
            "steps": self.steps and self.steps.to_json(),
            "rates": self.rates and self.rates.to_json(),
            "ranks": [rank.to_json() for rank in self.ranks],
        }


@dataclass(kw_only=True, repr=False)
class Result:
    """A timeline with its figures: what a prediction, a run and a saved timeline have in common.

    Attributes:
        recorded: the times of every instruction that was executed or simulated.
        metrics: the figures of the timeline.
        staleness: how old the weights were, per stage that has parameters.
        moe: the load of experts, for models that have some.
        memory_fit: whether the plan fits into the cluster's memory; None for the workload ``unit``,
            and where memory was not predicted.
        notes: what the reader should know.
    """

    recorded: Timeline
    metrics: Metrics
    staleness: list[StageStaleness] = field(default_factory=list)
    moe: ExpertLoad | None = None
    memory_fit: MemoryFit | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def timeline(self) -> Timeline:
        """The times of every instruction."""
        return self.recorded

    @property
    def statistics(self) -> Statistics | None:
        """Figures over all iterations; None for a prediction of certain times."""
        return self.recorded.statistics

    @property
    def iteration_time_s(self) -> float:
        """Seconds that the training steps of the program take: one, unless a horizon is set."""
        return self.metrics.iteration_time_s

    @property
    def bubble_fraction(self) -> float:
        """Time without compute ÷ (ranks × iteration time)."""
        return self.metrics.bubble_fraction

    @property
    def bubble_ratio(self) -> float:
        """Time without compute ÷ time with compute."""
        return self.metrics.bubble_ratio

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilization; None where the devices' peak is not known."""
        return self.metrics.mfu

    @property
    def hfu(self) -> float | None:
        """Hardware FLOPs utilization: as `mfu`, with what is computed again."""
        return self.metrics.hfu

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens, or images, per second; None for the workload ``unit``."""
        return self.metrics.tokens_per_s

    @property
    def ranks(self) -> list[RankMetrics]:
        """The figures of every rank of the timeline, in order."""
        return self.metrics.ranks

    @property
    def peak_memory_bytes(self) -> int:
        """The peak of the rank that needs the most memory."""
        return max((rank.peak_memory_bytes for rank in self.ranks), default=0)

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints (see ``docs/json.md``)."""
        statistics = self.statistics.to_json() if self.statistics else {}
        return self.metrics.to_json() | statistics | {"notes": self.notes}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._line()})"

    def _line(self) -> str:
        """Return the figures of the whole in one line."""
        line = f"iteration {seconds(self.iteration_time_s)}, bubble fraction "
        line += f"{self.bubble_fraction:.3f}"
        if self.tokens_per_s is not None:
            line += f", {self.tokens_per_s:,.0f} {self.metrics.token}s/s"
        if self.mfu is not None:
            line += f", MFU {percent(self.mfu)}"
        return line

    def _repr_html_(self) -> str:
        """The figures and a row per rank, for notebooks."""
        header = ("rank", "compute", "exposed comm", "idle", "peak memory", "in flight")
        rows = [
            (
                str(rank.rank),
                seconds(rank.compute_s),
                seconds(rank.exposed_comm_s),
                seconds(rank.idle_s),
                nbytes(rank.peak_memory_bytes),
                str(rank.peak_inflight_microbatches),
            )
            for rank in self.ranks[:MOST_ROWS]
        ]
        more = len(self.ranks) - len(rows)
        fit = [str(self.memory_fit)] if self.memory_fit and self.memory_fit.fits else []
        notes = [*([f"… and {more} more ranks"] if more else []), *fit, *self.notes]
        return html_table(self._line(), header, rows, notes)


def html_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[str] = ()
) -> str:
    """Return a small table as HTML: a title, a row of headings, the rows, and notes below."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    below = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f"<p>{escape(title)}</p><table><tr>{head}</tr>{body}</table>{below}"
