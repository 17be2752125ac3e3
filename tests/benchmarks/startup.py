"""How long imports and commands take before they do anything, beside two yardsticks.

    python tests/benchmarks/startup.py [--runs N]

Every figure is processor time of a process of its own, user and system, as a median; the rows
take turns, so that a busy moment of the machine hits them alike. The yardsticks are a Python
that does nothing and one that imports numpy: ratios to them hold on machines of any speed.
Bytecode is cached in a folder of this run's own, as that of an installed package is.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

COMMAND = "from runtime.cli import main; main()"
ROWS = {
    "python -c pass": ["pass"],
    "import numpy": ["import numpy"],
    "import simulator": ["import simulator"],
    "import twinline": ["import twinline"],
    "from twinline import *": ["from twinline import *"],
    "tw.predict, tw.experiment": ["import twinline as tw; tw.predict, tw.experiment"],
    "twinline --help": [COMMAND, "--help"],
    "twinline predict --help": [COMMAND, "predict", "--help"],
    "twinline clusters": [COMMAND, "clusters"],
    "twinline strategies": [COMMAND, "strategies"],
    "twinline schedules": [COMMAND, "schedules"],
    "twinline predict": [COMMAND, "predict"],
    "twinline predict --json": [COMMAND, "predict", "--json"],
    "twinline program": [COMMAND, "program"],
}
"""Code, and arguments of the command line, for each row; the first two are the yardsticks."""


def cpu_seconds(arguments: list[str], environment: dict[str, str]) -> float:
    """Return the processor time of a Python with these arguments after ``-c``."""
    process = subprocess.Popen(
        [sys.executable, "-c", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: python -c {' '.join(arguments)}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'runtime'}",
            "PYTHONPYCACHEPREFIX": folder,
            "XDG_CACHE_HOME": folder,  # no saved profile
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for arguments in ROWS.values():
            cpu_seconds(arguments, environment)  # which writes the bytecode
        found: dict[str, list[float]] = {name: [] for name in ROWS}
        for _ in range(runs):
            for name, arguments in ROWS.items():
                found[name].append(cpu_seconds(arguments, environment))
    medians = {name: statistics.median(times) for name, times in found.items()}
    bare, numpy = list(medians.values())[:2]
    print(f"{'':26}  CPU ms   ÷ pass  ÷ numpy")
    for name, median in medians.items():
        print(f"{name:26} {1e3 * median:7.0f} {median / bare:8.1f} {median / numpy:8.1f}")


if __name__ == "__main__":
    main()
