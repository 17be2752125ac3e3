"""The table of coders: one line for each codec of `simulator/program/codecs/table.py`."""

from __future__ import annotations

from torch import Tensor

from runtime.executor.codecs.block_int8 import BlockInt8Coder
from runtime.executor.codecs.casts import Cast
from runtime.executor.codecs.coder import Coder, ErrorFeedback, Place
from runtime.executor.codecs.int8 import Int8Coder
from runtime.executor.codecs.one_bit import OneBitCoder
from runtime.executor.codecs.power_sgd import PowerSgdCoder
from runtime.executor.codecs.qsgd import QsgdCoder
from runtime.executor.codecs.top_k import TopKCoder
from simulator.program.codecs.block_int8 import BlockInt8
from simulator.program.codecs.casts import Bf16, Fp16
from simulator.program.codecs.codec import Codec
from simulator.program.codecs.int8 import Int8
from simulator.program.codecs.one_bit import OneBit
from simulator.program.codecs.power_sgd import PowerSgd
from simulator.program.codecs.qsgd import Qsgd
from simulator.program.codecs.top_k import TopK
from simulator.program.task import Task
from simulator.program.tensors import TensorName

CODERS: dict[type[Codec], type[Coder]] = {
    Fp16: Cast,
    Bf16: Cast,
    BlockInt8: BlockInt8Coder,
    Int8: Int8Coder,
    Qsgd: QsgdCoder,
    TopK: TopKCoder,
    OneBit: OneBitCoder,
    PowerSgd: PowerSgdCoder,
}


def coder_of(task: Task, like: Tensor, rank: int, seed: int) -> ErrorFeedback:
    """Return the coder of an `ENCODE`, with its error feedback.

    Args:
        task: says how, and who exchanges what is encoded.
        like: a tensor as those that will be encoded.
        rank: this rank.
        seed: of the run.
    """
    assert task.encoding is not None and task.tensor is not None
    place = Place(task.group.index(rank), seed_of(task.tensor, seed))
    return ErrorFeedback(CODERS[type(task.encoding.codec)](task.encoding, like, place), like)


def seed_of(gradients: TensorName, seed: int) -> int:
    """Return the seed of a bucket; its copies on other ranks of a model have the same."""
    return seed * 65_521 + 64 * gradients.boundary + gradients.part + 1
