"""What exists, for ``twinline strategies``."""

from __future__ import annotations

from typing import NamedTuple

from simulator.strategies.schedules.registry import SCHEDULES


class Entry(NamedTuple):
    """One strategy: its name, the keys that ask for it, and what it is."""

    name: str
    setting: str
    summary: str


def catalogue() -> list[Entry]:
    """Every strategy; each is simulated and executed from the same program."""
    schedules = [
        Entry(name, f'parallel.pipeline > 1, schedule = "{name}"', module.SUMMARY)
        for name, module in SCHEDULES.items()
    ]
    return [
        Entry("one device", "the default degrees", "no parallelism"),
        Entry("gradient accumulation", "parallel.microbatches > 1", "several passes, one step"),
        Entry(
            "data parallel",
            "parallel.data > 1, bucket_mb",
            "synchronous; bucketed all-reduce overlaps the backward pass",
        ),
        Entry(
            "sharded data parallel",
            "parallel.zero = 1, 2 or 3, zero_group, prefetch",
            "ZeRO: optimizer state, gradients, parameters split over replicas",
        ),
        Entry(
            "tensor parallel",
            "parallel.tensor > 1, tensor_style",
            "Megatron's: heads, columns and rows, vocabulary over ranks",
        ),
        Entry(
            "sequence parallel",
            "parallel.sequence_parallel = true",
            "with tensor parallelism: norms and residuals on a share of the tokens",
        ),
        Entry(
            "context parallel, ring",
            'parallel.context > 1, context_style = "ring"',
            "keys and values travel while a rank attends to those it has; causal: zig-zag",
        ),
        Entry(
            "context parallel, Ulysses",
            'parallel.context > 1, context_style = "ulysses"',
            "all-to-alls turn shares of the sequence into shares of the heads and back",
        ),
        Entry(
            "mixed precision",
            'workload.dtype = "bf16" or "fp16"',
            "fp32 master weights; dynamic loss scale for fp16",
        ),
        Entry(
            "expert parallel",
            "parallel.expert > 1",
            "moe-gpt: experts and batch divided; all-to-alls there and back",
        ),
        Entry(
            "selective recomputation",
            'parallel.recompute = "selective"',
            "the core of attention runs again in the backward pass; its scores are not kept",
        ),
        Entry(
            "full recomputation",
            'parallel.recompute = "full"',
            "of every block only the input is kept; its forward pass runs again",
        ),
        *schedules,
        Entry(
            "hybrids",
            "any product of the degrees",
            "data × pipeline × expert × context × tensor; any schedule",
        ),
    ]
