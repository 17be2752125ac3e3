"""One verdict says whether a plan fits, of the device or host with the least memory left over."""

from __future__ import annotations

import numpy as np

from simulator import load, predict
from simulator.analysis.memory_fit import MemoryFit, memory_fit
from simulator.cluster.catalogue import load_preset
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.task import Task
from simulator.timeline.timeline import MemorySamples, Timeline


def holding(*peaks: int) -> Timeline:
    """A timeline of ranks that hold so many bytes."""
    return Timeline.of_program(
        Program([[Instruction(Task(Op.FORWARD, 0))] for _ in peaks]),
        *np.zeros((3, len(peaks))),
        memory=[MemorySamples(np.zeros(1), np.array([peak])) for peak in peaks],
    )


def test_the_fullest_device_is_named() -> None:
    h100 = load_preset("dgx-h100")
    have = 80 * 2**30
    fit = memory_fit(holding(1, have, 2, have), h100)
    assert fit == MemoryFit((1,), have, have, "device")
    assert fit.fits  # to the last byte
    fit = memory_fit(holding(1, have, have + 1), h100)
    assert fit == MemoryFit((2,), have + 1, have, "device")
    assert not fit.fits


def test_ranks_that_share_memory_add_up() -> None:
    shared = load_preset("dgx-h100").shared_by(2)
    assert memory_fit(holding(5, 1, 3, 4), shared) == MemoryFit((2, 3), 7, 80 * 2**30, "device")
    laptop = load_preset("laptop")
    assert memory_fit(holding(5, 1), laptop) == MemoryFit((0, 1), 6, 16 * 2**30, "host")


def test_the_verdict_is_one_line_in_the_unit_of_tables() -> None:
    fits = MemoryFit((3,), 67_900_000_000, 80 * 2**30, "device")
    assert (
        str(fits) == "memory: 67.9 GB of 85.9 GB on the fullest device (rank 3): fits, 18 GB left"
    )
    barely_not = MemoryFit(tuple(range(8)), 16 * 2**30 + 4096, 16 * 2**30, "host")
    assert str(barely_not) == (
        "memory: 17.2 GB of 17.2 GB on the fullest host (ranks 0–7): does not fit, 4.1 kB too much"
    )


def test_json_has_the_bytes() -> None:
    assert MemoryFit((0, 1), 6, 5, "host").to_json() == {
        "fits": False,
        "ranks": [0, 1],
        "needed_bytes": 6,
        "available_bytes": 5,
        "holder": "host",
    }


def test_a_workload_of_times_alone_has_no_verdict() -> None:
    prediction = predict(load(None, ["workload.model=unit"]))
    assert prediction.memory_fit is None
    assert prediction.to_json()["memory_fit"] is None


def test_a_prediction_that_fits_has_no_note_and_one_that_does_not_has_the_verdict() -> None:
    plan = ["workload.layers=8", "workload.dtype=bf16", "cluster.preset=dgx-h100"]
    small, large = (
        predict(load(None, [*plan, f"workload.hidden={hidden}"])) for hidden in (64, 16384)
    )
    assert small.memory_fit is not None
    assert large.memory_fit is not None
    assert (small.memory_fit.fits, small.notes) == (True, [])
    assert (large.memory_fit.fits, large.notes) == (False, [str(large.memory_fit)])
    for prediction in (small, large):
        fit = prediction.memory_fit
        assert prediction.to_json()["memory_fit"] == fit.to_json()
        assert fit.needed_bytes == prediction.peak_memory_bytes
        assert prediction._repr_html_().count("memory: ") == 1
