"""The table of the device mesh."""

from __future__ import annotations

import io

from rich.console import Console

from simulator import load, lower
from simulator.cli.mesh import print_mesh
from simulator.program.operations import Op
from simulator.units import nbytes


def shown(*settings: str) -> str:
    experiment = load(None, settings)
    console = Console(file=io.StringIO(), width=200)
    print_mesh(console, experiment, lower(experiment))
    return console.file.getvalue()  # type: ignore[attr-defined]


def row(text: str, axis: str, operation: str) -> list[str]:
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    (found,) = (cells for cells in rows if cells and (cells[0], cells[2]) == (axis, operation))
    return found[1:]


def test_one_rank_has_no_mesh() -> None:
    assert shown("parallel.pipeline=1") == ""


def test_axes_and_the_groups_along_each() -> None:
    text = shown("parallel.pipeline=2", "parallel.data=2", "parallel.microbatches=3")
    assert "mesh: data 2 × pipeline 2; ranks that follow each other differ in pipeline" in text
    groups, operation, times, _ = row(text, "pipeline", "SEND_F")
    assert (groups, operation, times) == ("0 1 | 2 3", "SEND_F", "3")
    assert row(text, "data", "REDUCE_GRAD")[0] == "0 2 | 1 3"


def test_many_groups_and_long_ones_are_shortened() -> None:
    text = shown("parallel.pipeline=1", "parallel.data=16")
    assert "0 1 2 … 15 (16 ranks)" in text
    text = shown("parallel.pipeline=2", "parallel.data=8")
    assert "0 1 | 2 3 | 4 5 | 6 7 | … 8 in all" in text


def test_servers_and_who_talks_to_them() -> None:
    served = ("parallel.pipeline=2", "parallel.data_style=parameter-server")
    text = shown(*served, "parallel.data=2", "parallel.servers=2")
    assert "servers: ranks 4–5" in text
    assert row(text, "data + server", "BROADCAST")[0] == "0 2 4 | 1 3 5"
    assert row(text, "pipeline", "SEND_F")[0] == "0 1 | 2 3"
    text = shown(served[1], "parallel.pipeline=1")
    assert "mesh: one rank\nserver: rank 1\n" in text
    assert row(text, "server", "REDUCE_GRAD")[0] == "0 1"


def test_the_bytes_are_those_of_the_rank_that_sends_most() -> None:
    settings = ("parallel.pipeline=4", "parallel.data=2", "workload.layers=4")
    sent = [
        sum(i.task.nbytes for i in instructions if i.task.op is Op.ALL_REDUCE)
        for instructions in lower(load(None, settings)).ranks
    ]
    assert min(sent) < max(sent)
    assert row(shown(*settings), "data", "REDUCE_GRAD")[3] == nbytes(max(sent))
