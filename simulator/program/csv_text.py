"""Programs as text, in the CSV form of `torch.distributed.pipelining`."""

from __future__ import annotations

from simulator.program.operations import PASSES
from simulator.program.program import Program


def to_csv(program: Program, compute_only: bool = False) -> str:
    """Return the labels of each rank's instructions, comma-separated, one row a rank.

    Args:
        program: the program to write.
        compute_only: write only the passes of each stage (a stage that is cut into segments
            counts once), which torch's ``_load_csv(…, format="compute_only")`` reads. Replicas
            have equal rows there, so only those of the first replica are written. It knows no
            training steps: microbatches are counted on from one to the next.
    """
    rows = []
    for instructions in program.ranks:
        if compute_only:
            passes = dict.fromkeys(
                f"{i.task.stage}{i.task.op.value}{i.step * program.num_microbatches + i.microbatch}"
                for i in instructions
                if i.task.op in PASSES
            )
            rows.append(",".join(passes))
        else:
            rows.append(",".join(i.label for i in instructions))
    if compute_only:
        rows = list(dict.fromkeys(rows))
    return "".join(f"{row}\n" for row in rows)
