"""The cluster file: device kinds, nodes, links and switches in TOML, strictly checked.

Presets and users' files have the same format; ``docs/clusters.md`` is the reference.
Units are part of the key names; `simulator.cluster.cluster` turns them into seconds and bytes/s.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simulator.cluster.device import DeviceTable, PeakTable
from simulator.experiment.cluster_choice import Algorithm
from simulator.experiment.section import ExperimentError

Count = Annotated[int, Field(ge=1, le=1 << 20)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NodesTable(_Table):
    """``[[nodes]]``: so many equal nodes.

    Attributes:
        devices: how many of each kind, in the order in which ranks are placed.
        devices_per_island: joined by ``[island]``; unset, all of the node.
        devices_per_switch: behind one PCIe switch or host bridge; unset, each has its own.
        nics, nic_gbit: network cards of a node, and 10⁹ bit/s of each, each way.
    """

    count: Count = 1
    devices: Annotated[dict[str, Count], Field(min_length=1)]
    devices_per_island: Count | None = None
    devices_per_switch: Count | None = None
    nics: Count | None = None
    nic_gbit: Rate | None = None


class ProtocolTable(_Table):
    """A way to move bytes over a link: µs a step, and the share of its bandwidth."""

    latency_us: Amount
    efficiency: Share


Protocols = Annotated[dict[str, ProtocolTable], Field(min_length=1)]


class LinkTable(_Table):
    """``[pcie]``: bandwidth of one device, each way."""

    bandwidth_gbyte: Rate
    protocols: Protocols


class IslandTable(LinkTable):
    """``[island]``: of one device to a switch; with `mesh`, of one link.

    Attributes:
        mesh: number of direct links between the devices of an island, row by row.
    """

    mesh: list[list[Annotated[int, Field(ge=0)]]] | None = None


class TierTable(_Table):
    """``[[network.tiers]]``, from the nodes upwards.

    Attributes:
        nodes_per_switch: nodes below one switch of this tier.
        oversubscription: bandwidth of the nodes below it ÷ bandwidth of its uplinks.
    """

    nodes_per_switch: Count
    oversubscription: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0


class NetworkTable(_Table):
    """``[network]``: between nodes; its bandwidth is that of the network cards."""

    protocols: Protocols
    tiers: list[TierTable] = []


class InNetworkTable(ProtocolTable):
    """``[collectives.in_network]``: a switch adds up; from `devices` of an island on."""

    devices: Count = 2


class CollectivesTable(_Table):
    """``[collectives]``: what the communication library does.

    Attributes:
        start_us: before the first step of a collective or message.
        copy_gbyte: 10⁹ bytes/s at which a device puts the payload in place; unset, no time.
        algorithms: that the library has; the fastest is chosen.
        transfer_share: share of a device that a transfer takes from passes beside it.
    """

    start_us: Amount = 0.0
    copy_gbyte: Rate | None = None
    algorithms: Annotated[list[Algorithm], Field(min_length=1)] = [
        *("ring", "halving-doubling", "tree", "hierarchical", "pairwise")
    ]
    in_network: InNetworkTable | None = None
    transfer_share: Annotated[float, Field(ge=0, le=1)] = 0.0


class HostTable(_Table):
    """``[host]``: the ranks of a node share its cores."""

    cores: Rate
    issue_us: Amount = 0.0
    queue_us: Amount = 0.0
    wake_us: Amount = 0.0
    transfer_cores: Amount = 0.0


class ClusterFile(_Table):
    """A whole cluster file; `parse_cluster` is the way to make one."""

    name: str
    source: str
    devices: Annotated[dict[str, DeviceTable], Field(min_length=1)]
    nodes: Annotated[list[NodesTable], Field(min_length=1)]
    island: IslandTable | None = None
    pcie: LinkTable | None = None
    network: NetworkTable | None = None
    collectives: CollectivesTable = CollectivesTable()
    host: HostTable | None = None


def read_cluster(path: str | Path) -> ClusterFile:
    """The cluster file at `path`.

    Raises:
        ExperimentError: unreadable, not TOML, or it describes no machine; one line.
    """
    where = f"cluster.file = {str(path)!r}"
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ExperimentError(f"{where}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ExperimentError(f"{where}: not TOML: {error}") from None
    return parse_cluster(data, where)


def parse_cluster(data: dict[str, Any], where: str) -> ClusterFile:
    """Check a cluster file; `where` names it in messages.

    Raises:
        ExperimentError: one line: file, place, what is allowed.
    """
    try:
        found = ClusterFile.model_validate(data)
    except ValidationError as error:
        raise ExperimentError(f"{where}: {_explain(error)}") from None
    for problem in _contradictions(found):
        raise ExperimentError(f"{where}: {problem}")
    return found


def _explain(error: ValidationError) -> str:
    """The first mistake: place, value, what is allowed."""
    errors = error.errors()  # a misspelt key is missing under its right name, too
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    place = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "missing":
        return f"{place}: missing"
    if first["type"] == "extra_forbidden":
        return f"{place}: unknown key; known here: {', '.join(_keys_at(first['loc'][:-1]))}"
    if first["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return f"{place} = {first['input']!r}: expected a table [{place}]"
    allowed = first["msg"].replace("Input should be", "allowed:").replace("Input should", "should")
    shown = first["input"] if isinstance(first["input"], (int, float, str)) else "…"
    return f"{place} = {shown!r}: {allowed}"


TABLES: dict[str, type[BaseModel]] = {
    "peak_tflops": PeakTable,
    "nodes": NodesTable,
    "island": IslandTable,
    "pcie": LinkTable,
    "network": NetworkTable,
    "tiers": TierTable,
    "collectives": CollectivesTable,
    "in_network": InNetworkTable,
    "host": HostTable,
}
NAMED_TABLES: dict[str, type[BaseModel]] = {"devices": DeviceTable, "protocols": ProtocolTable}
"""Tables whose names are the user's, by the table that they are in."""


