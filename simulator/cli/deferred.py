"""A command is imported when it is called: most of what one of them needs, others do not."""

from __future__ import annotations

import ast
import gc
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import typer

from simulator.cli.help import Command, summary
from simulator.program.gc_pause import paused_gc


class DeferredCommand(Command):
    """A command of which only the name is known until it is called, or asked for its help.

    Args:
        module: dotted name of its module, whose last part is the name of the command and of
            its function.
    """

    def __init__(self, module: str):
        super().__init__(module.rpartition(".")[2])
        self.module = module

    def summary(self) -> str:
        """Return what the command does, in a line; read from its source, which is not imported."""
        spec = find_spec(self.module)
        source = spec.loader.get_source(self.module)  # type: ignore[union-attr]
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef) and node.name == self.name:
                return summary(ast.get_docstring(node))
        raise AttributeError(f"{self.module} has no function {self.name}")

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        """Import the command, and return the context of its call."""
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(cls=Command)(getattr(self._imported(), str(self.name)))
        return typer.main.get_command(app).make_context(info_name, args, *more, **extra)

    def _imported(self) -> ModuleType:
        """Return the module of the command."""
        if self.module not in sys.modules:
            with paused_gc():
                import_module(self.module)
            gc.freeze()  # what was imported stays; walking it at the end takes long
        return sys.modules[self.module]
