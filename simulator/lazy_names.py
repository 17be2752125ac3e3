"""The public names of a package are imported when somebody asks for them (PEP 562).

A package lists them as imports in its stub, ``__init__.pyi``: that is what editors and type
checkers read, so there is no second list.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_names(package: str) -> tuple[Callable[[str], Any], list[str]]:
    """Return the `__getattr__` and the `__all__` of a package that has a stub.

    Args:
        package: name of the package that is being imported.
    """
    stub = Path(str(sys.modules[package].__file__)).with_suffix(".pyi").read_text("utf-8")
    homes = {
        alias.asname or alias.name: (str(node.module), alias.name)
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    def import_name(name: str) -> Any:
        """Import the module of a public name; the package keeps the value from then on."""
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, original = homes[name]
        value = getattr(import_module(module), original)
        setattr(sys.modules[package], name, value)
        return value

    return import_name, sorted(homes)
