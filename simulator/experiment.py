"""The experiment file: workload, parallel plan, cluster and run, in TOML.

Every key is checked; a mistake is an :class:`ExperimentError` whose one line names the
key, the value and what is allowed. ``docs/experiment.md`` is the reference.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from simulator.mesh import AXES

Positive = Annotated[int, Field(ge=1)]
Degree = Annotated[int, Field(ge=1, le=65536)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

DTYPE_BYTES = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2}


OPTIMIZER_STATES = {"sgd": 0, "momentum": 1, "adam": 2}
"""Tensors of the size of the parameters that an optimizer keeps."""


class ExperimentError(ValueError):
    """The user's experiment is wrong; the message is one line."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


SHAPE = ("layers", "hidden", "heads", "sequence", "vocab", "ffn_hidden")
BERT_SIZES = {
    "base": dict(zip(SHAPE, (12, 768, 12, 512, 30522, 3072), strict=True)),
    "large": dict(zip(SHAPE, (24, 1024, 16, 512, 30522, 4096), strict=True)),
}
"""Devlin et al. 2019, section 3; the sequence is the longest that is trained."""

ModelName = Literal["unit", "mlp", "gpt", "moe-gpt", "bert", "alexnet", "vgg16", "resnet50"]
IMAGE_MODELS = ("alexnet", "vgg16", "resnet50")


class Workload(_Section):
    """What is trained.

    Attributes:
        layers, hidden, heads, sequence, vocab, ffn_hidden: of gpt, moe-gpt, bert and mlp,
            as in Megatron-LM.
        experts, top_k, capacity_factor: of moe-gpt: experts in every MLP, how many of them a
            token chooses, and how many more token slots they have than a balanced load takes.
        routing, zipf_exponent: of moe-gpt: the load of the experts that is predicted for,
            "uniform", "zipf" or "file:PATH". A run measures its own.
        size: of bert, "base" or "large": stands for all of those.
        attention: of gpt, moe-gpt and bert: "unfused" computes softmax(Q·Kᵀ)·V step by step,
            "flash" in one kernel that does not keep the scores.
        image_size, classes: of alexnet, vgg16 and resnet50: side of the square images of
            three channels, and what they are sorted into.
        global_batch: sequences or images per training step over all replicas.
        optimizer: with torch's defaults besides run.learning_rate; momentum is 0.9.
        loss_scale: of fp16, to begin with: halved at an overflow, whose step is skipped, and
            doubled after 2000 steps without one.
        clip_norm: largest L2 norm of the gradient of the whole model; unset, no limit.
        forward, backward_input, backward_weight, p2p: seconds, for unit only.
    """

    model: ModelName = "gpt"
    layers: Degree = 4
    hidden: Positive = 128
    heads: Positive = 4
    sequence: Positive = 64
    vocab: Positive = 256
    ffn_hidden: Positive | None = None
    size: Literal["base", "large"] | None = None
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
    optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    loss_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 65536.0
    clip_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    forward: Seconds = 0.01
    backward_input: Seconds = 0.01
    backward_weight: Seconds = 0.01
    p2p: Seconds = 0.0

    @model_validator(mode="before")
    @classmethod
    def _spell_out_size(cls, given: Any) -> Any:
        size = given.get("size") if isinstance(given, dict) else None
        return BERT_SIZES[size] | given if size in ("base", "large") else given

    @property
    def tokens_per_sample(self) -> int:
        """Of the unit that throughput counts: tokens of a sequence, or 1 for an image."""
        return 1 if self.model in IMAGE_MODELS else self.sequence

    @property
    def ffn(self) -> int:
        return self.ffn_hidden or 4 * self.hidden

    @property
    def dtype_bytes(self) -> int:
        return DTYPE_BYTES[self.dtype]

    @property
    def wide_bytes(self) -> int:
        """Of a value where 16 bits are too few: statistics of norms, and losses."""
        return max(self.dtype_bytes, 4)

    @property
    def has_master_weights(self) -> bool:
        """16-bit weights are copies of fp32 ones, which the optimizer updates
        (Micikevicius et al. 2018, "Mixed Precision Training", section 3.1)."""
        return self.dtype_bytes == 2

    @property
    def optimizer_bytes(self) -> int:
        """Of a parameter: what the optimizer keeps, fp32 master weight included."""
        states = OPTIMIZER_STATES[self.optimizer]
        return 4 * (1 + states) if self.has_master_weights else self.dtype_bytes * states

    @property
    def needs_gradient_norm(self) -> bool:
        """To clip, or to see that a scaled loss has overflowed."""
        return self.clip_norm is not None or self.dtype == "fp16"


