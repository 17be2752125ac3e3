"""16-bit weights with fp32 master weights, and the loss scale of fp16."""

from __future__ import annotations

import pytest
import torch

from runtime.executor.loss_scale import LossScaler
from runtime.executor.parameters import Parameters
from runtime.models.segment import Segment
from simulator.strategies.lowering import lower

CPU = torch.device("cpu")


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_updates_too_small_for_16_bits_add_up(experiment, dtype, optimizer):
    """The master weights are those of torch's optimizer on fp32 copies; the 16-bit ones are
    their rounded values."""
    tiny = experiment(dtype=dtype, optimizer=optimizer, layers=1)
    flat = Parameters(tiny, [Segment(tiny, 1, 2, CPU)])
    theirs = torch.nn.Parameter(flat.values.float().clone())
    make = {
        "sgd": lambda p: torch.optim.SGD(p, lr=1e-4),
        "momentum": lambda p: torch.optim.SGD(p, lr=1e-4, momentum=0.9),
        "adam": lambda p: torch.optim.Adam(p, lr=1e-4),
        "adamw": lambda p: torch.optim.AdamW(p, lr=1e-4),
    }[optimizer]
    reference, before = make([theirs]), flat.values.clone()
    torch.manual_seed(0)
    direction = torch.randn(len(flat.values)).to(flat.values.dtype)
    for _ in range(20):
        flat.gradients.copy_(direction)
        theirs.grad = direction.float()
        flat.update(1e-4, flat.scaled_gradients())
        reference.step()
    assert torch.equal(flat.values, theirs.detach().to(flat.values.dtype))
    assert not torch.equal(flat.values, before)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize(
    ("optimizer", "per_parameter"), [("sgd", 8), ("momentum", 12), ("adam", 16)]
)
def test_bytes_of_a_parameter(run, dtype, optimizer, per_parameter):
    """2 for the weight, 2 for its gradient, 4 for the master weight and each state: 16 with
    Adam (Rajbhandari et al. 2020, section 3.1), predicted and held."""
    keys = {"data": 2, "pipeline": 2, "dtype": dtype, "optimizer": optimizer, "iterations": 1}
    ran = run(**keys)
    for rank, resident in enumerate(ran.program.resident):
        count = resident["parameters"] // 2
        assert sum(resident.values()) == per_parameter * count
        assert ran.measurement.timeline.memory[rank].nbytes[0] == per_parameter * count


@pytest.mark.parametrize(
    "keys", [{}, {"data": 2, "zero": 1}, {"data": 2, "zero": 3}, {"tensor": 2, "pipeline": 2}]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [("bf16", 0.01), ("fp16", 0.003)])
def test_16_bit_training_follows_that_in_fp64(run, dtype, tolerance, keys):
    """Rounding differs and nothing else: the loss scale leaves no trace."""
    keys = {"layers": 2, "microbatches": 2, "global_batch": 8, "iterations": 4, **keys}
    keys |= {"optimizer": "adam", "learning_rate": 0.01}
    scale = {"loss_scale": 512.0} if dtype == "fp16" else {}
    exact, rounded = run(**keys), run(**keys, dtype=dtype, **scale)
    assert rounded.measurement.losses == pytest.approx(exact.measurement.losses, rel=tolerance)
    untrained = run(**keys | {"learning_rate": 1e-9}).measurement.losses[-1]
    assert untrained != pytest.approx(exact.measurement.losses[-1], rel=2 * tolerance)


def test_steps_that_overflow_are_skipped_on_every_rank(run):
    keys = {"data": 2, "pipeline": 2, "microbatches": 2, "dtype": "fp16", "layers": 2}
    ran = run(**keys, loss_scale=2.0**40, iterations=30)
    scale = ran.measurement.loss_scale
    assert scale["value"] == 2.0 ** (40 - scale["skipped_steps"])
    assert 10 < scale["skipped_steps"] < 30
    # Skipped steps change nothing: what follows is training from the start. Data differ from
    # step to step, so it is the norm of the parameters that tells.
    still = run(**keys, loss_scale=2.0**40, iterations=5)
    fresh = run(**keys, loss_scale=2.0**40, iterations=1)
    assert still.measurement.loss_scale["skipped_steps"] == 5
    assert still.measurement.parameters_norm == fresh.measurement.parameters_norm
    assert ran.measurement.parameters_norm != fresh.measurement.parameters_norm
    assert ran.measurement.losses[-1] < ran.measurement.losses[0]


def test_the_scale_moves_as_torchs_does():
    theirs = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2000)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    ours = LossScaler("fp16", 8.0, CPU)
    norms = [1.0] * 3 + [float("inf")] + [1.0] * 1999 + [float("nan")] + [1.0] * 4001
    theirs.scale(torch.zeros(1))
    for norm in norms:
        parameter.grad = torch.tensor([norm])
        theirs.step(optimizer)
        theirs.update()
        ours.update(torch.tensor(norm))
        assert float(ours.value) == theirs.get_scale()
    assert int(ours.skipped) == 2


def test_only_fp16_needs_the_norm_of_its_gradients(experiment):
    for dtype, count in (("fp16", 1), ("bf16", 0), ("fp32", 0)):
        program = lower(experiment(dtype=dtype))
        assert sum(i.task.op == "NORM" for i in program) == count
