"""Keys that a model does not have, sizes that it cannot take, and what it cannot do."""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.experiment.hints import divisors_near, nearest_that_works
from simulator.experiment.model_family import models_with
from simulator.experiment.model_sizes import SHAPE, SIZES
from simulator.experiment.section import ExperimentError
from simulator.experiment.workload import Workload
from simulator.workloads.describe import describe
from simulator.workloads.expert_load import check_routing

SMALLEST_IMAGE = {"alexnet": 63, "vgg16": 32, "resnet50": 1}
"""Smallest side of an image at which every convolution and pool still has an output."""

SMALLEST_SINGLE_IMAGE = 33
"""Smallest side for ResNet-50 with one image: its last batch norms need two values a channel."""

MOE_KEYS = ("experts", "top_k", "capacity_factor", "routing", "zipf_exponent")

LLAMA_KEYS = (
    *("kv_heads", "head_dim", "bias", "activation", "rope_theta", "rope_scaling", "rope_factor"),
    *("rope_original", "qk_norm", "window", "full_attention_every"),
)

TIMES = ("forward", "backward_input", "backward_weight", "p2p")

MODELS_OF_KEY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(MOE_KEYS, models_with(lambda family: family.has_experts)),
    **dict.fromkeys(LLAMA_KEYS, models_with(lambda family: family.is_llama)),
    **dict.fromkeys(TIMES, models_with(lambda family: not family.has_parameters)),
    **dict.fromkeys(SHAPE, models_with(lambda family: family.has_shape_keys)),
    "attention": models_with(lambda family: family.has_attention),
    "skips": ("mlp",),
    "tie_embeddings": ("gpt", "llama"),
    **dict.fromkeys(("image_size", "classes"), models_with(lambda f: f.data == "images")),
    **dict.fromkeys(("dtype", "optimizer", "clip_norm"), models_with(lambda f: f.has_parameters)),
}
"""Models that read a key; other keys are for all."""


def reads(model: str, key: str) -> bool:
    """Tell whether a model depends on a key of ``[workload]``."""
    return key not in MODELS_OF_KEY or model in MODELS_OF_KEY[key]


