"""Sharded parameters are gathered in a smaller form; the shards themselves stay precise.

Each rank encodes its shard, all ranks gather what was encoded, and decode all of it, their own
part, too, so that all compute with the same parameters (Wang et al. 2023, "ZeRO++", section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.codecs.codec import Encoding
from simulator.program.codecs.table import PARAMETER_CODECS
from simulator.program.operations import Op
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.task import Task
from simulator.program.tensors import Tensor, TensorName


@dataclass(frozen=True)
class Gathering:
    """The tasks that make parameters whole.

    Attributes:
        collectives: bring the shards, or what was made of them.
        encode: comes before these, if shards are encoded.
        decode: comes behind them then.
    """

    collectives: Sequence[Task]
    encode: Task | None = None
    decode: Task | None = None


def parameter_encoding(experiment: Experiment) -> Encoding | None:
    """Return how a plan encodes shards; None: it gathers them as they are."""
    name = experiment.parallel.parameter_compression
    if name == "none":
        return None
    return Encoding(PARAMETER_CODECS[name](), experiment.workload.dtype_bytes)


def encoded(gather: Task, way: str, encoding: Encoding | None) -> Gathering:
    """Return the tasks that take the place of an all-gather into whole parameters.

    Args:
        gather: brings shards as they are.
        way: the pass that it is for, as in the names of tasks.
        encoding: of a shard; None: the gather stays as it is.
    """
    if encoding is None:
        return Gathering((gather,))
    (whole,), count = gather.allocates, len(gather.group)
    sent = encoding.sent(encoding.values(gather.nbytes // count))
    names = [TensorName.other(one.label, whole.name.boundary) for one in sent]
    come = [TensorName.other(f"all {one.label}", whole.name.boundary) for one in sent]
    collectives = [
        replace(
            gather,
            mnemonic=f"{gather.mnemonic}_{one.label.upper()}",
            tensor=name,
            nbytes=one.nbytes * count,
            sources=(name,),
            allocates=(Tensor(result, one.nbytes * count),),
            frees=(name,),
        )
        for one, name, result in zip(sent, names, come, strict=True)
    ]
    coding = replace(gather, stream=COMPUTE_STREAM, tensor=whole.name, encoding=encoding)
    encode = replace(
        coding,
        op=Op.ENCODE,
        mnemonic=f"ENCODE_{way}",
        nbytes=gather.nbytes // count,
        allocates=tuple(Tensor(name, one.nbytes) for name, one in zip(names, sent, strict=True)),
    )
    decode = replace(
        coding, op=Op.DECODE, mnemonic=f"DECODE_{way}", sources=tuple(come), frees=tuple(come)
    )
    return Gathering(collectives, encode, decode)


def check(experiment: Experiment) -> None:
    """Refuse plans that gather no parameters for their use, and forms that are not smaller.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel, workload = experiment.parallel, experiment.workload
    if parallel.parameter_compression == "none":
        return
    asked = f"parallel.parameter_compression = {parallel.parameter_compression!r}"
    if not parallel.shards_parameters:
        raise ExperimentError(f"{asked}: only for parallel.zero = 3, not {parallel.zero}")
    if PARAMETER_CODECS[parallel.parameter_compression].IS_NARROW and workload.dtype_bytes <= 2:
        raise ExperimentError(
            f"{asked}: parameters of workload.dtype = {workload.dtype!r} have 2 bytes already; "
            "allowed: 'none', 'int8', or workload.dtype = 'fp64' or 'fp32'"
        )
