"""The command ``program``."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer
from rich.console import Console

from simulator.cli.console import print_filled
from simulator.cli.contents import lines_of_contents
from simulator.cli.mesh import print_mesh
from simulator.cli.options import File, Sets
from simulator.cli.outputs import deliver
from simulator.cli.user_errors import user_errors
from simulator.experiment.describe import describe_plan
from simulator.experiment_file import load
from simulator.program.csv_text import to_csv
from simulator.program.operations import COMMUNICATION, LAST_BACKWARDS, ROWS, Op
from simulator.program.program import Program
from simulator.strategies.lowering import lower
from simulator.units import counted

MOST = 1_000
"""The most instructions that a terminal gets without being asked: more fill several screens."""

FIRST = 6
"""The number of instructions of a rank that a summary has."""

LABELS = """\
A label is stage, operation, microbatch: 0SEND_F1 sends what the forward pass of
   stage 0 made of microbatch 1. F: forward; B: backward; I, W: backward for
   inputs, for weights; R: forward again; STEP: optimizer step."""

EXPLAINED = LAST_BACKWARDS | {Op.FORWARD, Op.BACKWARD_INPUT, Op.RECOMPUTE, Op.OPTIMIZER_STEP}
"""Computing operations that `LABELS` explains; the table of the mesh has those that communicate."""


@user_errors
def program(
    file: File = None,
    set_: Sets = None,
    compute_only: Annotated[
        bool,
        typer.Option(
            "--compute-only", help="Print passes only, as torch.distributed.pipelining writes CSV."
        ),
    ] = False,
    whole: Annotated[
        bool, typer.Option("--all", help="Print all of long lists on a terminal, too.")
    ] = False,
) -> None:
    """Print the instruction lists as CSV, one row a rank; explanations go to stderr.

    On stderr are the program's hash, what labels mean, the device mesh, and which ranks talk to
    each other. A terminal gets a summary of long lists unless --all is given; a file or pipe
    always gets all of them.

    Examples:
        twinline program FILE.toml > program.csv
        twinline program --compute-only --set parallel.schedule=zb-h1
    """
    experiment = load(file, set_ or ())
    lowered = lower(experiment)
    errors = Console(stderr=True, highlight=False)
    size = f"{counted(lowered.num_ranks, 'rank')}, {counted(len(lowered), 'instruction')}"
    print_filled(errors, f"program {lowered.hash()}: {describe_plan(experiment)}; {size}")
    for line in lines_of_contents(experiment):
        print_filled(errors, line)
    errors.print(LABELS, soft_wrap=True)
    for line in lines_of_operations(lowered):
        print_filled(errors, line)
    if lowered.horizon > 1:
        errors.print("Before it is the training step, for those after the first: s1:0F0.")
    print_mesh(errors, experiment, lowered)
    text = to_csv(lowered, compute_only=compute_only)
    if not whole and on_terminal() and is_long(lowered):
        text = summary(lowered, text)
    deliver(lambda: print(text, end=""))


def lines_of_operations(lowered: Program) -> list[str]:
    """Return what the operations of a program do that `LABELS` does not explain."""
    used = {task.op for columns in lowered.columns for task in columns.tasks}
    return [
        f"{row.op.value}: {without_links(row.docs)}"
        for row in ROWS
        if row.op in used - EXPLAINED - (COMMUNICATION - {Op.ACCEPT})
    ]


def without_links(text: str) -> str:
    """Return Markdown with the words of its links alone."""
    return re.sub(r"\[(.*?)\]\(.*?\)", r"\1", text)


def on_terminal() -> bool:
    """Tell whether stdout is a terminal."""
    return sys.stdout.isatty()


def is_long(lowered: Program) -> bool:
    """Tell whether a program is too long to be printed on a terminal without being asked."""
    return len(lowered) > MOST


def summary(lowered: Program, text: str) -> str:
    """Return the first instructions of every rank, and how to get all of them."""
    lines = []
    for rank, row in zip(lowered.members, text.splitlines(), strict=False):
        labels = row.split(",")
        lines.append(f"rank {rank}: {','.join(labels[:FIRST])}, … ({len(labels):,} in all)")
    advice = "These are the first; --all prints all, and so does a pipe or file (… > FILE.csv)."
    return "".join(f"{line}\n" for line in [*lines, advice])
