"""Attention that is cut into several layers, as in `simulator.workloads.context`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from runtime.models.deferral import Linear
from runtime.models.heads import Keys, Mixed, Projection, Queries, keys_of, queries_of
from runtime.models.ring import Block
from runtime.models.rms_norm import RmsNorm
from runtime.models.rotary import Rotary
from runtime.models.share import Share
from runtime.models.ulysses import Core, Merged, Packed, SortedKeys, SortedQueries
from simulator.experiment.experiment import Experiment
from simulator.workloads.anatomy import Anatomy
from simulator.workloads.attention import form
from simulator.workloads.context import zigzag
from simulator.workloads.ulysses import regrouped_keys


def shard_attention(
    whole: nn.Module, part: str, experiment: Experiment, coordinate: Mapping[str, int]
) -> nn.Module | None:
    """Return what a rank has of an attention layer; None: `part` is not one of this file's."""
    share, ranks = Share(experiment, coordinate), experiment.parallel.context
    workload, a, how = experiment.workload, Anatomy.of(experiment.workload), form(experiment)
    heads, kv_heads = a.heads // share.count, max(a.kv_heads // share.count, 1)
    mask: Tensor | None = getattr(whole, "mask", None)
    name, _, step = part.partition("-")
    if name == "block":
        place, tokens = coordinate.get("context", 0), workload.sequence // ranks
        again = how == "recomputed"
        return Block(heads, kv_heads, tokens, int(step), place, ranks, zigzag(experiment), again)
    if name == "core":
        keys = regrouped_keys(kv_heads, ranks)
        return Core(heads // ranks, keys, mask, how == "recomputed")
    attributes = dict(whole.named_children())
    projection, qkv = attributes.get("projection"), attributes.get("qkv")
    if part in ("projection", "merged", "mixed"):
        assert isinstance(projection, nn.Linear)
        if part == "mixed":
            window = bool(getattr(whole, "window", False))
            return Mixed(projection, share, heads, kv_heads, mask, how, window)
        return {"projection": Projection, "merged": Merged}[part](projection, share)
    if part == "packed":
        assert isinstance(qkv, nn.Linear)
        return Packed(share.columns(qkv, (a.queries, a.keys, a.keys)), ranks)
    if not part.endswith(("queries", "keys")):
        return None
    assert isinstance(qkv, nn.Linear)
    of_keys, is_norm = part.endswith("keys"), "normed-" in part
    linear: Linear | None = None
    norm: RmsNorm | None = None
    if is_norm:
        found = attributes["key_norm" if of_keys else "query_norm"]
        assert isinstance(found, RmsNorm)
        norm = found
    elif of_keys:
        linear = keys_of(qkv, share, a.queries, a.kv_heads)
    else:
        linear = queries_of(qkv, share, a.queries)
    last = is_norm or not a.qk_norm
    rotary = Rotary(workload, share.positions) if a.rotary and last else None
    if rotary is not None and part.startswith("sorted"):
        return (SortedKeys if of_keys else SortedQueries)(linear, norm, rotary, ranks)
    return (Keys if of_keys else Queries)(linear, norm, rotary)
