"""The keys of ``[workload]``: what is trained."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from simulator.experiment.model_family import FAMILIES, ModelFamily, ModelName
from simulator.experiment.model_sizes import SIZES
from simulator.experiment.section import Degree, ExperimentError, Positive, Seconds, Section
from simulator.experiment.spelling import suggestion

DTYPE_BYTES = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2}

OPTIMIZER_STATES = {"sgd": 0, "momentum": 1, "adam": 2, "adamw": 2}
"""Tensors of the size of the parameters that an optimizer keeps."""


class Workload(Section):
    """The model that is trained, its sizes, its numbers and its optimizer.

    Attributes:
        layers, hidden, heads, sequence, vocab, ffn_hidden: sizes of gpt, llama, moe-gpt,
            bert and mlp, as in Megatron-LM.
        experts, top_k, capacity_factor: experts in every MLP of moe-gpt, how many of them a
            token chooses, and how many more token slots they have than a balanced load takes.
        routing, zipf_exponent: the load of moe-gpt's experts that a prediction is for,
            "uniform", "zipf" or "file:PATH". A run measures its own.
        kv_heads, head_dim: heads of keys and values in llama, `heads` unless given, and values of
            a head, `hidden` ÷ `heads` unless given.
        bias: which products of llama's blocks have one: "none", "qkv" or "all".
        activation: the function in llama's gated MLPs.
        rope_theta: base of the wavelengths of llama's rotary positions.
        rope_scaling, rope_factor, rope_original: how these are stretched for longer sequences than
            `rope_original`, and by how much: "linear" all, "llama3" the long ones only.
        qk_norm: queries and keys of llama are normed, head by head, before they are turned.
        window, full_attention_every: tokens that a token of llama attends to, itself included,
            unset all, and which blocks have no window: every so many, unset none.
        tie_embeddings: the embedding of gpt or llama is also the weight of its logits.
        skips: the input of each block in the second half of mlp has the output of its mirror
            image in the first half added, as a U-Net has.
        size: the name of a published model, which stands for the model and its sizes; keys that
            are given besides say otherwise.
        attention: "unfused" computes softmax(Q·Kᵀ)·V of transformers step by step, "flash" in one
            kernel that does not keep the scores.
        image_size, classes: side of the square images of three channels that alexnet, vgg16
            and resnet50 take, and the number of classes that they are sorted into.
        global_batch: sequences or images per training step over all replicas.
        optimizer: its other parameters than run.learning_rate are torch's defaults; momentum
            is 0.9.
        loss_scale: the first scale of losses in fp16: halved at an overflow, whose step is
            skipped, and doubled after 2000 steps without one.
        clip_norm: largest L2 norm of the gradient of the whole model; unset, no limit.
        forward, backward_input, backward_weight, p2p: seconds of passes and messages of unit.
    """

    TABLE: ClassVar[str] = "workload"

    model: ModelName = "gpt"
    layers: Degree = 4
    hidden: Positive = 128
    heads: Positive = 4
    sequence: Positive = 64
    vocab: Positive = 256
    ffn_hidden: Positive | None = None
    kv_heads: Positive | None = None
    head_dim: Positive | None = None
    bias: Literal["none", "qkv", "all"] = "none"
    activation: Literal["silu", "gelu"] = "silu"
    rope_theta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10000.0
    rope_scaling: Literal["none", "linear", "llama3"] = "none"
    rope_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 8.0
    rope_original: Positive = 8192
    qk_norm: bool = False
    window: Positive | None = None
    full_attention_every: Positive | None = None
    tie_embeddings: bool = False
    skips: bool = False
    size: str | None = None
    experts: Degree = 4
    top_k: Degree = 2
    capacity_factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.25
    routing: str = "uniform"
    zipf_exponent: Annotated[float, Field(ge=0, le=10)] = 1.0
    attention: Literal["unfused", "flash"] = "unfused"
    image_size: Positive = 224
    classes: Positive = 1000
    global_batch: Positive | None = None
    dtype: Literal["fp64", "fp32", "bf16", "fp16"] = "fp32"
    optimizer: Literal["sgd", "momentum", "adam", "adamw"] = "sgd"
    loss_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 65536.0
    clip_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    forward: Seconds = 0.01
    backward_input: Seconds = 0.01
    backward_weight: Seconds = 0.01
    p2p: Seconds = 0.0

    def __init__(self, /, **keys: Any):
        given = self.canonical(keys)
        size = given.get("size")
        row = SIZES.get(size) if isinstance(size, str) else None
        if isinstance(size, str) and row is None:
            raise ExperimentError(
                f"workload.size = {size!r}: {suggestion(size, SIZES)}allowed: {', '.join(SIZES)}"
            )
        super().__init__(**({"model": row.model, **row.keys, **given} if row else given))
        # Only these: another size has other keys.
        self.__pydantic_fields_set__ = set(given)

    @property
    def family(self) -> ModelFamily:
        """Properties of the model that is trained."""
        return FAMILIES[self.model]

    @property
    def tokens_per_sample(self) -> int:
        """Units of throughput in a sample: tokens of a sequence, or 1 for an image."""
        return 1 if self.family.data == "images" else self.sequence

    @property
    def ffn(self) -> int:
        """Size of the feed-forward layer, 4 × hidden unless it is given."""
        return self.ffn_hidden or 4 * self.hidden

    @property
    def has_window(self) -> bool:
        """Tell whether the window hides something: it is shorter than a sequence."""
        return self.window is not None and self.window < self.sequence

    def kv_ranks(self, tensor: int) -> int:
        """Return how many of `tensor` ranks have the same heads of keys and values.

        There is more than one where these are fewer than the ranks.
        """
        return max(tensor // (self.kv_heads or self.heads), 1)

    @property
    def dtype_bytes(self) -> int:
        """Bytes of a parameter, gradient or activation."""
        return DTYPE_BYTES[self.dtype]

    @property
    def wide_bytes(self) -> int:
        """Bytes of a value where 16 bits are too few: statistics of norms, and losses."""
        return max(self.dtype_bytes, 4)

    @property
    def has_master_weights(self) -> bool:
        """Tell whether weights are 16-bit copies of fp32 ones, which the optimizer updates.

        Source: Micikevicius et al. 2018, "Mixed Precision Training", section 3.1.
        """
        return self.dtype_bytes == 2

    @property
    def optimizer_bytes(self) -> int:
        """Bytes that the optimizer keeps of a parameter, fp32 master weight included."""
        states = OPTIMIZER_STATES[self.optimizer]
        return 4 * (1 + states) if self.has_master_weights else self.dtype_bytes * states

    @property
    def needs_gradient_norm(self) -> bool:
        """Tell whether a step needs the norm: to clip, or to see that a scaled loss overflowed."""
        return self.clip_norm is not None or self.dtype == "fp16"
