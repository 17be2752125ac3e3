"""Styles in which ranks go at their own pace refuse divided models and NCCL, each by its reason."""

from __future__ import annotations

import pytest

from simulator import ExperimentError, load

STYLES = [
    ("data_style=asynchronous", "each worker has the whole model", "a server receives"),
    ("data_style=work-queue", "each worker has the whole model", "a server serves"),
    ("data_style=ad-psgd topology=ring", "each replica is one rank", "a replica serves"),
]


@pytest.mark.parametrize(("style", "whole", "serves"), STYLES)
def test_divided_models_and_nccl_are_refused(style: str, whole: str, serves: str) -> None:
    keys = ["data=4", *style.split()]
    with pytest.raises(ExperimentError, match=f"parallel.pipeline = 2: .*{whole}; allowed: 1"):
        load(None, [*keys, "pipeline=2"])
    name = style.split()[0].partition("=")[2]
    with pytest.raises(ExperimentError, match=f"run.backend = 'auto': .*'{name}' {serves}"):
        load(None, [*keys, "pipeline=1", "run.device=cuda"])
