"""The start of the command line: quiet when interrupted at any moment, and only what is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

INTERRUPTED = """
import sys

interrupted = sys.argv.pop(1)

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == interrupted:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from {module} import main
main()
"""


def start(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)


def test_an_interrupt_during_imports_is_one_line() -> None:
    for module in ("runtime.cli.app", "simulator.cli.predict", "pydantic", "simulator.prediction"):
        found = start(INTERRUPTED.format(module="runtime.cli"), module, "predict")
        assert (found.returncode, found.stderr) == (130, "twinline: interrupted\n"), module


def test_an_interrupt_while_ranks_of_torchrun_start_is_one_line() -> None:
    for module in ("runtime.torchrun", "torch", "simulator.experiment_file"):
        found = start(INTERRUPTED.format(module="runtime.__main__"), module)
        assert (found.returncode, found.stderr) == (130, "twinline: interrupted\n"), module


def test_nothing_is_imported_before_interrupts_are_caught() -> None:
    code = "import sys, runtime.cli; print([n for n in sys.modules if n.startswith('simulator')])"
    found = start(code)
    assert found.stdout == "[]\n", found.stderr


LOADED = """
import sys
from runtime.cli import main
try:
    main()
finally:
    print(" ".join(sys.modules), file=sys.stderr)
"""


def test_help_and_mistakes_load_no_command() -> None:
    for arguments in (["--help"], [], ["--version"], ["predit"]):
        loaded = set(start(LOADED, *arguments).stderr.split())
        assert "simulator.cli.application" in loaded
        assert not loaded & {"numpy", "simpy", "simulator.experiment.experiment"}, arguments


def test_a_command_loads_no_other() -> None:
    loaded = start(LOADED, "predict", "--help").stderr.split()
    commands = {"run", "compare", "calibrate", "validate", "program", "strategies", "schedules"}
    places = ("runtime.cli", "simulator.cli")
    assert "simulator.cli.predict" in loaded
    assert not {f"{place}.{name}" for place in places for name in commands} & set(loaded)
