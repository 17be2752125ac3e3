"""The CSV form of `torch.distributed.pipelining`: one row a rank, its actions in order.

Written from a program, and read as a schedule: ``parallel.schedule = "csv:PATH"``.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from simulator.program.operations import Op
from simulator.strategies.schedules.passes import Pass, Plan

_PASS = re.compile(r"(\d+)([FBIW])(\d+)")
_OVERLAPPED = re.compile(r"\((.*)\)OVERLAP_F_B")
_OTHER = re.compile(
    r"\d+(SEND_F|SEND_B|RECV_F|RECV_B|UNSHARD(_[FBR])?|RESHARD|REDUCE_(GRAD|SHARD|NORM)|NORM|STEP|R)"
    r"[\d.]*"
)


class CsvSchedule:
    """A schedule from a file, with the interface of a module in `schedules`.

    Communication actions in the file are dropped: messages follow from the passes.

    Raises:
        ValueError: unreadable, or not a schedule; names the row and the action.
    """

    def __init__(self, path: str):
        self.path = path
        self.SUMMARY = f"from {path}"
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
        rows = [row for row in csv.reader(text.splitlines()) if row]
        self.rows = [
            [step for cell in row for step in _actions(path, number, cell.strip())]
            for number, row in enumerate(rows)
        ]
        self.owner: dict[int, int] = {}
        for number, row in enumerate(self.rows):
            for step in row:
                if self.owner.setdefault(step.stage, number) != number:
                    raise ValueError(
                        f"{path}: stage {step.stage} is on rank {self.owner[step.stage]} "
                        f"and on rank {number}"
                    )
        if not self.owner or sorted(self.owner) != list(range(len(self.owner))):
            raise ValueError(f"{path}: stages {sorted(self.owner)}; expected 0, 1, 2, …")

    def refusal(self, plan: Plan) -> str | None:
        """The plan must have the file's ranks, stages and microbatches."""
        microbatches = {step.microbatch for row in self.rows for step in row}
        for key, given, found in (
            ("pipeline", plan.num_ranks, len(self.rows)),
            ("virtual_stages", plan.virtual_stages, len(self.owner) / len(self.rows)),
            ("microbatches", plan.num_microbatches, len(microbatches)),
        ):
            if given != found:
                return f"{key} = {given}; the file has {found:g}"
        return self._incomplete(plan)

    def _incomplete(self, plan: Plan) -> str | None:
        """Each stage needs each microbatch once: F, then B, or I and then W."""
        for stage in range(plan.num_stages):
            row = self.rows[self.owner[stage]]
            for microbatch in range(plan.num_microbatches):
                mine = [s.op.value for s in row if (s.stage, s.microbatch) == (stage, microbatch)]
                if mine not in (["F", "B"], ["F", "I", "W"]):
                    return (
                        f"{self.path}: stage {stage}, microbatch {microbatch} has {mine}; "
                        "allowed: F B, or F I W"
                    )
        return None

    def placement(self, plan: Plan) -> list[int]:
        return [self.owner[stage] for stage in range(plan.num_stages)]

    def order(self, plan: Plan, rank: int) -> list[Pass]:
        return self.rows[rank]


def _actions(path: str, row: int, cell: str) -> list[Pass]:
    """The passes of one cell (none for idle time and communication)."""
    overlapped = _OVERLAPPED.fullmatch(cell)
    if overlapped:
        return [
            step for part in overlapped[1].split(";") for step in _actions(path, row, part.strip())
        ]
    match = _PASS.fullmatch(cell)
    if match:
        return [Pass(Op(match[2]), int(match[1]), int(match[3]))]
    if not cell or _OTHER.fullmatch(cell):
        return []
    raise ValueError(f"{path}: row {row}: {cell!r} is not an action such as 0F1, 0B1, 0I1, 0W1")
