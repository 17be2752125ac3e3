"""The checks that every experiment passes, in the order in which they are asked.

A check stands beside what it is about: a model, a schedule, a way of sharding. Those rooms know
the experiment, which does not know them, so a module that may import them all registers their
checks here. That module takes long to import, so this happens when the first experiment is made.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

Check = Callable[[Any], None]
"""A check raises `ExperimentError` with the key, its value and what is allowed."""

_checks: list[Check] = []
_modules: list[str] = []


def register_checks(*checks: Check) -> None:
    """Let every experiment that is made from now on pass `checks`, in this order."""
    _checks.extend(checks)


def find_checks_in(module: str) -> None:
    """Say which module registers checks; it is imported when the first experiment is made."""
    _modules.append(module)


def registered_checks() -> list[Check]:
    """Return all checks.

    Raises:
        RuntimeError: there are none, so that an experiment would be made unchecked.
    """
    for module in _modules:
        import_module(module)
    if not _checks:
        raise RuntimeError("no checks of experiments are registered: import simulator")
    return _checks
