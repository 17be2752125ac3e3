"""A program as text: the CSV of `torch.distributed.pipelining`, one row a rank."""

from __future__ import annotations

from simulator.program.operations import PASSES
from simulator.program.program import Program


def to_csv(program: Program, compute_only: bool = False) -> str:
    """The labels of each rank's instructions, comma-separated.

    With `compute_only`, just the passes of each stage (a stage that is cut into segments
    counts once): what torch's ``_load_csv(…, format="compute_only")`` reads. Replicas give
    equal rows there, so only the ranks of the first replica are written.
    """
    rows = []
    for instructions in program.ranks:
        if compute_only:
            passes = dict.fromkeys(
                f"{i.task.stage}{i.task.op.value}{i.microbatch}"
                for i in instructions
                if i.task.op in PASSES
            )
            rows.append(",".join(passes))
        else:
            rows.append(",".join(i.label for i in instructions))
    if compute_only:
        rows = list(dict.fromkeys(rows))
    return "".join(f"{row}\n" for row in rows)
