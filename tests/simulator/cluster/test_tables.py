"""Every key of a cluster file is in the documents."""

from __future__ import annotations

from pathlib import Path

from simulator.cluster.device import DeviceTable
from simulator.cluster.tables import TABLES, ClusterFile


def test_every_key_is_in_the_documents() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "clusters.md").read_text("utf-8")
    tables = [ClusterFile, DeviceTable, *TABLES.values()]
    keys = {key for table in tables for key in table.model_fields} - {"peak_tflops"}
    assert [key for key in sorted(keys) if f"`{key}`" not in text and f"{key}]" not in text] == []
