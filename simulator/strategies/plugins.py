"""Code of the user's own is found by the name that an experiment gives it, and run.

A name is one of three: ``file:PATH.py`` or ``file:PATH.py:NAME``, a path from the current folder;
a dotted name, ``my_package.zigzag``, of what is installed or lies in the current folder; or the
name of an entry point that an installed package declares. Nothing is run that no one named.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from simulator.experiment.section import ExperimentError

Answer = TypeVar("Answer")
FILE = "file:"
OURS = str(Path(__file__).resolve().parents[1])


@dataclass(frozen=True)
class UserCode:
    """A module, class or function of the user's own.

    Attributes:
        key: the key of the experiment that names it.
        name: what the key says.
        value: what was found under that name.
        file: the file it stands in.
    """

    key: str
    name: str
    value: Any
    file: str

    def call(self, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Return what `function` answers.

        Raises:
            ExperimentError: it failed; one line names the file, the line and the error.
        """
        try:
            return function(*arguments)
        except ExperimentError:
            raise
        except Exception as error:
            raise self.mistake(_place_of(error, self.file)) from error

    def mistake(self, text: str) -> ExperimentError:
        """Return the error that says, in one line, what is wrong with this code."""
        return ExperimentError(f"{self.key} = {self.name!r}: {text}")


def is_user_code(name: str, group: str) -> bool:
    """Tell whether `name` has the form of a name of the user's own code, or is an entry point."""
    return name.startswith(FILE) or "." in name or name in installed(group)


def installed(group: str) -> dict[str, metadata.EntryPoint]:
    """Return the entry points of `group` that installed packages declare, by name."""
    return {point.name: point for point in sorted(metadata.entry_points(group=group))}


def load_user_code(key: str, name: str, group: str) -> UserCode:
    """Find the user's own code.

    Args:
        key: the key of the experiment that names it, for errors.
        name: see the module.
        group: in which group of entry points it may be.

    Raises:
        ExperimentError: there is none of that name, or it fails when it is imported.
    """
    found = UserCode(key, name, None, "")
    if name.startswith(FILE):
        path, attributes = _split(name.removeprefix(FILE))
        found = UserCode(key, name, None, path)
        try:
            source = Path(path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise found.mistake(getattr(error, "strerror", None) or str(error)) from None
        value: Any = found.call(_module_of_file, str(Path(path).resolve()), source)
        return UserCode(key, name, _attribute(found, value, attributes), path)
    path, attributes = _split(name)
    if path.endswith(".py"):
        raise found.mistake(f"a file is named {':'.join([FILE + path, *attributes])}")
    point = installed(group).get(name)
    dotted = name if point is None else point.value.replace(":", ".")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    module, attributes = found.call(_import_longest, dotted)
    if module is None:
        raise found.mistake(f"there is no module {dotted.partition('.')[0]!r} to import")
    found = UserCode(key, name, None, str(module.__file__ or module.__name__))
    return UserCode(key, name, _attribute(found, module, attributes), found.file)


def absolute(name: str) -> str:
    """Return `name` with the path of a ``file:`` or ``csv:`` made absolute: for other processes."""
    for kind in (FILE, "csv:"):
        if name.startswith(kind) and name != kind:
            path, attributes = _split(name.removeprefix(kind)) if kind == FILE else (name[4:], [])
            return ":".join([f"{kind}{Path(path).absolute()}", *attributes])
    return name


def _split(text: str) -> tuple[str, list[str]]:
    """Return the path of ``PATH`` or ``PATH:NAME``, and the name in a list, if there is one."""
    path, colon, name = text.rpartition(":")
    return (path, [name]) if colon and name.isidentifier() else (text, [])


@lru_cache(maxsize=64)
def _module_of_file(path: str, source: str) -> ModuleType:
    """Run a file as a module; the same text is run once."""
    digest = hashlib.sha256(f"{path}\n{source}".encode()).hexdigest()
    name = f"{Path(path).stem}_{digest[:8]}"
    module = ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module  # where dataclasses and pickles look
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_longest(dotted: str) -> tuple[ModuleType | None, list[str]]:
    """Import the longest part of a dotted name that is a module; the rest are attributes."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        name = ".".join(parts[:count])
        try:
            return importlib.import_module(name), parts[count:]
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if missing != name and not name.startswith(f"{missing}."):
                raise  # something that the module itself imports
    return None, []


def _attribute(found: UserCode, value: Any, attributes: list[str]) -> Any:
    for attribute in attributes:
        if not hasattr(value, attribute):
            raise found.mistake(f"{found.file} has no {attribute!r}")
        value = getattr(value, attribute)
    return value


def _place_of(error: BaseException, file: str) -> str:
    """Return file, line and error: the deepest line of the user's own file, if it came so far."""
    message = str(error).partition("\n")[0]
    says = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith((OURS, "<frozen"))]
    own = [frame for frame in theirs if file and Path(frame.filename) == Path(file).resolve()]
    for frame in reversed(own or theirs):
        return f"{frame.filename}, line {frame.lineno}: {says}"
    return f"{file}: {says}" if file else says
