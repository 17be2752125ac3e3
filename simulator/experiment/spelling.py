"""Other spellings of keys and values are understood: upper case, hyphens, other frameworks' names.

Only names that mean the same are in these tables. What is merely similar is suggested instead:
Megatron-LM's expert parallelism, for one, divides data parallelism, `parallel.expert` alone
does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

KEYS = {
    "layers": "num_layers num_hidden_layers n_layer n_layers",
    "hidden": "hidden_size hidden_dim d_model n_embd",
    "heads": "num_attention_heads num_heads n_head n_heads",
    "sequence": "seq_length seq_len sequence_length n_ctx",
    "vocab": "vocab_size",
    "kv_heads": "num_query_groups num_key_value_heads n_kv_heads",
    "head_dim": "kv_channels",
    "rope_theta": "rotary_base",
    "window": "sliding_window window_size",
    "tie_embeddings": "tie_word_embeddings",
    "ffn_hidden": "ffn_hidden_size intermediate_size d_ff n_inner",
    "experts": "num_experts num_local_experts",
    "top_k": "moe_router_topk num_experts_per_tok",
    "capacity_factor": "moe_expert_capacity_factor",
    "classes": "num_classes",
    "global_batch": "global_batch_size train_batch_size",
    "dtype": "torch_dtype precision",
    "clip_norm": "clip_grad max_grad_norm max_norm gradient_clipping",
    "loss_scale": "initial_loss_scale",
    "data": "dp data_parallel data_parallel_size",
    "pipeline": "pp pipeline_parallel pipeline_parallel_size pipeline_model_parallel_size "
    "pipeline_parallel_degree",
    "tensor": "tp tensor_parallel tensor_parallel_size tensor_model_parallel_size "
    "tensor_parallel_degree",
    "context": "cp context_parallel context_parallel_size context_parallel_degree",
    "microbatches": "num_microbatches gradient_accumulation_steps",
    "microbatch_size": "train_micro_batch_size_per_gpu "
    "per_device_train_batch_size pipeline_parallel_microbatch_size",
    "schedule": "pipeline_schedule pipeline_parallel_schedule",
    "zero": "zero_stage",
    "recompute": "recompute_granularity",
    "learning_rate": "lr",
}
"""Names that Megatron-LM, DeepSpeed, torchtitan and Hugging Face have for the same thing."""

VALUES = {
    "model": {"moe": "moe-gpt", "gptmoe": "moe-gpt"},
    "size": {"base": "bert-base", "large": "bert-large"},
    "dtype": {
        **dict.fromkeys(("bfloat16", "torchbfloat16"), "bf16"),
        **dict.fromkeys(("float16", "half", "torchfloat16"), "fp16"),
        **dict.fromkeys(("float32", "float", "single", "torchfloat32"), "fp32"),
        **dict.fromkeys(("float64", "double", "torchfloat64"), "fp64"),
    },
    "attention": {
        **dict.fromkeys(("flashattention", "flashattention2"), "flash"),
        "eager": "unfused",
    },
    "schedule": {
        "interleavedzerobubble": "zb-h1",
        "zb1p": "zb-h1",
        "zbvzerobubble": "zb-v",
        "interleaved": "interleaved-1f1b",
    },
}
"""Other names of values of a key, without case and punctuation."""

SIMILAR = {
    "batch_size": "global_batch",
    "batch": "global_batch",
    "sp": "sequence_parallel",
    "ep": "expert",
    "expert_parallel_size": "expert",
    "expert_model_parallel_size": "expert",
    "virtual_pipeline_model_parallel_size": "virtual_stages",
    "num_layers_per_virtual_pipeline_stage": "virtual_stages",
    "steps": "iterations",
    "max_steps": "iterations",
}
"""Names that do not quite mean the same as a key, which is suggested."""


def squashed(text: str) -> str:
    """Return `text` in lower case, with letters and digits only."""
    return "".join(c for c in text.lower() if c.isalnum())


_CANONICAL = {squashed(name): key for key, names in KEYS.items() for name in names.split()}
_SIMILAR = {squashed(name): key for name, key in SIMILAR.items()}

_registered: dict[str, tuple[str, ...]] = {}


def register_values(key: str, names: Iterable[str]) -> None:
    """Let the values of `key`, whose type does not list them, be known as spellings to correct."""
    _registered[key] = tuple(names)


def canonical_key(key: str, known: Collection[str]) -> str:
    """Return the one of the `known` keys that `key` is another spelling of, else `key` itself."""
    if key in known:
        return key
    plain = {squashed(name): name for name in known}
    wanted = squashed(key)
    meant = _CANONICAL.get(wanted)
    return plain.get(wanted) or (meant if meant in known else key) or key


def canonical_value(key: str, value: str, known: Collection[str]) -> str:
    """Return the value of `key` that `value` is another spelling of, else `value` itself."""
    known = (*known, *_registered.get(key, ()))
    if value in known or "/" in value or ":" in value:  # a path stays as it is
        return value
    wanted = squashed(value)
    plain = {squashed(name): name for name in known}
    return plain.get(wanted) or VALUES.get(key, {}).get(wanted, value)


def nearest_name(wrong: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant, or None where none is near."""
    plain = {squashed(name): name for name in known}
    wanted = squashed(wrong)
    meant = _SIMILAR.get(wanted) or _CANONICAL.get(wanted)
    if meant is not None and squashed(meant) in plain:
        return plain[squashed(meant)]
    near = get_close_matches(wanted, plain, n=1, cutoff=0.75)
    return plain[near[0]] if near else None


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'? `` for a value, or nothing where no known one is near."""
    meant = nearest_name(wrong, known)
    return f"did you mean {meant!r}? " if meant else ""
