"""The report of `make gpu-test`: what was expected on a GPU, and what was found."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SMI = ("nvidia-smi", "--query-gpu=name,driver_version,memory.used", "--format=csv,noheader")


@dataclass(frozen=True)
class Row:
    """One figure: what it is of, what is expected, what was found, and whether that fits."""

    check: str
    expected: str
    found: str
    fits: bool

    def to_text(self) -> str:
        cells = (self.check, self.expected, self.found, "yes" if self.fits else "**no**")
        return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"


@dataclass
class Report:
    """Figures and outcomes of one run of the tests.

    Times depend on the machine and on what else it does, so a figure that is not as expected
    is marked here and fails no test; what must be right is asserted by the tests.

    Attributes:
        machine: what was tested on, by what it is called.
        rows: the figures, in order.
        outcomes: passed, failed or skipped, with the reason, by test.
    """

    machine: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)

    def add(self, check: str, expected: str, found: object, fits: bool) -> None:
        """Note a figure."""
        self.rows.append(Row(check, expected, str(found), bool(fits)))

    def to_text(self) -> str:
        """The report as markdown."""
        failed = [name for name, outcome in self.outcomes.items() if outcome.startswith("failed")]
        odd = sum(not row.fits for row in self.rows)
        lines = [
            f"### {self.machine.get('GPU', 'no GPU')}",
            "",
            f"`make gpu-test`, {datetime.now(UTC):%Y-%m-%d}: {len(self.outcomes)} tests, "
            f"{len(failed)} failed; {len(self.rows)} figures, {odd} not as expected.",
            "",
            *(f"- {name}: {value}" for name, value in self.machine.items()),
            "",
            "| check | expected | found | as expected |",
            "| --- | --- | --- | --- |",
            *(row.to_text() for row in self.rows),
            "",
            "| test | outcome |",
            "| --- | --- |",
            *(f"| {name} | {outcome} |" for name, outcome in self.outcomes.items()),
        ]
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> None:
        """Save the report."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_text(), encoding="utf-8")


def machine_of(torch: Any, nccl: Callable[[], tuple[int, ...]]) -> dict[str, str]:
    """What identifies a machine with GPUs, and its software.

    Args:
        torch: the module, or what stands in for it.
        nccl: returns the version of NCCL that is loaded.
    """
    count = torch.cuda.device_count()
    if not count:
        return {"torch": torch.__version__, "Python": platform.python_version()}
    properties = torch.cuda.get_device_properties(0)
    return {
        "GPU": f"{count} × {properties.name}",
        "multiprocessors": str(properties.multi_processor_count),
        "memory": f"{properties.total_memory / 2**30:.1f} GiB",
        "driver": driver(),
        "torch": torch.__version__,
        "CUDA": str(torch.version.cuda),
        "NCCL": ".".join(map(str, nccl())),
        "Python": platform.python_version(),
        "host": f"{platform.node()}, {platform.machine()}",
    }


def driver() -> str:
    """The version of the GPU's driver; ``unknown`` without nvidia-smi."""
    rows = smi()
    return rows[0][1] if rows else "unknown"


def smi() -> list[list[str]]:
    """Name, driver version and used memory of each GPU, as nvidia-smi says; [] without it."""
    if shutil.which(SMI[0]) is None:
        return []
    done = subprocess.run(SMI, capture_output=True, text=True, timeout=60)
    return [line.split(", ") for line in done.stdout.splitlines() if line.count(", ") == 2]


def used_bytes(rows: list[list[str]]) -> int:
    """Memory in use on all GPUs, from rows of `smi`."""
    return sum(int(row[2].split()[0]) << 20 for row in rows)
