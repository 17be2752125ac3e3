"""The load of experts and what they drop, counted in real runs."""

from __future__ import annotations

import json
import math

import pytest
import torch

from runtime.execution.running import run as run_experiment
from runtime.models.batches import microbatch
from runtime.models.segment import build_layer
from simulator.prediction import predict
from simulator.workloads.describe import describe

CPU = torch.device("cpu")
PLANS = [
    {"microbatches": 2},
    {"data": 2, "microbatches": 2, "experts": 3, "top_k": 1},
    {"pipeline": 2, "microbatches": 3, "schedule": "zb-v", "virtual_stages": 2, "data": 2},
    {"expert": 2, "data": 2, "microbatches": 2},
    {"expert": 2, "tensor": 2, "sequence_parallel": True},
]


@pytest.mark.parametrize("plan", PLANS)
def test_choices_are_counted_on_every_rank(run, plan):
    """As many as the modules of one process count in the same microbatches."""
    keys = {"model": "moe-gpt", "capacity_factor": 0.8, **plan}
    ran = run(**keys, iterations=1)  # then all passes are those of the first weights
    experiment, measured = ran.experiment, ran.measurement.moe
    shares = experiment.parallel.batch_shares
    one = {"data": shares, "expert": 1, "tensor": 1, "sequence_parallel": False}
    alone = experiment.parallel.model_copy(update=one)
    whole = experiment.model_copy(update={"parallel": alone})
    layers = [build_layer(whole, i, CPU) for i in range(len(describe(whole)))]
    for index in range(experiment.parallel.microbatches * shares):
        x, _ = microbatch(experiment, 0, index, CPU)
        for layer in layers[:-1]:
            x = layer(x)
    counters = [layer.dispatch.counter for layer in layers[2:-1:2]]
    blocks = [counter.load.tolist() for counter in counters]
    choices = sum(map(sum, blocks))
    assert choices == experiment.global_batch * 8 * experiment.workload.top_k * 4
    assert measured["dropped_share"] == sum(int(c.dropped) for c in counters) / choices > 0
    assert measured["load"] == [sum(each) / choices for each in zip(*blocks, strict=True)]
    assert measured["load_of_blocks"] == [[n / sum(block) for n in block] for block in blocks]


def test_only_measured_iterations_count(run):
    keys = {"model": "moe-gpt", "microbatches": 2, "learning_rate": 1.0}
    one, last, both = (
        run(**keys, warmup=warmup, iterations=iterations).measurement.moe
        for warmup, iterations in ((0, 1), (1, 1), (0, 2))
    )
    assert one != last
    mean = [(first + second) / 2 for first, second in zip(one["load"], last["load"], strict=True)]
    assert both["load"] == pytest.approx(mean)


@pytest.mark.parametrize("keys", [{}, {"experts": 7, "top_k": 3}, {"top_k": 1, "layers": 1}])
def test_the_drop_of_a_recorded_load_is_the_drop_that_was_measured(
    workers, experiment, tmp_path, keys
):
    """Of a single microbatch: its load is not an average of several."""
    tiny = experiment(**{"model": "moe-gpt", "layers": 3, "capacity_factor": 0.9, **keys})
    tiny = tiny.model_copy(update={"run": tiny.run.model_copy(update={"iterations": 1})})
    measured = run_experiment(tiny, workers=workers).moe
    assert math.fsum(measured.load) == pytest.approx(1)
    path = tmp_path / "load.json"

    def predicted(load):
        path.write_text(json.dumps(load))
        recorded = tiny.workload.model_copy(update={"routing": f"file:{path}"})
        return predict(tiny.model_copy(update={"workload": recorded})).moe

    again = predicted(measured.load_of_blocks)
    assert again.load_of_blocks == measured.load_of_blocks
    assert again.load == pytest.approx(measured.load)
    assert again.dropped_share == pytest.approx(measured.dropped_share, abs=1e-12)
    average = predicted(measured.load).dropped_share
    assert 0 < average < again.dropped_share or len(again.load_of_blocks) == 1


def test_models_without_experts_have_no_such_figures(run):
    assert run(microbatches=3).measurement.moe is None
