"""The public package: what it exports, and what importing it does not load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import twinline as tw

ROOT = Path(__file__).resolve().parents[2]

LIGHT = """
import sys
sys.path[:0] = [".", "runtime"]
import twinline
heavy = {"torch", "matplotlib", "numpy", "pydantic", "simpy", "rich"} & sys.modules.keys()
assert not heavy, heavy
assert callable(twinline.predict)
assert "numpy" in sys.modules and "matplotlib" not in sys.modules
assert callable(twinline.timeline_figure)
assert "matplotlib" in sys.modules and "torch" not in sys.modules
"""


def test_what_takes_long_is_imported_when_it_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there_once_and_in_order() -> None:
    assert sorted(set(tw.__all__)) == tw.__all__ == dir(tw)
    for name in tw.__all__:
        assert getattr(tw, name) is not None
    public = {name for name in vars(tw) if not name.startswith("_")}
    assert public - {"lazy_names"} == set(tw.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'draw_timeline'"):
        tw.draw_timeline  # noqa: B018


def test_ten_lines_of_python(tmp_path: Path) -> None:
    plan = tw.experiment(model="gpt", layers=4, pipeline=2, microbatches=4, schedule="1f1b")
    prediction = tw.predict(plan)
    assert prediction.iteration_time_s > 0
    assert prediction.ranks[0].peak_memory_bytes > 0
    tw.timeline_figure(prediction.timeline, title="1F1B").save(tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").stat().st_size > 10_000
    assert "laptop" in tw.clusters()
    assert any("1f1b" in entry.name or "1f1b" in entry.setting for entry in tw.strategies())


def test_a_program_can_be_simulated_with_costs_of_ones_own() -> None:
    class OneSecond(tw.Costs):
        def __init__(self) -> None:
            self.capacities: dict[str, float] = {}

        def seconds(self, instruction: tw.Instruction) -> float:
            return 1.0 if instruction.task.stream == tw.COMPUTE_STREAM else 0.0

    program = tw.lower(tw.experiment(model="unit", pipeline=3, microbatches=4, schedule="gpipe"))
    tw.check_program(program)
    timeline = tw.simulate(program, OneSecond())
    assert timeline.iteration_time == 2 * (4 + 3 - 1)
