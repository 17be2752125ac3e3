"""The layers of each rank are in the table of ``predict`` and before the CSV of ``program``."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from simulator import load, predict
from simulator.cli.contents import lines_of_contents, print_contents

PLAN = ["workload.layers=30", "parallel.pipeline=4", "cluster.preset=dgx-h100"]


def printed(*plan: str) -> str:
    console = Console(file=StringIO(), width=80, highlight=False)
    print_contents(console, predict(load(None, [*PLAN, *plan])).metrics)
    return console.file.getvalue()


def test_the_table_fits_and_says_which_blocks_a_rank_has() -> None:
    text = printed()
    assert "at the peak of memory" in text
    assert "embedding, blocks 0–" in text
    assert "head" in text
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[1].startswith("rank ")
    assert "buffers" not in text
    assert "buffers" in printed("parallel.data=2", "parallel.zero=3")


def test_ranks_that_are_alike_share_a_row() -> None:
    alike = {"data": ["0,", "1,", "2,", "3,"], "tensor": ["0–1", "2–3", "4–5", "6–7"]}
    for axis, first in alike.items():
        lines = printed(f"parallel.{axis}=2").splitlines()
        assert lines[1].startswith("ranks ")
        assert [line.split()[0] for line in lines if "million" in line[20:]] == first


@pytest.mark.parametrize("rank", range(4))
def test_a_line_for_each_pipeline_rank(rank: int) -> None:
    lines = lines_of_contents(load(None, [*PLAN, "parallel.data=2"]))
    assert len(lines) == 5
    assert lines[0] == "the model has 23.86 million parameters"
    assert lines[1 + rank].startswith(f"pipeline rank {rank}: ")
    assert ("embedding" in lines[1 + rank]) == (rank == 0)