def check_keys(experiment: Experiment) -> None:
    """Refuse keys of other models, and values that contradict each other.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    workload = experiment.workload
    for key, models in MODELS_OF_KEY.items():
        value = getattr(workload, key)
        given = key in workload.model_fields_set and value is not None
        if given and not reads(workload.model, key):
            shown = str(value).lower() if isinstance(value, bool) else repr(value)
            raise ExperimentError(
                f"workload.{key} = {shown}: only for workload.model = "
                + " or ".join(repr(model) for model in sorted(models))
            )
    for section, key in ((experiment.parallel, "bucket_mb"), (experiment.run, "learning_rate")):
        if key in section.model_fields_set and not workload.family.has_parameters:
            raise ExperimentError(
                f"{section.TABLE}.{key} = {getattr(section, key):g}: workload.model = "
                f"{workload.model!r} has no parameters; allowed: unset"
            )
    if "loss_scale" in workload.model_fields_set and workload.dtype != "fp16":
        raise ExperimentError(
            f"workload.loss_scale = {workload.loss_scale:g}: only for workload.dtype = 'fp16', "
            f"not {workload.dtype!r}"
        )
    if workload.skips and workload.layers < 3:
        raise ExperimentError(
            f"workload.skips = true: {workload.layers} blocks have none to skip; allowed: with "
            "workload.layers of 3 or more"
        )
    if workload.size is not None and workload.model != SIZES[workload.size].model:
        raise ExperimentError(
            f"workload.model = {workload.model!r}: workload.size = {workload.size!r} is a "
            f"{SIZES[workload.size].model}; give one of them"
        )
    if workload.family.is_llama:
        _check_heads(workload)
    if workload.family.has_attention and workload.hidden % workload.heads and not workload.head_dim:
        candidates = divisors_near(workload.hidden, workload.heads)
        hint = nearest_that_works(experiment, "workload", "heads", candidates)
        raise ExperimentError(
            f"workload.heads = {workload.heads}: must divide workload.hidden = "
            f"{workload.hidden}; {hint}"
        )
    if workload.family.has_attention and workload.vocab < 256:
        raise ExperimentError(
            f"workload.vocab = {workload.vocab}: text is read as bytes; allowed: 256 or more"
        )
    if workload.family.has_experts:
        check_routing(workload)


def _check_heads(workload: Workload) -> None:
    """Refuse heads of keys and values that cannot be shared, and heads that cannot be turned."""
    heads, kv_heads = workload.heads, workload.kv_heads
    if kv_heads is not None and heads % kv_heads:
        raise ExperimentError(
            f"workload.kv_heads = {kv_heads}: must divide workload.heads = {heads}; allowed: "
            + ", ".join(str(count) for count in range(1, heads + 1) if heads % count == 0)
        )
    if workload.full_attention_every is not None and workload.window is None:
        raise ExperimentError(
            f"workload.full_attention_every = {workload.full_attention_every}: no block has a "
            "window; allowed: with workload.window"
        )
    scalings = {"rope_factor": ("linear", "llama3"), "rope_original": ("llama3",)}
    for key, allowed in scalings.items():
        if key in workload.model_fields_set and workload.rope_scaling not in allowed:
            raise ExperimentError(
                f"workload.{key} = {getattr(workload, key):g}: workload.rope_scaling = "
                f"{workload.rope_scaling!r} does not read it; allowed: with "
                + " or ".join(f"{name!r}" for name in allowed)
            )
    if (workload.head_dim or workload.hidden // heads) % 2:
        given = (
            f"workload.head_dim = {workload.head_dim}"
            if workload.head_dim
            else f"workload.heads = {heads}: workload.hidden = {workload.hidden} has heads of "
            f"{workload.hidden // heads} values"
        )
        raise ExperimentError(
            f"{given}; rotary positions turn pairs of them; allowed: an even number"
        )


def check_attention(experiment: Experiment) -> None:
    """Refuse to recompute attention where there is none, and forms of it that there are not.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    workload, parallel = experiment.workload, experiment.parallel
    model, flash = workload.model, workload.attention == "flash"
    if parallel.recompute == "selective" and not workload.family.has_attention:
        raise ExperimentError(
            f"parallel.recompute = 'selective': {model} has no attention; allowed: 'none' or 'full'"
        )
    if parallel.recompute == "selective" and flash:
        raise ExperimentError(
            "parallel.recompute = 'selective': workload.attention = 'flash' keeps no scores and "
            "computes them again anyway; allowed: 'none' or 'full'"
        )
    if flash and experiment.run.device == "cuda" and workload.dtype_bytes > 2:
        raise ExperimentError(
            f"workload.attention = 'flash': the GPU's kernel does not take {workload.dtype!r}; "
            "allowed with run.device = 'cuda': workload.dtype = 'bf16' or 'fp16'"
        )
    if workload.has_window and parallel.context > 1 and parallel.context_style == "ring":
        raise ExperimentError(
            f"workload.window = {workload.window}: a ring attends to the keys of all ranks; "
            "allowed: parallel.context_style = 'ulysses', or parallel.context = 1"
        )
    if workload.has_window and flash and experiment.run.device == "cuda":
        raise ExperimentError(
            f"workload.window = {workload.window}: torch's fused attention has no windows on a "
            "GPU; allowed with run.device = 'cuda': workload.attention = 'unfused'"
        )
    if parallel.context > 1 and flash:
        raise ExperimentError(
            "workload.attention = 'flash': not for a sequence split over ranks, "
            f"parallel.context = {parallel.context}; allowed: 'unfused', or parallel.context = 1"
        )


def check_size(experiment: Experiment) -> None:
    """Refuse images too small for the model, and more stages than it has blocks.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    workload, parallel = experiment.workload, experiment.parallel
    stages = parallel.pipeline * parallel.virtual_stages
    smallest, condition = SMALLEST_IMAGE.get(workload.model, 0), ""
    if workload.model == "resnet50" and experiment.microbatch_size == 1:
        smallest, condition = SMALLEST_SINGLE_IMAGE, " with one image a microbatch"
    if workload.image_size < smallest:
        raise ExperimentError(
            f"workload.image_size = {workload.image_size}: too small for {workload.model}"
            f"{condition}; allowed: {smallest} or more"
        )
    if not workload.family.has_parameters or stages == 1:
        return
    if workload.family.has_shape_keys:
        blocks, name = workload.layers, "workload.layers"
    else:
        blocks = sum(layer.starts_block for layer in describe(experiment))
        name = f"blocks of {workload.model}"
    if parallel.pipeline > blocks:
        raise ExperimentError(
            f"parallel.pipeline = {parallel.pipeline}: more stages than {name} = {blocks}; "
            f"allowed: 1 to {blocks}"
        )
    if stages > blocks:
        fewer = range(blocks // parallel.pipeline, 0, -1)
        raise ExperimentError(
            f"parallel.virtual_stages = {parallel.virtual_stages}: pipeline × virtual_stages = "
            f"{stages} stages, more than {name} = {blocks}; "
            + nearest_that_works(experiment, "parallel", "virtual_stages", fewer)
        )
