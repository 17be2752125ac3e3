"""All pipeline schedules side by side, for stages that take the same time everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

from simulator.cluster.resolve import resolve
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import parse
from simulator.prediction import predict
from simulator.program.operations import Op
from simulator.program.staleness import staleness_of
from simulator.strategies.lowering import lower
from simulator.strategies.schedules.registry import SCHEDULES, Plan
from simulator.strategies.schedules.schedule import is_asynchronous
from simulator.timeline.timeline import Timeline

LONGEST = 2.0
"""How many times as long as the fastest schedule the picture shows one."""


class Case(NamedTuple):
    """What the schedules are compared on.

    Attributes:
        forward, backward_input, backward_weight: seconds of a rank's share of the model for
            a microbatch. A schedule with v stages a rank has v times as many stages that
            take a v-th each, so every schedule has the same work.
        p2p: seconds of a message, of any schedule: a boundary between stages is as large
            wherever it is.
        virtual_stages: of the schedules that take several stages a rank.
        memory_limit: in microbatches' activations of a rank's share of the model.
    """

    stages: int
    microbatches: int
    forward: float = 1.0
    backward_input: float = 1.0
    backward_weight: float = 1.0
    p2p: float = 0.0
    virtual_stages: int = 2
    memory_limit: float | None = None

    @property
    def in_forwards(self) -> bool:
        """F is 1: the costs are multiples of it, and so are the times that are printed."""
        return self.forward == 1.0

    @property
    def work(self) -> float:
        """Seconds of compute of every rank."""
        return self.microbatches * (self.forward + self.backward_input + self.backward_weight)

    def experiment(
        self, schedule: str, virtual_stages: int, workload: dict[str, Any] | None = None
    ) -> Experiment:
        """Of one schedule; `workload` instead of the model that is nothing but its costs."""
        parallel: dict[str, Any] = {
            "pipeline": self.stages,
            "microbatches": self.microbatches,
            "schedule": schedule,
            "virtual_stages": virtual_stages,
        }
        if schedule == "zb-auto" and self.memory_limit is not None:
            parallel["memory_limit"] = self.memory_limit
        unit = {
            "model": "unit",
            "forward": self.forward / virtual_stages,
            "backward_input": self.backward_input / virtual_stages,
            "backward_weight": self.backward_weight / virtual_stages,
            "p2p": self.p2p,
        }
        return parse({"workload": workload or unit, "parallel": parallel})


@dataclass
class Row:
    """A schedule with `virtual_stages` stages a rank.

    Attributes:
        timeline: None: refused, and `note` says why.
        in_flight: peak per rank, in microbatches' activations of the rank's whole share of
            the model: those of one of v stages count a v-th.
        messages: sent per step, over all ranks.
        versions_behind: updates between the weights of a gradient and those it is put in.
    """

    schedule: str
    virtual_stages: int
    timeline: Timeline | None = None
    iteration_time: float = 0.0
    bubble_fraction: float = 0.0
    in_flight: tuple[float, ...] = ()
    messages: int = 0
    versions_behind: int = 0
    asynchronous: bool = False
    note: str = ""

    @property
    def refused(self) -> bool:
        return self.timeline is None

    @property
    def name(self) -> str:
        """Of the schedule, told apart from itself with other numbers of stages."""
        many = self.virtual_stages > 1
        return f"{self.schedule}, {self.virtual_stages} stages a rank" if many else self.schedule


def parse_costs(text: str) -> tuple[float, float, float, float]:
    """Read the option ``--costs F,I,W,P2P``.

    Raises:
        ExperimentError: not four numbers.
    """
    try:
        forward, backward_input, backward_weight, p2p = map(float, text.split(","))
    except ValueError:
        raise ExperimentError(f"--costs {text}: allowed: four numbers, F,I,W,P2P") from None
    return forward, backward_input, backward_weight, p2p


def check_case(case: Case) -> None:
    """Refuse what no schedule can be compared on.

    Raises:
        ExperimentError: with one line that names the option and what is allowed.
    """
    for key in ("stages", "microbatches", "virtual_stages"):
        if getattr(case, key) < 1:
            option = key.removesuffix("_stages")
            raise ExperimentError(f"--{option} {getattr(case, key)}: allowed: 1 or more")
    costs = case[2:6]
    if not all(isfinite(cost) and cost >= 0 for cost in costs) or not case.work > 0:
        raise ExperimentError(
            f"--costs {','.join(f'{cost:g}' for cost in costs)}: allowed: seconds, 0 or more, "
            "and not all of F, I and W zero"
        )
    limit = case.memory_limit
    if limit is not None and not (isfinite(limit) and limit >= 1):
        raise ExperimentError(f"--memory-limit {limit:g}: allowed: 1 or more microbatches")


def compare_schedules(case: Case) -> list[Row]:
    """A row for every registered schedule, the fastest first and refused ones last.

    Schedules that can do with one stage a rank and with several have a row for each.
    """
    check_case(case)
    rows = []
    for name, schedule in SCHEDULES.items():
        # Whether it can have v stages a rank at all: 4p microbatches suit every schedule.
        degrees = [
            v
            for v in sorted({1, case.virtual_stages})
            if schedule.refusal(Plan(case.stages, 4 * case.stages, v)) is None
        ]
        for virtual_stages in degrees or [case.virtual_stages]:
            plan = Plan(case.stages, case.microbatches, virtual_stages)
            refusal = schedule.refusal(plan)
            if refusal:
                rows.append(Row(name, virtual_stages, note=refusal))
            else:
                rows.append(_row(case, name, virtual_stages))

    def place(row: Row) -> tuple[bool, float, float]:
        time = float(f"{row.iteration_time:.9g}")  # equal but for rounding errors: equal
        return row.refused, time, max(row.in_flight, default=0.0)

    return sorted(rows, key=place)


def axis_end(rows: list[Row]) -> float | None:
    """Return where a picture of all schedules ends, seconds: twice the fastest of them.

    A schedule that takes longer is cut off there, unless all fit.
    """
    times = [row.iteration_time for row in rows if not row.refused]
    return max((time for time in times if time <= LONGEST * min(times)), default=None)


def _row(case: Case, name: str, virtual_stages: int) -> Row:
    experiment = case.experiment(name, virtual_stages)
    prediction = predict(experiment, resolve(experiment))
    in_flight = [rank.peak_inflight_microbatches / virtual_stages for rank in prediction.ranks]
    plan = Plan(case.stages, case.microbatches, virtual_stages)
    asynchronous = is_asynchronous(SCHEDULES[name], plan)
    versions_behind = _versions_behind(case, name, virtual_stages) if asynchronous else 0
    notes = ["async"] if asynchronous else []
    if case.memory_limit is not None and max(in_flight) > case.memory_limit:
        notes.append(f"over {case.memory_limit:g}")
    return Row(
        name,
        virtual_stages,
        prediction.timeline,
        prediction.iteration_time_s,
        prediction.bubble_fraction,
        tuple(in_flight),
        sum(instruction.task.op is Op.SEND for instruction in prediction.program),
        versions_behind,
        asynchronous,
        ", ".join(notes),
    )


def _versions_behind(case: Case, name: str, virtual_stages: int) -> int:
    """The most of any stage. `unit` has no weights: a model that has some, in equal stages."""
    model = {"model": "mlp", "layers": case.stages * virtual_stages, "hidden": 1, "sequence": 1}
    program = lower(case.experiment(name, virtual_stages, model))
    stages = staleness_of(program, list(range(case.stages)))
    return max(stage.max_versions_behind for stage in stages)


def to_json(case: Case, rows: list[Row]) -> dict[str, Any]:
    """The JSON object of ``twinline schedules``; figures of refused schedules are null."""
    listed = []
    for row in rows:
        figures = {
            "iteration_time_s": row.iteration_time,
            "bubble_fraction": row.bubble_fraction,
            "peak_inflight_microbatches": list(row.in_flight),
            "messages": row.messages,
            "versions_behind": row.versions_behind,
            "asynchronous": row.asynchronous,
        }
        listed.append(
            {"schedule": row.schedule, "virtual_stages": row.virtual_stages}
            | (dict.fromkeys(figures) if row.refused else figures)
            | {"refused": row.refused, "note": row.note or None}
        )
    return case._asdict() | {"schedules": listed}


__all__ = [
    "Case",
    "Row",
    "compare_schedules",
    "parse_costs",
    "to_json",
]