def _keys_at(place: tuple[int | str, ...]) -> list[str]:
    """The keys of the table at `place`."""
    names = [part for part in place if isinstance(part, str)]
    if not names:
        return list(ClusterFile.model_fields)
    within = NAMED_TABLES.get(names[-2]) if len(names) > 1 else None
    return list((within or TABLES[names[-1]]).model_fields)


def _contradictions(file: ClusterFile) -> Iterator[str]:
    """What cannot be true together."""
    links = {"island": file.island, "pcie": file.pcie, "network": file.network}
    names = {place: sorted(link.protocols) for place, link in links.items() if link}
    if len({*map(tuple, names.values())}) > 1:
        shown = "; ".join(f"{place}: {', '.join(found)}" for place, found in names.items())
        yield f"protocols differ ({shown}); every link must have the same names"
    for index, nodes in enumerate(file.nodes):
        yield from (f"nodes.{index}.{problem}" for problem in _node_problems(file, nodes))
    below = 1
    for index, tier in enumerate(file.network.tiers if file.network else []):
        if tier.nodes_per_switch % below or (index and tier.nodes_per_switch == below):
            yield (
                f"network.tiers.{index}.nodes_per_switch = {tier.nodes_per_switch}: must be a "
                f"multiple of the {below} of the tier below"
            )
        below = tier.nodes_per_switch
    library = file.collectives
    if missing := [name for name in ("ring", "pairwise") if name not in library.algorithms]:
        yield f"collectives.algorithms: {missing[0]!r} is missing; other operations need it"
    if ("in-network" in library.algorithms) != (library.in_network is not None):
        yield "collectives.in_network: needed if, and only if, algorithms has 'in-network'"


def _node_problems(file: ClusterFile, nodes: NodesTable) -> Iterator[str]:
    count = sum(nodes.devices.values())
    if unknown := sorted(nodes.devices.keys() - file.devices.keys()):
        yield f"devices: no [devices.{unknown[0]}]; there are: {', '.join(file.devices)}"
    island = nodes.devices_per_island or (count if file.island else 1)
    switch = nodes.devices_per_switch or 1
    for key, size in (("devices_per_island", island), ("devices_per_switch", switch)):
        if count % size:
            yield f"{key} = {size}: must divide the {count} devices of a node"
    if island > 1 and file.island is None:
        yield f"devices_per_island = {island}: needs a table [island]"
    if island < count and file.pcie is None:
        yield f"devices_per_island = {island}: {count} devices, so it needs a table [pcie]"
    if switch > 1 and file.pcie is None:
        yield f"devices_per_switch = {switch}: needs a table [pcie]"
    if max(island, switch) % min(island, switch):
        yield f"devices_per_switch = {switch}: islands of {island} would be cut"
    networked = [nodes.nics is not None, nodes.nic_gbit is not None, file.network is not None]
    if len({*networked}) > 1:
        yield "nics: nics, nic_gbit and a table [network] go together"
    if file.network is None and sum(entry.count for entry in file.nodes) > 1:
        yield "count: more than one node needs a table [network]"
    if file.island and file.island.mesh is not None:
        mesh = file.island.mesh
        if [len(row) for row in mesh] != [island] * island:
            yield f"devices_per_island = {island}: island.mesh must have as many rows and columns"
        elif mesh != [list(column) for column in zip(*mesh, strict=True)] or any(
            row[index] for index, row in enumerate(mesh)
        ):
            yield "devices: island.mesh must be symmetric, with zeros on its diagonal"