class Parallel(_Section):
    """Degrees of the device mesh and how the pipeline is scheduled.

    Attributes:
        tensor_style: of mlp: which way its weights are split.
        context_style: how attention gets at the tokens of other ranks.
        sequence_parallel: with tensor > 1, norms and residuals on a share of the tokens.
        memory_limit: of schedule "zb-auto": how many microbatches' activations of its stage
            a rank may hold at once; unset, 2 × pipeline - 1.
        recompute: what is not kept for the backward pass but computed again: nothing, the
            attention core, or all of a block but its input.
        zero: sharded data parallelism: 1 of the optimizer's state, 2 also of gradients, 3 also
            of parameters.
        zero_group: how many ranks share one set of shards; unset, all that replicate.
        prefetch: with zero = 3: parameters are gathered so many segments ahead; unset, 1.
        split: blocks per stage (of virtual stages too, first to last), instead of the split
            that makes the largest stage as small as it can be.
        rank_order: axes of the mesh from the slowest to the fastest varying.
    """

    data: Degree = 1
    pipeline: Degree = 1
    tensor: Degree = 1
    tensor_style: Literal["column", "row", "megatron"] = "megatron"
    context: Degree = 1
    context_style: Literal["ring", "ulysses"] = "ring"
    expert: Degree = 1
    schedule: str = "1f1b"
    virtual_stages: Degree = 1
    microbatches: Degree = 1
    zero: Annotated[int, Field(ge=0, le=3)] = 0
    zero_group: Degree | None = None
    prefetch: Annotated[int, Field(ge=0)] | None = None
    sequence_parallel: bool = False
    recompute: Literal["none", "selective", "full"] = "none"
    bucket_mb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 25.0
    memory_limit: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    split: Annotated[tuple[Positive, ...], Field(strict=False)] | None = None
    rank_order: Annotated[tuple[str, ...], Field(strict=False)] = AXES

    @property
    def world_size(self) -> int:
        return self.data * self.pipeline * self.tensor * self.context * self.expert

    @property
    def replicas(self) -> int:
        """Ranks that compute with the same weights on other data."""
        return self.data * self.context * self.expert

    @property
    def batch_shares(self) -> int:
        """Among how many the batch is divided: the ranks of `expert` take other data, too."""
        return self.data * self.expert

    @property
    def shards(self) -> int:
        """Ranks that share what one of them would hold."""
        return (self.zero_group or self.replicas) if self.zero else 1


Algorithm = Literal["ring", "halving-doubling", "tree", "hierarchical", "in-network", "pairwise"]
"""Of collectives, see `simulator.collectives`."""


class ClusterChoice(_Section):
    """Which machine the prediction is for: a preset, a cluster file or a calibrated profile.

    Attributes:
        ranks_per_device: how many ranks share a GPU.
        algorithm: of collectives; "auto" takes the fastest of those that the cluster has.
    """

    preset: str | None = None
    file: str | None = None
    profile: str | None = None
    nodes: Positive | None = None
    devices_per_node: Positive | None = None
    node_bandwidth_gbit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    ranks_per_device: Positive = 1
    algorithm: Literal["auto", Algorithm] = "auto"

    @property
    def is_named(self) -> bool:
        return bool(self.preset or self.file or self.profile)


class Run(_Section):
    """How the real execution is run and measured.

    Attributes:
        backend: what tensors are sent with; "auto" is NCCL where every rank has a GPU of its
            own, else gloo.
    """

    iterations: Positive = 10
    warmup: Annotated[int, Field(ge=0)] = 2
    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["cpu", "cuda"] = "cpu"
    backend: Literal["auto", "gloo", "nccl"] = "auto"
    pace: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0


