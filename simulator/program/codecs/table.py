"""The tables of codecs: of gradients, ``parallel.compression``, and of parameters."""

from __future__ import annotations

from simulator.program.codecs.block_int8 import BlockInt8
from simulator.program.codecs.casts import Bf16, Fp16
from simulator.program.codecs.codec import Codec
from simulator.program.codecs.int8 import Int8
from simulator.program.codecs.one_bit import OneBit
from simulator.program.codecs.power_sgd import PowerSgd
from simulator.program.codecs.qsgd import Qsgd
from simulator.program.codecs.top_k import TopK

CODECS: dict[str, type[Codec]] = {
    "fp16": Fp16,
    "bf16": Bf16,
    "int8": Int8,
    "qsgd": Qsgd,
    "top-k": TopK,
    "one-bit": OneBit,
    "power-sgd": PowerSgd,
}
"""One line for each value of ``parallel.compression``."""

PARAMETER_CODECS: dict[str, type[Codec]] = {"fp16": Fp16, "bf16": Bf16, "int8": BlockInt8}
"""One line for each value of ``parallel.parameter_compression``."""
