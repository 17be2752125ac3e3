"""The layers of each rank, and its peak of memory, as a table and as lines for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from simulator.analysis.contents import contents_of_ranks, describe_stages, model_parameters
from simulator.analysis.results import Metrics, RankMetrics
from simulator.cli.results import MOST_ROWS
from simulator.experiment.experiment import Experiment
from simulator.timeline.timeline import MemoryParts
from simulator.units import count, listed, nbytes


def print_contents(console: Console, metrics: Metrics) -> None:
    """Print the layers and parameters of each rank, and what its peak of memory consists of.

    Ranks that are alike share a row. Parts that no rank has get no column.
    """
    groups: dict[tuple[object, ...], list[RankMetrics]] = {}
    for rank in metrics.ranks:
        groups.setdefault((rank.role, rank.stages, rank.peak_memory_parts), []).append(rank)
    known = [rank.peak_memory_parts for rank in metrics.ranks if rank.peak_memory_parts]
    used = [name for name in MemoryParts._fields if any(getattr(part, name) for part in known)]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("ranks" if len(groups) < len(metrics.ranks) else "rank")
    table.add_column("layers", overflow="fold")
    table.add_column("parameters", justify="right")
    for name in used:
        table.add_column("weights" if name == "parameters" else name, justify="right")
    for ranks in [*groups.values()][:MOST_ROWS]:
        first, parts = ranks[0], ranks[0].peak_memory_parts or MemoryParts()
        table.add_row(
            listed([rank.rank for rank in ranks]),
            describe_stages(first.stages) if first.stages else first.role,
            count(first.parameters),
            *(nbytes(getattr(parts, name)) for name in used),
        )
    if used:
        console.print("at the peak of memory, each rank holds:")
    console.print(table)
    if len(groups) > MOST_ROWS:
        console.print(f"… and {len(groups) - MOST_ROWS} more kinds of ranks (all in --json)")


def lines_of_contents(experiment: Experiment) -> list[str]:
    """Return a line for the model, and one for every pipeline rank with its layers."""
    lines = [f"the model has {count(model_parameters(experiment))} parameters"]
    for rank, stages in enumerate(contents_of_ranks(experiment)):
        parameters = sum(stage.parameters for stage in stages)
        lines.append(
            f"pipeline rank {rank}: {describe_stages(stages)}; {count(parameters)} parameters"
        )
    return lines
