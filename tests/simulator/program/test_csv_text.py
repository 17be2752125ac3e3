"""The CSV form of a program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulator import ExperimentError, load, lower
from simulator.program.csv_text import to_csv
from simulator.strategies.schedules.registry import SCHEDULES

PLAN = ["workload.model=mlp", "parallel.microbatches=2", "parallel.pipeline=2", "parallel.data=2"]


def test_a_row_per_rank_with_every_label_once() -> None:
    program = lower(load(None, PLAN))
    rows = [row.split(",") for row in to_csv(program).splitlines()]
    assert rows == [[i.label for i in instructions] for instructions in program.ranks]
    assert all(len(row) == len(set(row)) for row in rows)


def test_passes_only_has_one_replica_and_whole_stages() -> None:
    cut = lower(load(None, [*PLAN, "parallel.bucket_mb=0.001"]))
    assert any(i.task.segment == 1 for i in cut)
    assert to_csv(cut, compute_only=True) == "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"


def test_passes_of_several_steps_are_counted_on() -> None:
    steps = lower(load(None, ["workload.model=unit", "parallel.microbatches=2", "run.horizon=2"]))
    assert to_csv(steps, compute_only=True) == (
        "0F0,0F1,0B0,0B1,0F2,0F3,0B2,0B3\n1F0,1B0,1F1,1B1,1F2,1B2,1F3,1B3\n"
    )
    assert to_csv(steps).splitlines()[1].endswith("s1:1B1,s1:1SEND_B1")


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("data", [1, 2])
def test_written_and_read_again(tmp_path, name: str, data: int) -> None:
    """The same program; of asynchronous schedules the passes, as the CSV has no updates."""
    plan = [
        "workload.model=mlp",
        "workload.layers=6",
        "parallel.pipeline=3",
        f"parallel.data={data}",
    ]
    plan += ["parallel.microbatches=6", "parallel.bucket_mb=0.001"]
    for virtual_stages in (1, 2):
        keys = [*plan, f"parallel.virtual_stages={virtual_stages}"]
        try:
            program = lower(load(None, [*keys, f"parallel.schedule={name}"]))
        except ExperimentError:
            continue
        path = tmp_path / "schedule.csv"
        path.write_text(to_csv(program, compute_only=True))
        again = lower(load(None, [*keys, f"parallel.schedule=csv:{path}"]))
        if hasattr(SCHEDULES[name], "updates"):
            assert to_csv(again, compute_only=True) == to_csv(program, compute_only=True)
        else:
            assert again.hash() == program.hash()
    assert path.exists()


def read(path: Path, text: str | bytes, *more: str) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    settings = ["workload.model=unit", "parallel.microbatches=1", f"parallel.schedule=csv:{path}"]
    return to_csv(lower(load(None, [*settings, *more])), compute_only=True)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("0F0,0B0\n1F0,1B0\n", "0F0,0B0\n1F0,1B0\n"),
        ("1F0, 1B0\n\n0F0 ,0B0", "1F0,1B0\n0F0,0B0\n"),  # rank 0 may own stage 1
        ("0F0,,0SEND_F0,0RECV_B0,0I0,0W0,0STEP\n1F0,1B0", "0F0,0I0,0W0\n1F0,1B0\n"),
        ("\ufeff0F0,0B0\n1F0,1B0\n", "0F0,0B0\n1F0,1B0\n"),  # a byte order mark
        ("0F0,0BW0\n1F0,1B0,1W0", "0F0,0B0\n1F0,1I0,1W0\n"),  # as torch 2.5 wrote it
    ],
)
def test_a_schedule_from_a_file(tmp_path: Path, text: str, passes: str) -> None:
    assert read(tmp_path / "s.csv", text) == passes


def test_several_stages_a_rank_and_overlapped_passes(tmp_path: Path) -> None:
    text = "0F0,3F0,3B0,0B0\n1F0,2F0,(2B0;1B0)OVERLAP_F_B\n"
    found = read(tmp_path / "s.csv", text, "parallel.virtual_stages=2")
    assert found == "0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "stages []"),
        (b"\xff", "can't decode"),
        ("0F0,0B0\n1F0,1Q0", "row 1: '1Q0' is not an action"),
        ("0F0,0B0\n0F0,1F0,1B0", "stage 0 is on rank 0 and on rank 1"),
        ("0F0,0B0\n2F0,2B0", "stages [0, 2]"),
        ("0F0,0B0", "pipeline = 2; the file has 1"),
        ("0F0,2F0,2B0,0B0\n1F0,1B0", "virtual_stages = 1; the file has 1.5"),
        ("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1", "microbatches = 1; the file has 2"),
        ("0F1,0B1\n1F1,1B1", "stage 0, microbatch 0 has []"),
        ("0F0,0B0,0F0\n1F0,1B0", "stage 0, microbatch 0 has ['F', 'B', 'F']"),
        ("0F0,0W0,0I0\n1F0,1B0", "stage 0, microbatch 0 has ['F', 'W', 'I']"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "s.csv"
    with pytest.raises(ExperimentError, match=re.escape(message)) as error:
        read(path, text)
    assert str(error.value).startswith(f"parallel.schedule = 'csv:{path}'")
    assert str(error.value).count(str(path)) == 1
    assert "\n" not in str(error.value)


def test_an_order_that_cannot_run_is_refused(tmp_path: Path) -> None:
    """Rank 1 wants microbatch 1 first, but rank 0 sends it only after B0, which needs 1F0."""
    text = "0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n"
    with pytest.raises(ExperimentError, match=r"deadlock: rank 0 .*; rank 1 "):
        read(tmp_path / "s.csv", text, "parallel.microbatches=2")


def test_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    with pytest.raises(ExperimentError) as error:
        load(None, [f"parallel.schedule=csv:{path}"])
    assert str(error.value) == f"parallel.schedule = 'csv:{path}': No such file or directory"
