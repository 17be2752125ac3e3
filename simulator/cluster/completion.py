"""Completes a user's cluster file: what it does not say is that of a preset, or follows.

A file has to say what data sheets say. What none has is that of the preset of the same, or the
nearest, generation (`simulator.cluster.generations`). With ``like``, everything that is not said
is that of a preset.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from simulator.cluster.generations import (
    FP64_SHARE,
    STAGED,
    USUAL,
    WITHOUT_BF16,
    constants_of,
    source_of,
)
from simulator.cluster.preset_files import preset_meant, preset_tables
from simulator.experiment.section import ExperimentError

Tables = dict[str, Any]
"""Tables as TOML has them: unchecked, so anything may be of a wrong type."""


class Completion:
    """A cluster file in the course of being completed.

    Attributes:
        tables: its tables. Where nothing stands in for a key, it is still missing, in a table
            that is there, so that all missing keys can be named at once.
        taken: where each key that the file does not say comes from, by its dotted name.
        needed: keys that are missing although the tables do not require them.
    """

    def __init__(self, said: Tables, name: str, where: str) -> None:
        """Complete the tables that a file says.

        Args:
            said: the tables.
            name: of the cluster, if it does not say one.
            where: names the file in messages.

        Raises:
            ExperimentError: ``like`` names no preset; a key that has no effect.
        """
        self.tables, self.where = deepcopy(said), where
        self.taken: dict[str, str] = {}
        self.needed: list[str] = []
        self._is_staged = self._asks_for_staging()
        self._base = base = self._preset(self.tables, "like")
        tables = preset_tables(base) if base else {}
        origin = f"like {base}"
        self.tables.setdefault("name", name)
        self._merge(self.tables, tables, "", origin, without=("source", "nodes", "devices"))
        self.tables.setdefault("source", f"like {base}" if base else "not said")
        self._complete_nodes(tables, origin)
        self._complete_devices(tables, origin)
        source = self._source_of_first_device()
        if source is not None:
            self._complete_links(preset_tables(source), f"as {source}")
            self._complete_library(preset_tables(source), f"as {source}")

    # Taking values

    def _preset(self, table: Tables, place: str) -> str | None:
        """Return the preset that the key ``like`` of a table names, if there is one."""
        name = table.get("like")
        return preset_meant(name, f"{self.where}: {place}") if isinstance(name, str) else None

    def _take(self, table: Tables, key: str, value: Any, place: str, origin: str) -> None:
        """Set a key of the table at `place`, unless the file says it."""
        if key not in table:
            table[key] = deepcopy(value)
            self.taken |= dict.fromkeys(leaves(value, inside(place, key)), origin)

    def _merge(
        self, table: Tables, other: Tables, place: str, origin: str, without: tuple[str, ...] = ()
    ) -> None:
        """Take from `other` what the table at `place` does not say; a list is one value."""
        for key, value in other.items():
            if key in without:
                continue
            if isinstance(value, dict) and isinstance(table.get(key), dict):
                self._merge(table[key], value, inside(place, key), origin)
            else:
                self._take(table, key, value, place, origin)

    def _table(self, name: str) -> Tables:
        """Return the table `name`, or nothing where it is missing or no table."""
        found = self.tables.get(name)
        return found if isinstance(found, dict) else {}

    # Nodes

    def _complete_nodes(self, base: Tables, origin: str) -> None:
        """Complete each sort of nodes, and begin the tables of links that they need."""
        if "nodes" not in self.tables and base:
            self._take(self.tables, "nodes", base["nodes"], "", origin)
        self.tables.setdefault("nodes", [{}])
        nodes = self._nodes()
        for number, node in enumerate(nodes if base else []):
            # which devices there are is one value
            without = ("count", "devices") if "devices" in node else ("count",)
            self._merge(node, base["nodes"][0], f"nodes.{number}", origin, without)
        several = len(nodes) > 1 or any(node.get("count", 1) != 1 for node in nodes)
        if several or any({"nics", "nic_gbit"} & node.keys() for node in nodes):
            self.tables.setdefault("network", {})
        if "network" in self.tables:
            for number, node in enumerate(nodes):
                self._take(node, "nics", 1, f"nodes.{number}", "default")
                if "nic_gbit" not in node:
                    self.needed.append(f"nodes.{number}.nic_gbit")
        if any(self._uses_pcie(node) for node in nodes):
            self.tables.setdefault("pcie", {})

    def _nodes(self) -> list[Tables]:
        """Return the sorts of nodes that are tables."""
        nodes = self.tables["nodes"]
        return [n for n in nodes if isinstance(n, dict)] if isinstance(nodes, list) else []

    def _uses_pcie(self, node: Tables) -> bool:
        """Tell whether devices of a node have nothing but PCIe between them, or share a switch."""
        devices = node.get("devices")
        kinds = devices.values() if isinstance(devices, dict) else ()
        count = sum(number for number in kinds if isinstance(number, int))
        joined = node.get("devices_per_island", count if "island" in self.tables else 1)
        return (
            (count > 1 and joined == 1)
            or joined not in (0, 1, count)
            or (node.get("devices_per_switch", 1) != 1)
        )

    def _kinds(self) -> list[str]:
        """Return the kinds of devices that the nodes have, in order."""
        kinds = [node.get("devices") for node in self._nodes()]
        return list(
            dict.fromkeys(kind for some in kinds if isinstance(some, dict) for kind in some)
        )

    # Devices

    def _complete_devices(self, base: Tables, origin: str) -> None:
        """Complete every kind of device that is described, or that a node has and `base` too."""
        devices = self.tables.setdefault("devices", {})
        if not isinstance(devices, dict):
            return
        others, kinds = base.get("devices", {}), self._kinds()
        # a kind that is not among those described is most likely misspelt
        new = [kind for kind in kinds if kind in others or not devices]
        for kind in new if kinds or devices else ["KIND"]:
            devices.setdefault(kind, {})
        for kind, device in devices.items():
            if not isinstance(device, dict):
                continue
            place = f"devices.{kind}"
            mine = self._preset(device, f"{place}.like")
            if mine is not None:
                self._complete_device(device, place, _first(preset_tables(mine)), f"like {mine}")
            else:
                other = others.get(kind) or (_first(base) if base else {})
                self._complete_device(device, place, other, origin)

    def _complete_device(self, device: Tables, place: str, other: Tables, origin: str) -> None:
        """Complete a kind of device: from its generation if it says one, then from `other`."""
        if device or not other:  # what is described is no longer the device of the preset
            device.setdefault("name", place.partition(".")[2])
        peaks = f"{place}.peak_tflops"
        rates = device.get("peak_tflops")
        if isinstance(rates, dict):
            same = (
                "fp32" if device.get("generation") in WITHOUT_BF16 and "fp16" in rates else "fp16"
            )
            for dtype, as_dtype in (("bf16", same), ("fp16", "bf16")):
                if as_dtype in rates:
                    self._take(rates, dtype, rates[as_dtype], peaks, f"= {as_dtype}")
        if "generation" in device:
            self._take_constants(device, place)
        self._merge(device, other, place, origin)
        self._take(device, "kind", "gpu", place, "default")
        before = len(self.taken)
        self._take_constants(device, place)
        if len(self.taken) > before and device["kind"] == "gpu":
            self._take(device, "generation", USUAL, place, "default")
        rates = device.setdefault("peak_tflops", {})
        if isinstance(rates, dict) and isinstance(rates.get("fp32"), (int, float)):
            self._take(rates, "fp64", rates["fp32"] * FP64_SHARE, peaks, "= fp32 ÷ 64")

    def _take_constants(self, device: Tables, place: str) -> None:
        """Take what no data sheet has from the preset of the device's generation."""
        source = source_of(device)
        if source is not None:
            found = _first(preset_tables(source))
            constants = {key: found[key] for key in constants_of(device)}
            self._merge(device, constants, place, f"as {source}")

    def _source_of_first_device(self) -> str | None:
        """Return the preset that the first device has its constants from."""
        devices = self._table("devices")
        kind = next((kind for kind in self._kinds() if kind in devices), next(iter(devices), None))
        device = devices.get(kind) if kind is not None else None
        if not isinstance(device, dict):
            return None
        like = None if "generation" in device else self._preset(device, "like") or self._base
        return like or source_of(device)

    # Links and the library

    def _complete_links(self, source: Tables, origin: str) -> None:
        """Give links without protocols those of a preset, with the names that others have."""
        links = {name: self._table(name) for name in ("island", "pcie", "network")}
        ways = [link["protocols"] for link in links.values() if "protocols" in link]
        said = {name for way in ways if isinstance(way, dict) for name in way}
        for name, link in links.items():
            known = source.get(name, {}).get("protocols", {})
            if name in self.tables and known and said <= known.keys():
                chosen = {way: known[way] for way in known if way in said or not said}
                self._take(link, "protocols", chosen, name, origin)
        if self._is_staged:
            for name, way in self.tables["pcie"].get("protocols", {}).items():
                way["efficiency"] = round(way["efficiency"] * STAGED, 3)
                self.taken[f"pcie.protocols.{name}.efficiency"] += ", without peer access"

    def _asks_for_staging(self) -> bool:
        """Tell whether the file has PCIe cards without peer access, and leaves protocols to us."""
        pcie = self._table("pcie")
        if pcie.get("peer_access") is not False:
            return False
        if "protocols" in pcie:
            raise ExperimentError(
                f"{self.where}: pcie.peer_access = false: says which protocols are taken where "
                "[pcie.protocols] is missing; allowed: one of the two"
            )
        return True

    def _complete_library(self, source: Tables, origin: str) -> None:
        """Give a file without [collectives] those of a preset; its switches may not add up."""
        library = {
            key: value for key, value in source["collectives"].items() if key != "in_network"
        }
        library["algorithms"] = [way for way in library["algorithms"] if way != "in-network"]
        self._take(self.tables, "collectives", library, "", origin)


def _first(tables: Tables) -> Tables:
    """Return the first kind of device of a preset."""
    return next(iter(tables["devices"].values()))


def inside(place: str, key: str | int) -> str:
    """Return the dotted name of a key of the table at `place`."""
    return f"{place}.{key}" if place else str(key)


def leaves(value: Any, place: str) -> dict[str, Any]:
    """Return the single values in `value`, whose dotted name is `place`, by their own names."""
    if isinstance(value, dict):
        inner = {inside(place, key): part for key, part in value.items()}
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        inner = {inside(place, number): part for number, part in enumerate(value)}
    else:
        return {place: value}
    return {name: leaf for key, part in inner.items() for name, leaf in leaves(part, key).items()}
