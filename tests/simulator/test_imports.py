"""The simulator does not need torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import simulator

CODE = """
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
try:
    import torch
except ImportError as error:
    assert "is blocked" in str(error)
else:
    raise SystemExit("the blocker does not block")
import simulator
for module in pkgutil.walk_packages(simulator.__path__, "simulator."):
    if not module.name.endswith("__main__"):
        print(importlib.import_module(module.name).__name__)
assert "torch" not in sys.modules
"""


def test_every_module_imports_without_torch() -> None:
    found = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    folder = Path(simulator.__file__).parent
    modules = {
        ".".join(("simulator", *path.relative_to(folder).with_suffix("").parts))
        for path in folder.rglob("*.py")
    }
    expected = {name.removesuffix(".__init__") for name in modules}
    assert set(found.stdout.split()) == expected - {"simulator", "simulator.__main__"}
