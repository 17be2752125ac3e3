"""Named sizes of published models: ``workload.size`` stands for the keys of a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulator.experiment.model_family import ModelName

SHAPE = ("layers", "hidden", "heads", "sequence", "vocab", "ffn_hidden")


@dataclass(frozen=True)
class ModelSize:
    """The keys of a published model.

    Attributes:
        model: the family that it is of.
        keys: the keys of ``[workload]`` that make it.
        published: its number of parameters: as its weights have it, or rounded, as its paper has
            it; empty, where it counts what this family leaves out.
        source: where the sizes are from.
    """

    model: ModelName
    keys: Mapping[str, Any]
    published: str
    source: str


SOURCES = {
    "gpt-2": "Radford et al. 2019, table 2, and the released weights",
    "gpt-3": "Brown et al. 2020, table 2.1",
    "opt": "Zhang et al. 2022, table 1; GELU in place of ReLU",
    "llama-1": "Touvron et al. 2023, LLaMA, table 2",
    "llama-2": "Touvron et al. 2023, Llama 2, table 1, and the released weights",
    "llama-3": "Grattafiori et al. 2024, table 3, and the released weights",
    "mistral": "Jiang et al. 2023, table 1; Mistral AI 2024; the released weights",
    "qwen": "Yang et al. 2024, Qwen2 table 1, Qwen2.5; the released weights",
    "qwen-3": "Yang et al. 2025, Qwen3 table 1, and the released weights",
    "gemma": "Gemma Team 2024, table 1, and the released weights",
    "bert": "Devlin et al. 2019, section 3; the sequence is the longest that is trained",
}
"""The sources of the rows below, by the name that a row gives."""


def _bert(layers: int, hidden: int, heads: int) -> ModelSize:
    values = (layers, hidden, heads, 512, 30522, 4 * hidden)
    return ModelSize("bert", dict(zip(SHAPE, values, strict=True)), "", SOURCES["bert"])


def _gpt(
    source: str, published: str, layers: int, hidden: int, heads: int, sequence: int, vocab: int
) -> ModelSize:
    values = (layers, hidden, heads, sequence, vocab, 4 * hidden)
    keys = dict(zip(SHAPE, values, strict=True)) | {"tie_embeddings": True}
    return ModelSize("gpt", keys, published, SOURCES[source])


def _llama(
    source: str,
    published: str,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    ffn: int,
    vocab: int,
    sequence: int,
    **more: Any,
) -> ModelSize:
    values = (layers, hidden, heads, sequence, vocab, ffn)
    keys = dict(zip(SHAPE, values, strict=True)) | {"kv_heads": kv_heads} | more
    return ModelSize("llama", keys, published, SOURCES[source])


TIED: dict[str, Any] = {"tie_embeddings": True}
LLAMA_3: dict[str, Any] = {"rope_theta": 500000.0}
LLAMA_31 = LLAMA_3 | {"rope_scaling": "llama3", "rope_factor": 8.0}
LLAMA_32 = TIED | LLAMA_31 | {"rope_factor": 32.0}
QWEN: dict[str, Any] = {"rope_theta": 1e6, "bias": "qkv"}
QWEN_3: dict[str, Any] = {"rope_theta": 1e6, "qk_norm": True, "head_dim": 128}
GEMMA = TIED | {"head_dim": 256, "activation": "gelu"}

# Of llama: source, parameters, layers, hidden, heads, kv_heads, ffn_hidden, vocab, sequence.
# fmt: off
SIZES: dict[str, ModelSize] = {
    "bert-base": _bert(12, 768, 12),
    "bert-large": _bert(24, 1024, 16),
    "gpt-2": _gpt("gpt-2", "124439808", 12, 768, 12, 1024, 50257),
    "gpt-2-medium": _gpt("gpt-2", "354823168", 24, 1024, 16, 1024, 50257),
    "gpt-2-large": _gpt("gpt-2", "774030080", 36, 1280, 20, 1024, 50257),
    "gpt-2-xl": _gpt("gpt-2", "1557611200", 48, 1600, 25, 1024, 50257),
    "gpt-3-125m": _gpt("gpt-3", "125M", 12, 768, 12, 2048, 50257),
    "gpt-3-760m": _gpt("gpt-3", "760M", 24, 1536, 16, 2048, 50257),
    "gpt-3-2.7b": _gpt("gpt-3", "2.7B", 32, 2560, 32, 2048, 50257),
    "gpt-3-6.7b": _gpt("gpt-3", "6.7B", 32, 4096, 32, 2048, 50257),
    "gpt-3-13b": _gpt("gpt-3", "13B", 40, 5120, 40, 2048, 50257),
    "gpt-3-175b": _gpt("gpt-3", "175B", 96, 12288, 96, 2048, 50257),
    "opt-125m": _gpt("opt", "125M", 12, 768, 12, 2048, 50272),
    "opt-1.3b": _gpt("opt", "1.3B", 24, 2048, 32, 2048, 50272),
    "opt-2.7b": _gpt("opt", "2.7B", 32, 2560, 32, 2048, 50272),
    "opt-6.7b": _gpt("opt", "6.7B", 32, 4096, 32, 2048, 50272),
    "opt-13b": _gpt("opt", "13B", 40, 5120, 40, 2048, 50272),
    "opt-30b": _gpt("opt", "30B", 48, 7168, 56, 2048, 50272),
    "opt-66b": _gpt("opt", "66B", 64, 9216, 72, 2048, 50272),
    "opt-175b": _gpt("opt", "175B", 96, 12288, 96, 2048, 50272),
    "llama-7b": _llama("llama-1", "6738415616", 32, 4096, 32, 32, 11008, 32000, 2048),
    "llama-13b": _llama("llama-1", "13015864320", 40, 5120, 40, 40, 13824, 32000, 2048),
    "llama-33b": _llama("llama-1", "32528943616", 60, 6656, 52, 52, 17920, 32000, 2048),
    "llama-65b": _llama("llama-1", "65285660672", 80, 8192, 64, 64, 22016, 32000, 2048),
    "llama-2-7b": _llama("llama-2", "6738415616", 32, 4096, 32, 32, 11008, 32000, 4096),
    "llama-2-13b": _llama("llama-2", "13015864320", 40, 5120, 40, 40, 13824, 32000, 4096),
    "llama-2-70b": _llama("llama-2", "68976648192", 80, 8192, 64, 8, 28672, 32000, 4096),
    "llama-3-8b": _llama("llama-3", "8030261248", 32, 4096, 32, 8, 14336, 128256, 8192, **LLAMA_3),
    "llama-3-70b": _llama(
        "llama-3", "70553706496", 80, 8192, 64, 8, 28672, 128256, 8192, **LLAMA_3),
    "llama-3.1-8b": _llama(
        "llama-3", "8030261248", 32, 4096, 32, 8, 14336, 128256, 131072, **LLAMA_31),
    "llama-3.1-70b": _llama(
        "llama-3", "70553706496", 80, 8192, 64, 8, 28672, 128256, 131072, **LLAMA_31),
    "llama-3.1-405b": _llama(
        "llama-3", "405853388800", 126, 16384, 128, 8, 53248, 128256, 131072, **LLAMA_31),
    "llama-3.2-1b": _llama(
        "llama-3", "1235814400", 16, 2048, 32, 8, 8192, 128256, 131072, **LLAMA_32),
    "llama-3.2-3b": _llama(
        "llama-3", "3212749824", 28, 3072, 24, 8, 8192, 128256, 131072, **LLAMA_32),
    "mistral-7b": _llama(
        "mistral", "7241732096", 32, 4096, 32, 8, 14336, 32000, 8192, window=4096),
    "mistral-nemo-12b": _llama(
        "mistral", "12247782400", 40, 5120, 32, 8, 14336, 131072, 131072,
        head_dim=128, rope_theta=1e6),
    "qwen-2-0.5b": _llama(
        "qwen", "494032768", 24, 896, 14, 2, 4864, 151936, 32768, **QWEN, **TIED),
    "qwen-2-1.5b": _llama(
        "qwen", "1543714304", 28, 1536, 12, 2, 8960, 151936, 32768, **QWEN, **TIED),
    "qwen-2-7b": _llama("qwen", "7615616512", 28, 3584, 28, 4, 18944, 152064, 32768, **QWEN),
    "qwen-2-72b": _llama("qwen", "72706203648", 80, 8192, 64, 8, 29568, 152064, 32768, **QWEN),
    "qwen-2.5-3b": _llama(
        "qwen", "3085938688", 36, 2048, 16, 2, 11008, 151936, 32768, **QWEN, **TIED),
    "qwen-2.5-14b": _llama("qwen", "14770033664", 48, 5120, 40, 8, 13824, 152064, 32768, **QWEN),
    "qwen-2.5-32b": _llama("qwen", "32763876352", 64, 5120, 40, 8, 27648, 152064, 32768, **QWEN),
    "qwen-3-0.6b": _llama(
        "qwen-3", "596049920", 28, 1024, 16, 8, 3072, 151936, 32768, **QWEN_3, **TIED),
    "qwen-3-1.7b": _llama(
        "qwen-3", "1720574976", 28, 2048, 16, 8, 6144, 151936, 32768, **QWEN_3, **TIED),
    "qwen-3-4b": _llama(
        "qwen-3", "4022468096", 36, 2560, 32, 8, 9728, 151936, 32768, **QWEN_3, **TIED),
    "qwen-3-8b": _llama("qwen-3", "8190735360", 36, 4096, 32, 8, 12288, 151936, 32768, **QWEN_3),
    "qwen-3-14b": _llama("qwen-3", "14768307200", 40, 5120, 40, 8, 17408, 151936, 32768, **QWEN_3),
    "qwen-3-32b": _llama("qwen-3", "32762123264", 64, 5120, 64, 8, 25600, 151936, 32768, **QWEN_3),
    "gemma-2b": _llama("gemma", "2506172416", 18, 2048, 8, 1, 16384, 256000, 8192, **GEMMA),
    "gemma-7b": _llama("gemma", "8537680896", 28, 3072, 16, 16, 24576, 256000, 8192, **GEMMA),
}
# fmt: on
