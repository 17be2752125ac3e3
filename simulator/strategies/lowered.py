"""A plan on its way from an experiment to the instruction list of every rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from simulator.experiment.experiment import Experiment
from simulator.experiment.mesh import Mesh
from simulator.program.bucket import Bucket
from simulator.program.instruction import Instruction
from simulator.program.template import Call, expand
from simulator.strategies.gradients.parameter_layout import ParameterLayout
from simulator.strategies.schedules.passes import Pass, Plan
from simulator.strategies.schedules.schedule import Schedule
from simulator.strategies.stages.bucket_contents import BucketContents
from simulator.strategies.stages.dataflow import Flow, Range
from simulator.strategies.stages.stage import Stage
from simulator.workloads.layer import Layer


@dataclass(frozen=True)
class Lowered:
    """A plan on its way from an experiment to the instruction list of every rank.

    The transforms of `simulator.strategies.lowering` fill it in from top to bottom. Each returns
    a copy with fields replaced; instructions belong to the chain and may be changed in place.

    Attributes:
        experiment: what is lowered; no transform changes it.
        mesh: the ranks by their place on each axis.
        ranks: the global ranks that have a list; of a folded program, one of equal ones.
        layers: those of the model, with the share of each that a rank has.
        flow: which layer reads what.
        layout: which ranks hold which parameters.
        schedule: the order of passes.
        plan: the pipeline as the schedule sees it: of one training step or, where weights are
            updated while microbatches are in flight, of all steps of the program.
        ranges: the layers of every stage.
        placement: which pipeline rank owns each stage.
        orders: the passes of every pipeline rank, in order.
        pieces: the segments and exchanges of every stage, as layer ranges.
        contents: the buckets of every stage.
        stages: of every rank, the stages that it owns, by index.
        buckets: of every rank, its parameters.
        resident: of every rank, the bytes that it holds throughout, by name.
        calls: of every rank, the calls that make up its list, in order.
        own_lists: of every rank, its instructions, where a transform has written them one by one.
    """

    experiment: Experiment
    mesh: Mesh
    ranks: Sequence[int]
    layers: Sequence[Layer]
    flow: Flow
    layout: ParameterLayout
    schedule: Schedule
    plan: Plan
    ranges: Sequence[Range] = ()
    placement: Sequence[int] = ()
    orders: Sequence[Sequence[Pass]] = ()
    pieces: Sequence[Sequence[Range]] = ()
    contents: Sequence[Sequence[BucketContents]] = ()
    stages: Mapping[int, Mapping[int, Stage]] = field(default_factory=dict)
    buckets: Mapping[int, list[Bucket]] = field(default_factory=dict)
    resident: Mapping[int, dict[str, int]] = field(default_factory=dict)
    calls: Mapping[int, list[Call]] = field(default_factory=dict)
    own_lists: Mapping[int, list[Instruction]] = field(default_factory=dict)

    def pipeline_rank(self, rank: int) -> int:
        """Return where on the pipeline a global rank is."""
        return self.mesh.coordinate(rank)["pipeline"]

    @cached_property
    def lists(self) -> Mapping[int, list[Instruction]]:
        """The instructions of every rank, in order."""
        counted = self.counted_microbatches
        return self.own_lists or {rank: expand(self.calls[rank], counted) for rank in self.ranks}

    @property
    def counted_microbatches(self) -> int:
        """The microbatches of a step, if calls count them on over several; else 0."""
        several = self.experiment.run.horizon > 1
        return self.experiment.parallel.listed_microbatches if several else 0

    def with_calls(self, change: Callable[[int, list[Call]], list[Call]]) -> Lowered:
        """Return a copy in which `change` of a rank and its calls gives the calls of that rank."""
        return replace(self, calls={rank: change(rank, self.calls[rank]) for rank in self.ranks})

    def with_lists(self, change: Callable[[int, list[Instruction]], list[Instruction]]) -> Lowered:
        """Return a copy in which `change` of a rank and its list is the list of that rank."""
        lists = self.lists
        return replace(self, own_lists={rank: change(rank, lists[rank]) for rank in self.ranks})

    def parameter_bytes(self, stage: int) -> int:
        """Return the bytes of all parameters of a stage, as this model's ranks share them."""
        first, last = self.ranges[stage]
        parameters = sum(layer.parameters for layer in self.layers[first:last])
        return parameters * self.experiment.workload.dtype_bytes
