"""The device mesh in words: who talks to whom, and how much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from simulator.cli.console import print_filled
from simulator.experiment.experiment import Experiment
from simulator.experiment.mesh import Mesh
from simulator.program.operations import COMMUNICATION, MESSAGES
from simulator.program.program import Program
from simulator.units import nbytes

MOST_GROUPS, MOST_RANKS = 4, 8


def print_mesh(console: Console, experiment: Experiment, program: Program) -> None:
    """Print the axes with their groups of ranks, and what a rank sends along each in a step."""
    mesh = experiment.mesh
    order = [axis for axis in experiment.parallel.rank_order if mesh.degrees[axis] > 1]
    if not order:
        return
    shape = " × ".join(f"{axis} {mesh.degrees[axis]}" for axis in order)
    print_filled(console, f"mesh: {shape}; ranks that follow each other differ in {order[-1]}")
    table = Table("along", "groups of ranks", "operation", "times", "bytes")
    for (axes, operation), (count, total) in sorted(_traffic(program, mesh).items()):
        groups = [_ranks(group) for group in mesh.groups(*axes)]
        shown = " | ".join(groups[:MOST_GROUPS])
        more = f" | … {len(groups)} in all" if len(groups) > MOST_GROUPS else ""
        table.add_row(" × ".join(axes), shown + more, operation, f"{count}", nbytes(total))
    console.print(table)
    console.print("times, bytes: of all such operations of one rank in one step, where it has most")


def _ranks(group: Sequence[int]) -> str:
    """Return the ranks of a group, long ones shortened."""
    if len(group) <= MOST_RANKS:
        return " ".join(map(str, group))
    return f"{' '.join(map(str, group[:3]))} … {group[-1]} ({len(group)} ranks)"


def _traffic(program: Program, mesh: Mesh) -> dict[tuple[tuple[str, ...], str], tuple[int, int]]:
    """Return the number of operations and their bytes, by axes and name, of the rank with most."""
    most: dict[tuple[tuple[str, ...], str], tuple[int, int]] = {}
    known: dict[int, tuple[tuple[str, ...], str]] = {}
    for instructions in program.ranks:
        counts: Counter[tuple[tuple[str, ...], str]] = Counter()
        totals: Counter[tuple[tuple[str, ...], str]] = Counter()
        for instruction in instructions:
            task = instruction.task
            if task.op not in COMMUNICATION:
                continue
            if id(task) not in known:
                pair = (instruction.rank, task.peer)
                group = pair if task.op in MESSAGES else task.group
                known[id(task)] = (mesh.axes_of(group), task.name)
            counts[known[id(task)]] += 1
            totals[known[id(task)]] += task.nbytes
        for key, count in counts.items():
            most[key] = max(most.get(key, (0, 0)), (count, totals[key]))
    return most
