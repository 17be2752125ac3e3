"""A schedule is read from a CSV file, in the form of `torch.distributed.pipelining`.

One row a rank, its actions in order: ``parallel.schedule = "csv:PATH"``. Torch 2.5 and before
write ``BW`` for a whole backward pass and ``B`` for the half for inputs, which a ``W`` follows.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path

from simulator.program.operations import Op
from simulator.strategies.schedules.passes import Pass, Plan, Updates, incomplete, once_a_step

_PASS = re.compile(r"(\d+)(BW|[FBIW])(\d+)")
_OVERLAPPED = re.compile(r"\((.*)\)OVERLAP_F_B")
_OTHER = re.compile(
    r"\d+(SEND_F|SEND_B|RECV_F|RECV_B|UNSHARD(_[FBR])?|RESHARD|REDUCE_(GRAD|SHARD|NORM)|NORM|STEP|R)"
    r"[\d.]*"
)


class CsvSchedule:
    """A schedule from a file, with the interface of a module of this folder.

    Communication actions in the file are dropped: messages follow from the passes.

    Raises:
        ValueError: unreadable, or not a schedule; says why, and not the path.
    """

    def __init__(self, path: str):
        self.SUMMARY = f"from {path}"
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(getattr(error, "strerror", None) or str(error)) from None
        rows = [row for row in csv.reader(text.splitlines()) if row]
        self.rows = [
            _with_halves([step for cell in row for step in _actions(number, cell.strip())])
            for number, row in enumerate(rows)
        ]
        self.owner: dict[int, int] = {}
        for number, row in enumerate(self.rows):
            for step in row:
                if self.owner.setdefault(step.stage, number) != number:
                    raise ValueError(
                        f"stage {step.stage} is on rank {self.owner[step.stage]} and on rank "
                        f"{number}"
                    )
        if not self.owner or sorted(self.owner) != list(range(len(self.owner))):
            raise ValueError(f"stages {sorted(self.owner)}; expected 0, 1, 2, …")

    def refusal(self, plan: Plan) -> str | None:
        """Return what of `plan` is not as in the file: ranks, stages, microbatches."""
        microbatches = {step.microbatch for row in self.rows for step in row}
        for key, given, found in (
            ("pipeline", plan.num_ranks, len(self.rows)),
            ("virtual_stages", plan.virtual_stages, len(self.owner) / len(self.rows)),
            ("microbatches", plan.num_microbatches, len(microbatches)),
        ):
            if given != found:
                return f"{key} = {given}; the file has {found:g}"
        owned: dict[int, list[int]] = defaultdict(list)
        for stage in range(plan.num_stages):
            owned[self.owner[stage]].append(stage)
        for rank, stages in owned.items():
            wrong = incomplete(self.rows[rank], stages, plan.num_microbatches)
            if wrong:
                return f"rank {rank} as the file has it: {wrong}"
        return None

    def placement(self, plan: Plan) -> list[int]:
        """Return the row that each stage is in."""
        return [self.owner[stage] for stage in range(plan.num_stages)]

    def order(self, plan: Plan, rank: int) -> list[Pass]:
        """Return the passes of a row."""
        return self.rows[rank]

    def updates(self, plan: Plan) -> Updates:
        """Return one update a step: a file says nothing else."""
        return once_a_step(plan)


def _with_halves(row: list[Pass]) -> list[Pass]:
    """Return `row` with every ``B`` that a ``W`` of its microbatch follows as what it is, an I."""
    split = {step[1:] for step in row if step.op is Op.BACKWARD_WEIGHT}
    halves = {step[1:] for step in row if step.op is Op.BACKWARD_INPUT}
    return [
        step._replace(op=Op.BACKWARD_INPUT)
        if step.op is Op.BACKWARD and step[1:] in split - halves
        else step
        for step in row
    ]


def _actions(row: int, cell: str) -> list[Pass]:
    """Return the passes of one cell: none for idle time and communication."""
    overlapped = _OVERLAPPED.fullmatch(cell)
    if overlapped:
        return [step for part in overlapped[1].split(";") for step in _actions(row, part.strip())]
    match = _PASS.fullmatch(cell)
    if match:
        letter = "B" if match[2] == "BW" else match[2]
        return [Pass(Op(letter), int(match[1]), int(match[3]))]
    if not cell or _OTHER.fullmatch(cell):
        return []
    raise ValueError(f"row {row}: {cell!r} is not an action such as 0F1, 0B1, 0I1, 0W1")
