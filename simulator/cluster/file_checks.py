"""Finds contradictions between the tables of a cluster file."""

from __future__ import annotations

from collections.abc import Iterator

from simulator.cluster.tables import ClusterFile, NodesTable

MOST_IN_MESH = 8
"""The largest island without a switch: all rings through its devices are looked at."""


def contradictions(file: ClusterFile) -> Iterator[str]:
    """Yield what cannot be true together, one line each."""
    links = {"island": file.island, "pcie": file.pcie, "network": file.network}
    names = {place: sorted(link.protocols) for place, link in links.items() if link}
    if len({*map(tuple, names.values())}) > 1:
        shown = "; ".join(f"{place}: {', '.join(found)}" for place, found in names.items())
        yield f"protocols differ ({shown}); every link must have the same names"
    for index, nodes in enumerate(file.nodes):
        yield from (f"nodes.{index}.{problem}" for problem in _node_problems(file, nodes))
    used = {kind for nodes in file.nodes for kind in nodes.devices}
    if unused := [kind for kind in file.devices if kind not in used]:
        yield f"devices.{unused[0]}: no node has it; nodes have: {', '.join(sorted(used))}"
    below = 1
    for index, tier in enumerate(file.network.tiers if file.network else []):
        if tier.nodes_per_switch % below or (index and tier.nodes_per_switch == below):
            yield (
                f"network.tiers.{index}.nodes_per_switch = {tier.nodes_per_switch}: must be a "
                f"multiple of the {below} of the tier below"
            )
        below = tier.nodes_per_switch
    library = file.collectives
    for place, one in (("collectives", library), ("collectives.gloo", library.gloo)):
        has = set(one.algorithms) if one else {"ring", "pairwise"}
        if not has & {"ring", "piecewise-ring"} or "pairwise" not in has:
            missing = "pairwise" if "pairwise" not in has else "ring"
            yield f"{place}.algorithms: {missing!r} is missing; other operations need it"
    if library.gloo and "in-network" in library.gloo.algorithms:
        yield "collectives.gloo.algorithms: 'in-network' is not for gloo"
    if ("in-network" in library.algorithms) != (library.in_network is not None):
        yield "collectives.in_network: needed if, and only if, algorithms has 'in-network'"


def _node_problems(file: ClusterFile, nodes: NodesTable) -> Iterator[str]:
    """Yield what is wrong with one entry of ``[[nodes]]``."""
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
        if island > MOST_IN_MESH:
            yield f"devices_per_island = {island}: island.mesh has at most {MOST_IN_MESH} devices"
        elif [len(row) for row in mesh] != [island] * island:
            yield f"devices_per_island = {island}: island.mesh must have as many rows and columns"
        elif mesh != [list(column) for column in zip(*mesh, strict=True)] or any(
            row[index] for index, row in enumerate(mesh)
        ):
            yield "devices: island.mesh must be symmetric, with zeros on its diagonal"
        elif file.pcie is None and any(row.count(0) > 1 for row in mesh):
            yield "devices: island.mesh leaves devices without a link; they need a table [pcie]"
