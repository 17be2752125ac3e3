"""A host runs ahead on GPUs that use NCCL, unless it has to know what has ended."""

from __future__ import annotations

import pytest

from simulator.experiment.host_choice import runs_ahead, uses_nccl
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import parse
from simulator.strategies.lowering import lower


def made(**tables):
    return parse(tables)


GPU = {"device": "cuda"}


@pytest.mark.parametrize(
    ("run", "cluster", "nccl", "ahead"),
    [
        ({}, {}, False, False),
        ({"host": "runs-ahead"}, {}, False, True),
        (GPU, {}, True, True),
        (GPU | {"host": "waits"}, {}, True, False),
        (GPU | {"backend": "gloo"}, {}, False, False),
        (GPU, {"ranks_per_device": 2}, False, False),
        (GPU | {"backend": "nccl"}, {"ranks_per_device": 2}, True, True),
        (GPU | {"pace": 2.0}, {}, True, False),
    ],
)
def test_what_is_chosen(run, cluster, nccl, ahead):
    experiment = made(run=run, cluster=cluster)
    assert uses_nccl(experiment) is nccl
    assert runs_ahead(experiment, lower(experiment)) is ahead


def test_on_a_gpu_hosts_wait_where_the_order_of_launches_would_hang():
    """They need not on a CPU, whose streams launch nothing in order."""
    late = {"data": 2, "data_style": "parameter-server", "servers": 2, "bucket_mb": 0.5}
    for run, ahead in ((GPU, False), ({"host": "runs-ahead"}, True)):
        experiment = made(run=run, parallel=late)
        assert runs_ahead(experiment, lower(experiment)) is ahead
    told = made(run=GPU | {"host": "runs-ahead"}, parallel=late)
    with pytest.raises(ExperimentError, match=r"^run.host = 'runs-ahead': rank .* never ends"):
        runs_ahead(told, lower(told))


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ({"run": {"pace": 2.0}}, "with run.pace the host sleeps"),
        ({"workload": {"model": "unit"}}, "with workload.model = 'unit' the host sleeps"),
        (
            {"parallel": {"pipeline": 1, "data": 2, "data_style": "asynchronous"}},
            "the host decides who is served",
        ),
        ({"run": GPU | {"backend": "gloo"}}, "on GPUs gloo's transfers are of the host"),
    ],
)
def test_what_is_refused(tables, reason):
    run = tables.get("run", {}) | {"host": "runs-ahead"}
    with pytest.raises(ExperimentError, match=reason) as error:
        made(**tables | {"run": run})
    assert str(error.value).startswith("run.host = 'runs-ahead': ")
    assert str(error.value).endswith("; allowed: 'auto', 'waits'")