class Experiment(_Section):
    """A whole experiment; `parse` and `load` are the ways to make one."""

    workload: Workload = Workload()
    parallel: Parallel = Parallel()
    cluster: ClusterChoice = ClusterChoice()
    run: Run = Run()

    @property
    def is_for_cluster(self) -> bool:
        """Whether it is about a cluster that it names, or is paced to, and not this machine."""
        return self.cluster.is_named or self.run.pace is not None

    @property
    def world_size(self) -> int:
        return self.parallel.world_size

    @property
    def global_batch(self) -> int:
        """Samples per training step; unset, 4 a microbatch (1 for `unit`)."""
        if self.workload.global_batch is not None:
            return self.workload.global_batch
        per_microbatch = 1 if self.workload.model == "unit" else 4
        return self.parallel.batch_shares * self.parallel.microbatches * per_microbatch

    @property
    def microbatch_size(self) -> int:
        """Samples per microbatch: global_batch ÷ (data × expert × microbatches)."""
        return self.global_batch // (self.parallel.batch_shares * self.parallel.microbatches)


DEFAULT: dict[str, Any] = {
    "workload": {"model": "gpt", "layers": 4, "hidden": 256, "heads": 4, "sequence": 128},
    "parallel": {"pipeline": 2, "microbatches": 4, "schedule": "1f1b"},
}
"""The experiment that runs without a file: two ranks, a step of about a second."""


def parse(data: dict[str, Any]) -> Experiment:
    """Check a nested dict and return the experiment it describes.

    Raises:
        ExperimentError: unknown key, wrong type or impossible value.
    """
    from simulator.plan_checks import check_batch, check_devices, check_parallel
    from simulator.strategies.zero import check as check_zero
    from simulator.workloads.checks import check_attention, check_keys, check_size
    from simulator.workloads.degrees import check_degrees

    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        raise ExperimentError(_explain(error)) from None
    check_keys(experiment.workload)
    check_parallel(experiment.parallel)
    check_zero(experiment)
    check_batch(experiment)
    check_degrees(experiment)
    check_attention(experiment)
    check_size(experiment)
    check_devices(experiment)
    given = [key for key in ("preset", "file", "profile") if getattr(experiment.cluster, key)]
    if len(given) > 1:
        raise ExperimentError(
            f"cluster.{given[1]} = {getattr(experiment.cluster, given[1])!r}: "
            f"cluster.{given[0]} is set too; give one of them"
        )
    return experiment


def load(path: str | None, overrides: Iterable[str] = ()) -> Experiment:
    """Read an experiment from the TOML file `path` (None: the built-in default).

    `overrides` are ``dotted.key=value`` strings, the value in TOML (quotes optional).
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ExperimentError(f"{path}: {error.strerror or error}") from None
        except ValueError as error:
            raise ExperimentError(f"{path}: not TOML: {error}") from None
    for override in overrides:
        _apply_override(data, override)
    return parse(_with_default(data) if path is None else data)


def with_overrides(experiment: Experiment, overrides: Iterable[str]) -> Experiment:
    """The same with what `overrides` say instead (see `load`).

    Raises:
        ExperimentError: see `parse`.
    """
    data = experiment.model_dump(exclude_unset=True)
    for override in overrides:
        _apply_override(data, override)
    return parse(data)


def _with_default(given: dict[str, Any]) -> dict[str, Any]:
    """The built-in experiment with what is given instead; its shape is no image model's."""
    workload = given.get("workload", {})
    shaped = workload.get("model") not in IMAGE_MODELS and "size" not in workload
    default = DEFAULT if shaped else DEFAULT | {"workload": {}}
    return given | {section: keys | given.get(section, {}) for section, keys in default.items()}


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not separator or not dot or not name:
        raise ExperimentError(f"--set {override}: expected section.key=value")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except ValueError:  # not TOML: the text itself
        value = text.strip()
    keys = data.setdefault(section, {})
    if not isinstance(keys, dict):
        raise ExperimentError(f"{section} = {keys!r}: expected a table [{section}]")
    keys[name] = value


def _explain(error: ValidationError) -> str:
    """One line for the first mistake: key, value, what is allowed."""
    first = error.errors()[0]
    location = first["loc"]
    key = ".".join(str(part) for part in location)
    if first["type"] == "extra_forbidden":
        section = getattr(Experiment(), str(location[0])) if len(location) > 1 else Experiment()
        return f"{key}: unknown key; known here: {', '.join(type(section).model_fields)}"
    if first["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return f"{key} = {first['input']!r}: expected a table [{key}]"
    allowed = (
        first["msg"]
        .replace("Input should be", "allowed:")
        .replace("a valid tuple", "a valid list")
        .replace("Input should", "allowed: should")
    )
    return f"{key} = {first['input']!r}: {allowed}"
