"""Every strategy is listed, in the docs too, and its refusals are asked."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from simulator import load
from simulator.experiment.check_registry import registered_checks
from simulator.strategies import plugins
from simulator.strategies.registry import OURS, markdown, strategies
from simulator.strategies.schedules.registry import SCHEDULES

PAGE = Path(__file__).parents[3] / "docs" / "strategies.md"


def test_every_schedule_is_listed() -> None:
    entries = {strategy.name: strategy for strategy in strategies()}
    for name, module in SCHEDULES.items():
        assert entries[name].summary == module.SUMMARY
        assert f'"{name}"' in entries[name].setting


def test_the_table_of_the_docs_is_todays() -> None:
    assert PAGE.read_text(encoding="utf-8").endswith(f"\n\n{markdown()}")


def test_every_check_of_a_strategy_is_asked_of_every_experiment() -> None:
    assert {check for s in OURS for check in s.checks} <= set(registered_checks())


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["parallel.pipeline=1", "parallel.microbatches=1"], {"one device", "1f1b"}),
        (["parallel.data=2"], {"data parallel", "gradient accumulation", "1f1b", "hybrids"}),
        (
            ["parallel.zero=3", "parallel.data=2", "parallel.pipeline=1"],
            {"data parallel", "sharded data parallel", "gradient accumulation", "1f1b"},
        ),
        (
            ["parallel.tensor=2", "parallel.pipeline=1", "parallel.recompute=full"],
            {"tensor parallel", "full recomputation", "gradient accumulation", "1f1b"},
        ),
    ],
)
def test_an_experiment_asks_for_strategies(keys: list[str], names: set[str]) -> None:
    plan = load(None, keys)
    assert {strategy.name for strategy in strategies() if strategy.applies(plan)} == names


def test_installed_packages_are_listed_and_their_failures_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = {
        "twinline.schedules": ["simulator.strategies.schedules.gpipe", "nothing_at_all"],
        "twinline.policies": ["simulator.program.arrival:FirstCome", "simulator.units"],
        "twinline.transforms": ["simulator.strategies.gradients.clipping:insert_gradient_norms"],
    }

    def entry_points(group: str) -> list[metadata.EntryPoint]:
        return [metadata.EntryPoint(f"own-{i}", v, group) for i, v in enumerate(points[group])]

    monkeypatch.setattr(plugins.metadata, "entry_points", entry_points)
    own = [strategy for strategy in strategies() if strategy.family == "of your own"]
    assert [strategy.summary.partition(":")[0] for strategy in own] == [
        "GPipe",
        "parallel.schedule = 'own-1'",
        "Serves whoever comes first, and updates after every push.",
        "parallel.policy = 'own-1'",
        "Insert, before the optimizer steps of every rank, the norm that they wait for.",
    ]
    assert own[4].setting == 'parallel.transforms = ["own-0"]'
    assert set(own[0].to_json()) == {"name", "family", "setting", "summary"}
