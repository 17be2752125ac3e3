"""The examples of docs/plugins.md are predicted, and executed on two ranks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runtime.launch.job import Job
from runtime.rank.replay import replay
from simulator.experiment_file import parse
from simulator.prediction import predict
from simulator.strategies.lowering import lower

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, not that of the ranks, with the files of the page."""
    package = tmp_path / "package_of_docs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for name, text in EXAMPLES:
        (tmp_path / name).write_text(text)
        (package / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(**parallel):
    workload = {"model": "gpt", "layers": 4, "hidden": 8, "heads": 2, "sequence": 8}
    return parse(
        {
            "workload": workload | {"dtype": "fp64"},
            "parallel": {"microbatches": 4} | parallel,
            "run": {"iterations": 2, "warmup": 0},
        }
    )


def losses(workers, experiment):
    answer = workers.run(Job(experiment))
    assert answer["hash"] == lower(experiment).hash()
    return answer["measurement"]["losses"]


@pytest.mark.parametrize("name", ["file:my_schedule.py", "package_of_docs.my_schedule"])
def test_the_schedule_is_predicted_and_executed(workers, folder: Path, name: str) -> None:
    mine, ours = plan(pipeline=2, schedule=name), plan(pipeline=2)
    passes = [i.label for i in lower(mine).ranks[1] if i.task.op in "FB"]
    assert passes == ["1F0", "1F1", "1B0", "1B1", "1F2", "1F3", "1B2", "1B3"]
    assert predict(mine).timeline.iteration_time > 0
    assert losses(workers, mine) == pytest.approx(losses(workers, ours), rel=1e-12)


@pytest.mark.parametrize("name", ["file:no_overlap.py", "package_of_docs.no_overlap.transform"])
def test_the_transform_is_predicted_and_executed(workers, folder: Path, name: str) -> None:
    mine, ours = plan(data=2, bucket_mb=0.001, transforms=[name]), plan(data=2, bucket_mb=0.001)
    for instructions in lower(mine).ranks:
        ops = [i.task.op.value for i in instructions]
        assert ops.index("ALL_REDUCE") > max(k for k, op in enumerate(ops) if op == "B")
    assert lower(mine).hash() != lower(ours).hash()
    assert losses(workers, mine) == pytest.approx(losses(workers, ours), rel=1e-12)


@pytest.mark.parametrize("name", ["file:slowest_first.py", "package_of_docs.slowest_first"])
def test_the_policy_is_asked_by_both_and_its_decisions_are_replayed(
    workers, folder: Path, name: str
) -> None:
    mine = parse(
        {
            "workload": {"layers": 2, "hidden": 8, "heads": 2, "sequence": 8, "dtype": "fp64"},
            "parallel": {"data_style": "asynchronous", "data": 3, "policy": name},
            "run": {"iterations": 2, "warmup": 0, "horizon": 3},
        }
    )
    predicted = predict(mine)
    (queue,) = predicted.program.queues
    assert repr(queue.policy) == "SlowestFirst(count=2)"
    updates = len(queue.steps) - len(predicted.recorded.idle)
    assert updates == 5  # of nine pushes, the last one alone
    answer = workers.run(Job(mine, return_tensors=True))
    assert answer["hash"] == predicted.program.hash()
    server = replay(mine, predicted.program, answer["measurement"]["decisions"])[-1]
    (parameters,) = server.parameters.values()
    (tensors,) = answer["tensors"]["3"].values()
    assert parameters.shard.tolist() == tensors[0]


def test_there_are_three_examples() -> None:
    assert [name for name, _ in EXAMPLES] == ["my_schedule.py", "no_overlap.py", "slowest_first.py"]
