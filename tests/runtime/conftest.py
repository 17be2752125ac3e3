"""Worker processes started once for all tests, and runs shared by the tests that ask for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from runtime.launch.job import Job
from runtime.launch.launcher import Workers
from runtime.measurement.merge import Measurement, from_json
from runtime.models.batches import microbatch
from runtime.models.segment import MODELS, SHARD_MODULE, build_layer
from simulator.experiment.experiment import Experiment
from simulator.experiment.parallel import Parallel
from simulator.experiment.run import Run
from simulator.experiment.workload import Workload
from simulator.experiment_file import parse
from simulator.program.program import Program
from simulator.strategies.lowering import lower
from simulator.workloads.describe import describe
from torch_rates import stepper

torch.set_num_threads(1)  # as the ranks: the order of sums inside an operator is the same

SECTIONS = {"workload": Workload, "parallel": Parallel, "run": Run}
TINY: dict[str, Any] = {
    "model": "gpt",
    "layers": 4,
    "hidden": 8,
    "heads": 2,
    "sequence": 8,
    "dtype": "fp64",
    "iterations": 2,
    "warmup": 0,
    "learning_rate": 0.1,
}

TOLERANCE = 1e-10
CPU = torch.device("cpu")
OPTIMIZERS: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def _flash_flops(products: int, query: int, causal: int) -> Callable[..., float]:
    """Of a kernel with so many products of (tokens × tokens × width), half of each where a mask
    is causal. torch's counter knows only the kernels for GPUs.

    Args:
        query, causal: places of these arguments.
    """

    def count(*shapes: Any, **_: Any) -> float:
        batch, heads, tokens, width = shapes[query]
        half = len(shapes) > causal and shapes[causal]
        return products * 2 * batch * heads * tokens * tokens * width / (2 if half else 1)

    return count


# Forward: Q·Kᵀ and scores·V. Backward: Q·Kᵀ again, dV, dP, dQ, dK.
ATEN = torch.ops.aten
register_flop_formula(ATEN._scaled_dot_product_flash_attention_for_cpu)(_flash_flops(2, 0, 4))
register_flop_formula(ATEN._scaled_dot_product_flash_attention_for_cpu_backward)(
    _flash_flops(5, 1, 7)
)

Named = dict[tuple[int, str], Tensor]
"""Tensors of the whole model by (layer, parameter name)."""


def make(**keys: Any) -> Experiment:
    """A tiny experiment; keys of all sections, without their section."""
    if keys.get("model") == "unit":
        data: dict[str, dict[str, Any]] = {"workload": {}, "run": {"iterations": 2, "warmup": 0}}
    else:
        data = {}
        keys = TINY | keys
    for key, value in keys.items():
        section = next(name for name, model in SECTIONS.items() if key in model.model_fields)
        data.setdefault(section, {})[key] = value
    return parse(data)


@dataclass
class Ran:
    """What a real run gave; `parameters` and `gradients` per replica, whole model, and
    `shares`: the same of every trainer, (parameters, gradients), `servers`: of every server."""

    experiment: Experiment
    program: Program
    hash: str
    measurement: Measurement
    parameters: list[Named] = field(default_factory=list)
    gradients: list[Named] = field(default_factory=list)
    shares: list[tuple[Named, Named]] = field(default_factory=list)
    servers: list[tuple[Named, Named]] = field(default_factory=list)


def named(experiment: Experiment, ranges: dict[tuple[int, int], Tensor]) -> Named:
    """Cut flat tensors of layer ranges into the parameters of the model."""
    tensors: Named = {}
    for (first, last), flat in sorted(ranges.items()):
        offset = 0
        for index in range(first, last):
            layer = build_layer(experiment, index, CPU)
            for name, parameter in layer.named_parameters():
                end = offset + parameter.numel()
                tensors[index, name] = flat[offset:end].view(parameter.shape)
                offset = end
        assert offset == flat.numel()
    return tensors


def one_process(experiment: Experiment) -> tuple[Any, Any, list[float]]:
    """(parameters, last gradients, losses) of one process that takes every microbatch in
    turn: nothing of the executor, of segments or of flat buffers."""
    layers = [build_layer(experiment, i, CPU) for i in range(len(describe(experiment)))]
    if experiment.workload.tie_embeddings:
        layers[-1].logits.weight = layers[0].token.weight  # type: ignore[union-attr]
    parameters = {
        (index, name): parameter
        for index, layer in enumerate(layers)
        for name, parameter in layer.named_parameters()
    }
    each = list(dict.fromkeys(parameters.values()))
    optimizer = OPTIMIZERS[experiment.workload.optimizer](each, lr=experiment.run.learning_rate)
    next_rate = stepper(optimizer, experiment)
    count = experiment.parallel.batch_shares * experiment.parallel.microbatches
    gradients, losses = {}, []
    for step in range(experiment.run.warmup + experiment.run.iterations):
        total = 0.0
        optimizer.zero_grad()
        for index in range(count):
            x, target = microbatch(experiment, step, index, CPU)
            held = [x]
            for layer, described in zip(layers[:-1], describe(experiment), strict=False):
                held.append(layer(*(held[len(held) - 1 - back] for back in described.reads)))
            loss = layers[-1](held[-1], target)
            (loss * (1.0 / count)).backward()
            total += loss.item() / count
        if experiment.workload.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(each, experiment.workload.clip_norm)
        gradients = {key: parameter.grad.clone() for key, parameter in parameters.items()}
        optimizer.step()
        next_rate(total)
        losses.append(total)
    values = {key: parameter.detach() for key, parameter in parameters.items()}
    return values, gradients, losses[experiment.run.warmup :]


def norm_of(parameters: Named) -> float:
    """The L2 norm of the model; weights that are tied count once."""
    each = {value.data_ptr(): float(value.square().sum()) for value in parameters.values()}
    return sum(each.values()) ** 0.5


def assert_close(ours: Any, theirs: Any) -> None:
    """Tensor by tensor, relative to the largest magnitude in each."""
    assert ours.keys() == theirs.keys()
    for key, expected in theirs.items():
        scale = expected.abs().max().item()
        assert scale > 0, f"{key} says nothing"
        difference = (ours[key] - expected).abs().max().item()
        assert difference <= TOLERANCE * scale, f"{key}: {difference / scale:.3g}"


def collect(experiment: Experiment, answer: dict[str, Any]) -> Ran:
    program = lower(experiment)
    ran = Ran(
        experiment, program, answer["hash"], from_json(program, answer["measurement"]), [], []
    )
    if answer["tensors"] is None:
        return ran
    mesh = experiment.mesh
    held: list[tuple[Named, Named]] = []
    for _, parts in sorted(answer["tensors"].items(), key=lambda item: int(item[0])):
        flat = {tuple(map(int, layers.split(":"))): pair for layers, pair in parts.items()}
        mine = [
            named(
                experiment,
                {k: torch.tensor(pair[i], dtype=torch.float64) for k, pair in flat.items()},
            )
            for i in (0, 1)
        ]
        held.append((mine[0], mine[1]))
    trainers = experiment.parallel.num_trainers
    ran.shares, ran.servers = held[:trainers], held[trainers:]
    for replica in range(experiment.parallel.data):
        ranks = [r for r in range(mesh.world_size) if mesh.coordinate(r)["data"] == replica]
        for which, into in enumerate((ran.parameters, ran.gradients)):
            parts = [ran.shares[rank][which] for rank in ranks]
            whole = {key: part[key] for part in parts for key in part}
            into.append(dict(sorted(whole.items(), key=lambda item: item[0][0])))
    return ran


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    """Four ranks for the whole session; a test that makes a run fail needs its own."""
    with Workers(4) as four:
        yield four


@pytest.fixture(scope="session")
def experiment() -> Callable[..., Experiment]:
    """`make`, for tests: the modules here cannot import each other."""
    return make


@pytest.fixture(scope="session")
def reference() -> Callable[..., Any]:
    """`one_process`, once for each experiment."""
    known: dict[str, Any] = {}

    def reference(experiment: Experiment) -> Any:
        key = experiment.model_dump_json()
        if key not in known:
            known[key] = one_process(experiment)
        return known[key]

    return reference


@pytest.fixture(scope="session")
def equals_one_process() -> Callable[[Ran], None]:
    """Asserts that a run gave the losses, gradients and parameters of `one_process`."""

    def check(ran: Ran) -> None:
        parameters, gradients, losses = one_process(ran.experiment)
        for replica in range(ran.experiment.parallel.data):
            assert_close(ran.gradients[replica], gradients)
            assert_close(ran.parameters[replica], parameters)
        assert ran.measurement.losses == pytest.approx(losses, rel=1e-12)
        norm = norm_of(parameters)
        assert ran.measurement.parameters_norm == pytest.approx(norm, rel=1e-12)

    return check


def run_once(workers: Workers, **keys: Any) -> Ran:
    """Run ``make(**keys)`` with its tensors returned."""
    experiment = make(**keys)
    tensors = experiment.workload.model != "unit"
    return collect(experiment, workers.run(Job(experiment, return_tensors=tensors)))


@pytest.fixture(scope="session")
def run_on() -> Callable[..., Ran]:
    """`run_once`."""
    return run_once


@pytest.fixture(scope="session")
def run(workers: Workers) -> Callable[..., Ran]:
    """`run_once` on the four ranks; equal keys are run once a session."""
    done: dict[str, Ran] = {}

    def run(**keys: Any) -> Ran:
        name = json.dumps(keys, sort_keys=True)
        if name not in done:
            done[name] = run_once(workers, **keys)
        return done[name]

    return run


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[torch.device]:
    """A process group of this process only, and its device."""
    store = dist.FileStore(str(tmp_path / "store"), 1)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield CPU
    dist.destroy_process_group()


def unsplit(experiment: Experiment) -> Experiment:
    """The same training on one rank, on microbatches of the same size."""
    data = experiment.model_dump(exclude_unset=True)
    parallel = {
        "data": experiment.parallel.batch_shares,
        "microbatches": experiment.parallel.microbatches,
    }
    return parse(data | {"parallel": parallel})


def share(experiment: Experiment, rank: int, tensors: Named) -> Named:
    """What `rank` has of tensors of the whole model, where layers are cut into parts."""
    coordinate, model, found = experiment.mesh.coordinate(rank), experiment.workload.model, {}
    for index, layer in enumerate(describe(experiment)):
        whole, part = layer.whole
        if whole < 0:
            continue
        module = MODELS[model](experiment, whole).double()
        for name, parameter in module.named_parameters():
            parameter.data.copy_(tensors[whole, name])
        if part:
            module = SHARD_MODULE[model](module, part, experiment, coordinate)
        for name, parameter in module.named_parameters():
            found[index, name] = parameter.data
    return found


@pytest.fixture(scope="session")
def part_of_whole() -> Callable[[Experiment, int, Named], Named]:
    """`share`."""
    return share


@pytest.fixture(scope="session")
def equals_unsplit(reference: Callable[..., Any]) -> Callable[[Ran], None]:
    """Asserts that a run whose layers are cut into parts gave the losses, gradients and
    parameters of one process: every rank its share, and all together the whole model."""

    def check(ran: Ran) -> None:
        parameters, gradients, losses = reference(unsplit(ran.experiment))
        assert ran.measurement.losses == pytest.approx(losses, rel=1e-12)
        layers = describe(ran.experiment)
        for rank, held in enumerate(ran.shares):
            for mine, whole in zip(held, (parameters, gradients), strict=True):
                expected = share(ran.experiment, rank, whole)
                assert mine
                for key, value in mine.items():
                    layer = layers[key[0]].whole[0]
                    scale = max(v.abs().max().item() for (i, _), v in whole.items() if i == layer)
                    assert scale > 0, f"{key} says nothing"
                    error = (value - expected[key]).abs().max().item() / scale
                    assert error <= TOLERANCE, f"rank {rank}: {key}: {error:.3g}"
        seen = {key for held in ran.shares for key in held[0]}
        assert seen == share(ran.experiment, 0, parameters).keys()
        norm = norm_of(parameters)
        assert ran.measurement.parameters_norm == pytest.approx(norm, rel=1e-12)

    return check


@pytest.fixture(scope="session")
def run_script() -> Callable[[str, Path], None]:
    """Runs a script of this folder as ``python SCRIPT JOB.json``, see `torch_ranks.main`."""
    here = Path(__file__).parent
    paths = (str(here.parent.parent), os.environ.get("PYTHONPATH"))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "OMP_NUM_THREADS": "1",
    }

    def run(script: str, job: Path) -> None:
        command = [sys.executable, str(here / script), str(job)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr

    return run
