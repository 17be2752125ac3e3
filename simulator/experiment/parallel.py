"""The keys of ``[parallel]``: degrees of the device mesh, and how the pipeline is scheduled."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from simulator.experiment.mesh import AXES
from simulator.experiment.section import Degree, Positive, Section


class Parallel(Section):
    """Degrees of the device mesh and how the pipeline is scheduled.

    Attributes:
        tensor_style: which way the weights of mlp are split.
        context_style: how attention gets at the tokens of other ranks.
        expert_inside_data: expert ranks are among the `data` ranks, as in Megatron-LM, instead
            of multiplying the number of ranks.
        microbatch_size: samples of a microbatch; with `workload.global_batch`, instead of
            `microbatches`.
        sequence_parallel: with tensor > 1, norms and residuals on a share of the tokens.
        memory_limit: of how many microbatches a rank may hold the activations of its stage at
            once, for schedule "zb-auto"; unset, 2 × pipeline - 1.
        recompute: what is not kept for the backward pass but computed again: nothing, the
            attention core, or all of a block but its input.
        data_style: how replicas come to equal parameters: "all-reduce" sums gradients over them,
            and each updates its own; "parameter-server" sums them on servers, which update;
            "work-queue" does so, too, and lets the first server hand out microbatches;
            "asynchronous" lets each push its own to a server and pull parameters when it likes,
            "stale-synchronous" unless it is too far ahead of the slowest, "soft-synchronous"
            with updates by the mean of several of them;
            "local-sgd" lets each update by its own, and averages parameters now and then;
            "diloco" also takes a step of an outer optimizer with how much they have changed;
            "gossip" lets each mix its parameters with those of neighbours in every step,
            "ad-psgd" with those of one neighbour at a time, at its own pace.
        servers: number of these servers, ranks behind those of the mesh; unset, 1. "shared": the
            trainers themselves, each of some buckets.
        policy: whom a server of data_style "asynchronous" serves next, and when it updates; by
            name, or by the file or dotted name of one of the user's own.
        staleness_bound: pushes that a worker may be ahead of the slowest one when it pulls, for
            data_style "stale-synchronous".
        gradients_per_update, backup_workers: for data_style "soft-synchronous" one of the two:
            how many workers' gradients an update averages, however old they are; or how many
            fewer than there are, those of the newest parameters alone.
        sync_period: training steps from one average of the parameters to the next.
        local_after: training steps of the program in which gradients are summed over replicas,
            before local ones begin; unset, 0.
        outer_learning_rate, outer_momentum: of the outer optimizer of data_style "diloco"; unset,
            0.7 and 0.9.
        fragments: of data_style "diloco": how many parts of the model are averaged at different
            steps of a period; unset, 1.
        overlap_steps: of data_style "diloco": training steps that an average goes on beside;
            unset, 0.
        overlap_share: the weight that a replica's own parameters keep when such an average is
            applied; unset, 0.5.
        topology: the neighbours of each replica with data_style "gossip": a name, or "csv:PATH"
            of a file of weights.
        push_sum: with data_style "gossip": the weights of what is sent travel with it, so that
            replicas need not receive as much as they send.
        compression: the form in which gradients are sent.
        levels: magnitudes, besides 0, of compression "qsgd".
        density: share of the gradients that compression "top-k" sends.
        compression_rank: of the factors of matrices that compression "power-sgd" sends.
        error_feedback: whether what compression loses is added to the gradients of the next step;
            unset, where it loses more of one kind of values than of others.
        compression_start: training steps of the program before the first whose gradients are
            compressed; unset, 0.
        parameter_compression: the form in which shards of parameters are gathered, with zero = 3.
        zero: what replicas shard: 1 the optimizer's state, 2 also gradients, 3 also parameters.
        zero_group: how many ranks share one set of shards; unset, all that replicate.
        prefetch: how many segments ahead of their use parameters are gathered, with zero = 3;
            unset, 1.
        split: blocks per stage (of virtual stages too, first to last), instead of the split
            that makes the largest stage as small as it can be.
        transforms: functions of the user's own that change the program, by file or dotted name;
            a single one needs no list.
        rank_order: axes of the mesh from the slowest to the fastest varying.
    """

    TABLE: ClassVar[str] = "parallel"

    data: Degree = 1
    pipeline: Degree = 1
    tensor: Degree = 1
    tensor_style: Literal["column", "row", "megatron"] = "megatron"
    context: Degree = 1
    context_style: Literal["ring", "ulysses"] = "ring"
    expert: Degree = 1
    expert_inside_data: bool = False
    schedule: str = "1f1b"
    virtual_stages: Degree = 1
    microbatches: Degree = 1
    microbatch_size: Positive | None = None
    data_style: Literal[
        "all-reduce",
        "parameter-server",
        "work-queue",
        "asynchronous",
        "stale-synchronous",
        "soft-synchronous",
        "scatter-gather",
        "local-sgd",
        "diloco",
        "gossip",
        "ad-psgd",
    ] = "all-reduce"
    servers: Degree | Literal["shared"] | None = None
    policy: str = "first-come"
    staleness_bound: Annotated[int, Field(ge=0)] | None = None
    gradients_per_update: Positive | None = None
    backup_workers: Annotated[int, Field(ge=0)] | None = None
    sync_period: Positive | None = None
    local_after: Annotated[int, Field(ge=0)] | None = None
    outer_learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    outer_momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    fragments: Positive | None = None
    overlap_steps: Annotated[int, Field(ge=0)] | None = None
    overlap_share: Annotated[float, Field(ge=0, lt=1)] | None = None
    topology: str | None = None
    push_sum: bool = False
    compression: Literal[
        "none", "fp16", "bf16", "int8", "qsgd", "top-k", "one-bit", "power-sgd"
    ] = "none"
    levels: Annotated[int, Field(ge=1, le=127)] | None = None
    density: Annotated[float, Field(gt=0, le=1)] | None = None
    compression_rank: Positive | None = None
    error_feedback: bool | None = None
    compression_start: Annotated[int, Field(ge=0)] | None = None
    parameter_compression: Literal["none", "fp16", "bf16", "int8"] = "none"
    zero: Annotated[int, Field(ge=0, le=3)] = 0
    zero_group: Degree | None = None
    prefetch: Annotated[int, Field(ge=0)] | None = None
    sequence_parallel: bool = False
    recompute: Literal["none", "selective", "full"] = "none"
    bucket_mb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 25.0
    memory_limit: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    split: Annotated[tuple[Positive, ...], Field(strict=False)] | None = None
    transforms: Annotated[tuple[str, ...], Field(strict=False)] = ()
    rank_order: Annotated[tuple[str, ...], Field(strict=False)] = AXES

    @field_validator("transforms", mode="before")
    @classmethod
    def _as_list(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    def axis_size(self, axis: str) -> int:
        """Return the size of an axis of the mesh; `data` is without expert ranks inside it."""
        size: int = getattr(self, axis)
        return size // self.expert if axis == "data" and self.expert_inside_data else size

    @property
    def batch_axes(self) -> tuple[str, ...]:
        """Keys of the degrees among which the batch is divided."""
        return ("data",) if self.expert_inside_data or self.expert == 1 else ("data", "expert")

    @property
    def replica_axes(self) -> tuple[str, ...]:
        """Keys of the degrees whose product is `replicas`."""
        return ("data", "context", *(() if self.expert_inside_data else ("expert",)))

    @property
    def batch_shares(self) -> int:
        """Number of ranks among which the batch is divided; expert ranks take other data, too."""
        return self.axis_size("data") * self.expert

    @property
    def has_servers(self) -> bool:
        """Tell whether servers update the parameters."""
        return self.data_style in ("parameter-server", "work-queue") or self.is_asynchronous

    @property
    def shares_servers(self) -> bool:
        """Tell whether the servers are the trainers themselves."""
        return self.servers == "shared" and self.has_servers

    @property
    def is_asynchronous(self) -> bool:
        """Tell whether a server serves workers as they come."""
        return self.data_style in ("asynchronous", "stale-synchronous", "soft-synchronous")

    @property
    def hands_out_work(self) -> bool:
        """Tell whether a server hands out microbatches to workers as they come."""
        return self.data_style == "work-queue"

    @property
    def averages_pairs(self) -> bool:
        """Tell whether replicas average with one neighbour at a time, who serves who comes."""
        return self.data_style == "ad-psgd"

    @property
    def has_arrivals(self) -> bool:
        """Tell whether a server serves requests as they come, for whatever they ask."""
        return self.is_asynchronous or self.hands_out_work or self.averages_pairs

    @property
    def is_scattered(self) -> bool:
        """Tell whether rank 0 has the model and the batch, and the others compute for it."""
        return self.data_style == "scatter-gather"

    @property
    def divides_batch(self) -> bool:
        """Tell whether a rank divides the batch among the others: lists have it as a whole."""
        return self.hands_out_work or self.is_scattered

    @property
    def listed_microbatches(self) -> int:
        """Number of microbatches in a step of a rank's list: all that it may come to do."""
        return self.microbatches * (self.data if self.divides_batch else 1)

    @property
    def is_local(self) -> bool:
        """Tell whether replicas update their parameters by gradients of their own."""
        return self.data_style in ("local-sgd", "diloco", "gossip", "ad-psgd")

    @property
    def needs_every_rank(self) -> bool:
        """Tell whether no rank stands for others that do the same.

        Those that come when they like never do it at the same time; neighbours send each other
        messages, of which both sides must be there; trainers that serve have buckets of their
        own; and rank 0 may have what the others have not.
        """
        has_neighbours = self.data_style == "gossip"
        return self.has_arrivals or has_neighbours or self.shares_servers or self.is_scattered

    @property
    def step_period(self) -> int:
        """Number of training steps after which steps are alike again."""
        if self.topology == "one-peer-exponential":
            return max((self.axis_size("data") - 1).bit_length(), 1)
        return self.sync_period or 1

    @property
    def averaged_shares(self) -> int:
        """Number of shares of the batch whose mean gradient a rank hands on or updates with."""
        if self.is_asynchronous or self.divides_batch:
            return 1
        return self.batch_shares // (self.axis_size("data") if self.is_local else 1)

    @property
    def num_trainers(self) -> int:
        """Number of ranks that compute passes: the product of the mesh's axes."""
        return self.batch_shares * self.pipeline * self.tensor * self.context

    @property
    def num_servers(self) -> int:
        """Number of ranks that do nothing but update parameters for the others."""
        if not self.has_servers or self.servers == "shared":
            return 0
        return self.servers or 1

    @property
    def replicas(self) -> int:
        """Number of ranks that compute with the same weights on other data."""
        return self.batch_shares * self.context

    @property
    def shards_optimizer(self) -> bool:
        """Return whether replicas share the optimizer's state."""
        return self.zero >= 1

    @property
    def shards_gradients(self) -> bool:
        """Return whether replicas share gradients, too."""
        return self.zero >= 2

    @property
    def shards_parameters(self) -> bool:
        """Return whether replicas share parameters, too."""
        return self.zero >= 3

    @property
    def shards(self) -> int:
        """Number of ranks that share what one of them would hold."""
        return (self.zero_group or self.replicas) if self.shards_optimizer else 1
