"""The refusals that ``docs/experiment.md`` shows are what the program says, word for word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulator.experiment.section import ExperimentError
from simulator.experiment_file import load
from simulator.prediction import predict

PAGE = (Path(__file__).parent.parent / "docs" / "experiment.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^twinline: (.*)$", PAGE, re.MULTILINE)

MISTAKES = [
    "parallel.context=3 parallel.pipeline=1",
    "parallel.context=8 parallel.context_style=ulysses",
    "parallel.context=2 workload.model=mlp",
    "parallel.context_style=ulysses",
    "workload.model=mlp parallel.tensor_style=row",
    "parallel.virtual_stages=2",
    "parallel.schedule=interleaved-1f1b",
    "parallel.schedule=interleaved-1f1b parallel.virtual_stages=2 parallel.microbatches=5",
    "parallel.schedule=pipedream-2bw parallel.microbatches=3",
    "parallel.schedule=interleaved-1f1b parallel.virtual_stages=2 workload.layers=2",
    "parallel.split=[2,3]",
    "parallel.memory_limit=3",
    "parallel.zero=1",
    "parallel.zero=1 parallel.data=2 workload.model=unit",
    "parallel.zero=1 parallel.data=2 parallel.schedule=pipedream",
    "parallel.zero=1 parallel.data=6 parallel.zero_group=4",
    "parallel.data=2 parallel.zero_group=2",
    "parallel.zero=2 parallel.data=2 parallel.prefetch=1",
    "parallel.expert=2",
    "workload.model=moe-gpt parallel.expert=3",
    "workload.model=moe-gpt parallel.expert=2 parallel.data=2 parallel.zero=1"
    " parallel.zero_group=2",
    "workload.layer=3",
    "paralel.data=2",
    "workload.layers='4'",
    "workload.dtype=int8",
    "workload.model=moe-gpt workload.top_k=5",
    "workload.experts=8",
    "workload.model=moe-gpt workload.zipf_exponent=2",
    "workload.model=moe-gpt workload.routing=file:load.json",
    "workload.heads=5",
    "workload.global_batch=10",
    "parallel.pipeline=5",
    "cluster.profile=x.json cluster.preset=laptop",
]
"""A mistake in the built-in experiment for every refusal, in the order of the page."""


def test_there_is_a_mistake_for_every_refusal() -> None:
    assert len(MISTAKES) == len(SHOWN)


@pytest.mark.parametrize(("mistake", "shown"), list(zip(MISTAKES, SHOWN, strict=False)))
def test_a_documented_refusal(
    mistake: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "load.json").write_text("[0.25, 0.25, 0.125, 0.125]")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExperimentError) as refused:
        predict(load(None, mistake.split()))
    assert str(refused.value) == shown
