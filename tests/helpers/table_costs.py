"""Costs that a test writes down: times, delays and shared cores by instruction."""

from __future__ import annotations

from simulator.cluster.resource import Resource, ResourceKind
from simulator.engine.contention import Demand
from simulator.engine.questions import Costs
from simulator.program.instruction import Instruction


class TableCosts(Costs):
    """Costs from lists that are read round and round, by instruction."""

    def __init__(
        self,
        seconds: list[float],
        delays: list[float] | None = None,
        cores: float | None = None,
        nodes: int = 1,
    ):
        self.table, self.delays, self.nodes = seconds, delays or [0.0], nodes
        self.capacities = {} if cores is None else {cores_of(n): cores for n in range(nodes)}

    def seconds(self, instruction: Instruction) -> float:
        return self.table[instruction.uid % len(self.table)]

    def delay(self, instruction: Instruction) -> float:
        return self.delays[instruction.uid % len(self.delays)]

    def demand(self, participants: tuple[Instruction, ...]) -> Demand:
        amount = 1.0 if len(participants) == 1 else 0.5
        uses = [(cores_of(member.rank % self.nodes), amount) for member in participants]
        return tuple(uses) if self.capacities else ()


def cores_of(node: int) -> Resource:
    """Return the cores of a node."""
    return Resource(ResourceKind.CORES, node)
