"""The device mesh in words: who talks to whom, and how much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from simulator.cli.console import print_filled
from simulator.experiment.experiment import Experiment
from simulator.program.operations import COMMUNICATION, MESSAGES, Op
from simulator.program.program import Program
from simulator.units import listed, nbytes

MOST_GROUPS, MOST_RANKS = 4, 8


def print_mesh(console: Console, experiment: Experiment, program: Program) -> None:
    """Print the axes with their groups of ranks, and what a rank sends along each in a step."""
    mesh, others = experiment.mesh, experiment.roles[1:]
    order = [axis for axis in experiment.parallel.rank_order if mesh.degrees[axis] > 1]
    if not order and not others:
        return
    shape = " × ".join(f"{axis} {mesh.degrees[axis]}" for axis in order) or "one rank"
    how = f"; ranks that follow each other differ in {order[-1]}" if order else ""
    print_filled(console, f"mesh: {shape}{how}")
    for role in others:
        one = len(role.ranks) == 1
        which = f"{role.name}: rank" if one else f"{role.name}s: ranks"
        print_filled(console, f"{which} {listed(role.ranks)}")
    table = Table("along", "groups of ranks", "operation", "times", "bytes")
    for (along, operation), traffic in sorted(_traffic(program, experiment).items()):
        groups = [_ranks(group) for group in traffic.groups]
        shown = " | ".join(groups[:MOST_GROUPS])
        more = f" | … {len(groups)} in all" if len(groups) > MOST_GROUPS else ""
        count, total = traffic.most
        table.add_row(along, shown + more, operation, f"{count}", nbytes(total))
    console.print(table)
    horizon = experiment.run.horizon
    steps = "one step" if horizon == 1 else f"{horizon} steps"
    console.print(f"times, bytes: of all such operations of one rank in {steps}, where it has most")


@dataclass
class Traffic:
    """The operations of one name along some axes.

    Attributes:
        groups: the ranks that are joined by these axes.
        most: the number of operations, and their bytes, of the rank that has most.
    """

    groups: list[tuple[int, ...]]
    most: tuple[int, int] = (0, 0)


def _ranks(group: Sequence[int]) -> str:
    """Return the ranks of a group, long ones shortened."""
    if len(group) <= MOST_RANKS:
        return " ".join(map(str, group))
    return f"{' '.join(map(str, group[:3]))} … {group[-1]} ({len(group)} ranks)"


def _traffic(program: Program, experiment: Experiment) -> dict[tuple[str, str], Traffic]:
    """Return what is sent, by what it is along (axes, and roles beside the mesh) and its name."""
    found: dict[tuple[str, str], Traffic] = {}
    mesh = experiment.mesh
    known: dict[int, tuple[str, str]] = {}
    for instructions in program.ranks:
        counts: Counter[tuple[str, str]] = Counter()
        totals: Counter[tuple[str, str]] = Counter()
        for instruction in instructions:
            task = instruction.task
            if task.op not in COMMUNICATION or task.op is Op.ACCEPT:  # requests have a line
                continue
            if id(task) not in known:
                pair = tuple(sorted((instruction.rank, task.peer)))
                group = pair if task.op in MESSAGES else task.group
                key = known[id(task)] = (_along(experiment, group), task.name)
                if max(group) >= mesh.world_size:  # each is named, as no mesh has them
                    named = found.setdefault(key, Traffic([])).groups
                    named += [group] if group not in named else []
                elif key not in found:
                    found[key] = Traffic(mesh.groups(*mesh.axes_of(group)))
            counts[known[id(task)]] += 1
            totals[known[id(task)]] += task.nbytes
        for key, count in counts.items():
            found[key].most = max(found[key].most, (count, totals[key]))
    return found


def _along(experiment: Experiment, group: tuple[int, ...]) -> str:
    """Return the axes that the trainers of a group are along, and the other roles in it."""
    mesh = experiment.mesh
    axes = mesh.axes_of([rank for rank in group if rank < mesh.world_size])
    others = [rank for rank in group if rank >= mesh.world_size]
    roles = dict.fromkeys(experiment.role_of(rank)[0].name for rank in others)
    return " + ".join([*([" × ".join(axes)] if axes else []), *roles])
