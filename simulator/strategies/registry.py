"""Every strategy that there is: `twinline strategies` and the table of the docs come from here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

from simulator.experiment.checks import check_batch
from simulator.experiment.section import ExperimentError
from simulator.strategies import user_transforms
from simulator.strategies.gradients import policies
from simulator.strategies.gradients.ad_psgd import check as check_pairs
from simulator.strategies.gradients.asynchronous import check as check_workers
from simulator.strategies.gradients.compression_checks import check as check_compression
from simulator.strategies.gradients.diloco import check as check_outer_steps
from simulator.strategies.gradients.fragments import check as check_fragments
from simulator.strategies.gradients.gossip import check as check_gossip
from simulator.strategies.gradients.local_steps import check as check_local_steps
from simulator.strategies.gradients.parameter_compression import check as check_shards
from simulator.strategies.gradients.parameter_server import check as check_servers
from simulator.strategies.gradients.policies import check_policy
from simulator.strategies.gradients.scatter_gather import check as check_scatter
from simulator.strategies.gradients.work_queue import check as check_work_queue
from simulator.strategies.gradients.zero import check as check_zero
from simulator.strategies.plugins import installed
from simulator.strategies.schedules import registry as schedules
from simulator.strategies.schedules.checks import check_asynchronous, check_schedule
from simulator.strategies.strategy import Strategy
from simulator.strategies.user_transforms import check_transforms, transform_named
from simulator.workloads.checks import check_attention
from simulator.workloads.degrees import check_degrees

DATA = "data parallelism"
MODEL = "model parallelism"
MEMORY = "memory and precision"
PIPELINE = "pipeline schedules"
OWN = "of your own"
COMBINED = "combinations"
SUMMED = ("all-reduce", "parameter-server")

OURS = (
    Strategy(
        "one device", DATA, "the default degrees", "no parallelism", lambda e: e.world_size == 1
    ),
    Strategy(
        "gradient accumulation",
        DATA,
        "parallel.microbatches > 1",
        "several passes, one step",
        lambda e: e.parallel.microbatches > 1,
        (check_batch,),
    ),
    Strategy(
        "data parallel",
        DATA,
        "parallel.data > 1, bucket_mb",
        "synchronous; bucketed all-reduce overlaps the backward pass",
        lambda e: e.parallel.data > 1 and e.parallel.data_style in SUMMED,
        (check_batch,),
    ),
    Strategy(
        "scatter and gather",
        DATA,
        'parallel.data_style = "scatter-gather"',
        "rank 0 has model, optimizer and batch, and computes the loss: torch's DataParallel",
        lambda e: e.parallel.is_scattered,
        (check_scatter,),
    ),
    Strategy(
        "parameter server",
        DATA,
        'parallel.data_style = "parameter-server", servers',
        "servers have the optimizer: gradients are reduced to them, parameters broadcast",
        lambda e: e.parallel.data_style == "parameter-server",
        (check_servers,),
    ),
    Strategy(
        "work queue",
        DATA,
        'parallel.data_style = "work-queue", servers',
        "a server hands out microbatches, so that fast workers do more; synchronous updates",
        lambda e: e.parallel.hands_out_work,
        (check_servers, check_work_queue),
    ),
    Strategy(
        "asynchronous",
        DATA,
        'parallel.data_style = "asynchronous", policy',
        "workers push and pull at their own pace, an update after every push: Downpour",
        lambda e: e.parallel.data_style == "asynchronous",
        (check_servers, check_policy, check_workers),
    ),
    Strategy(
        "stale synchronous",
        DATA,
        'parallel.data_style = "stale-synchronous"',
        "the same, but no worker gets further ahead of the slowest than a bound: SSP",
        lambda e: e.parallel.data_style == "stale-synchronous",
        (check_servers, check_policy, check_workers),
    ),
    Strategy(
        "soft-synchronous",
        DATA,
        'parallel.data_style = "soft-synchronous"',
        "an update averages the first few workers' gradients; late ones count, or are dropped",
        lambda e: e.parallel.data_style == "soft-synchronous",
        (check_servers, check_policy, check_workers),
    ),
    Strategy(
        "local SGD",
        DATA,
        'parallel.data_style = "local-sgd", sync_period',
        "replicas update for themselves and average parameters every few steps; post-local",
        lambda e: e.parallel.data_style == "local-sgd",
        (check_local_steps,),
    ),
    Strategy(
        "DiLoCo",
        DATA,
        'parallel.data_style = "diloco", sync_period',
        "local steps, and an outer optimizer's step with what they have changed; streaming",
        lambda e: e.parallel.data_style == "diloco",
        (check_local_steps, check_outer_steps, check_fragments),
    ),
    Strategy(
        "gossip",
        DATA,
        'parallel.data_style = "gossip", topology, push_sum',
        "replicas mix parameters with neighbours: ring, torus, exponential graphs; push-sum",
        lambda e: e.parallel.data_style == "gossip",
        (check_gossip,),
    ),
    Strategy(
        "AD-PSGD",
        DATA,
        'parallel.data_style = "ad-psgd", topology',
        "replicas average with one random neighbour at a time, each at its own pace",
        lambda e: e.parallel.averages_pairs,
        (check_pairs,),
    ),
    Strategy(
        "sharded data parallel",
        DATA,
        "parallel.zero = 1, 2 or 3, zero_group, prefetch",
        "ZeRO: optimizer state, gradients, parameters split over replicas",
        lambda e: e.parallel.shards_optimizer,
        (check_zero, check_shards),
    ),
    Strategy(
        "compressed gradients",
        DATA,
        "parallel.compression, parameter_compression",
        "as 16, 8, 4, 2 or 1 bit, the largest only, or factors of low rank; errors are fed back",
        lambda e: e.parallel.compression != "none",
        (check_compression,),
    ),
    Strategy(
        "tensor parallel",
        MODEL,
        "parallel.tensor > 1, tensor_style",
        "Megatron's: heads, columns and rows, vocabulary over ranks",
        lambda e: e.parallel.tensor > 1,
        (check_degrees,),
    ),
    Strategy(
        "sequence parallel",
        MODEL,
        "parallel.sequence_parallel = true",
        "with tensor parallelism: norms and residuals on a share of the tokens",
        lambda e: e.parallel.sequence_parallel,
        (check_degrees,),
    ),
    Strategy(
        "context parallel, ring",
        MODEL,
        'parallel.context > 1, context_style = "ring"',
        "keys and values travel while a rank attends to those it has; causal: zig-zag",
        lambda e: e.parallel.context > 1 and e.parallel.context_style == "ring",
        (check_degrees,),
    ),
    Strategy(
        "context parallel, Ulysses",
        MODEL,
        'parallel.context > 1, context_style = "ulysses"',
        "all-to-alls turn shares of the sequence into shares of the heads and back",
        lambda e: e.parallel.context > 1 and e.parallel.context_style == "ulysses",
        (check_degrees,),
    ),
    Strategy(
        "expert parallel",
        MODEL,
        "parallel.expert > 1",
        "moe-gpt: experts and batch divided; all-to-alls there and back",
        lambda e: e.parallel.expert > 1,
        (check_degrees,),
    ),
    Strategy(
        "mixed precision",
        MEMORY,
        'workload.dtype = "bf16" or "fp16"',
        "fp32 master weights; dynamic loss scale for fp16",
        lambda e: e.workload.has_master_weights,
    ),
    Strategy(
        "selective recomputation",
        MEMORY,
        'parallel.recompute = "selective"',
        "the core of attention runs again in the backward pass; its scores are not kept",
        lambda e: e.parallel.recompute == "selective",
        (check_attention,),
    ),
    Strategy(
        "full recomputation",
        MEMORY,
        'parallel.recompute = "full"',
        "of every block only the input is kept; its forward pass runs again",
        lambda e: e.parallel.recompute == "full",
    ),
    *(
        Strategy(
            name,
            PIPELINE,
            f'parallel.pipeline > 1, schedule = "{name}"',
            schedule.SUMMARY,
            partial(lambda name, e: e.parallel.schedule == name, name),
            (check_schedule, check_asynchronous),
        )
        for name, schedule in schedules.SCHEDULES.items()
    ),
    Strategy(
        "hybrids",
        COMBINED,
        "any product of the degrees",
        "data × pipeline × expert × context × tensor; any schedule",
        lambda e: sum(degree > 1 for degree in e.mesh.degrees.values()) > 1,
    ),
)
"""The strategies of this package, family by family."""


def strategies() -> list[Strategy]:
    """Return every strategy: ours, and those that installed packages declare."""
    found = list(OURS)
    for name in installed(schedules.GROUP):
        found.append(
            Strategy(
                name,
                OWN,
                f'parallel.pipeline > 1, schedule = "{name}"',
                _summary_of_schedule(name),
                partial(lambda name, e: e.parallel.schedule == name, name),
                (check_schedule, check_asynchronous),
            )
        )
    for name in installed(policies.GROUP):
        found.append(
            Strategy(
                name,
                OWN,
                f'parallel.policy = "{name}"',
                _summary_of(lambda name: policies.user_policy(name).policy, name, "policy"),
                partial(lambda name, e: e.parallel.policy == name, name),
                (check_policy,),
            )
        )
    for name in installed(user_transforms.GROUP):
        found.append(
            Strategy(
                name,
                OWN,
                f'parallel.transforms = ["{name}"]',
                _summary_of(lambda name: transform_named(name).value, name, "transform"),
                partial(lambda name, e: name in e.parallel.transforms, name),
                (check_transforms,),
            )
        )
    return found


def markdown() -> str:
    """Return the table of ``docs/strategies.md``."""
    lines = ["| family | strategy | how to ask for it | what it is |", "| --- | --- | --- | --- |"]
    lines += [f"| {s.family} | {s.name} | `{s.setting}` | {s.summary} |" for s in OURS]
    return "\n".join(lines) + "\n"


def _summary_of_schedule(name: str) -> str:
    try:
        return schedules.schedule_named(name).SUMMARY
    except ExperimentError as error:
        return str(error)


def _summary_of(found: Callable[[str], object], name: str, kind: str) -> str:
    """Return the first line of what documents an object; if it cannot be had, why."""
    try:
        return (inspect.getdoc(found(name)) or f"a {kind}").partition("\n")[0]
    except ExperimentError as error:
        return str(error)
