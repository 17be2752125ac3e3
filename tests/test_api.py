"""``docs/api.md`` says what the public package has: ``python tests/test_api.py`` writes it.

Of every public name the page has the signature and the first sentence of the docstring, of
functions also their arguments and errors, of classes their public methods and properties.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import twinline as tw

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"

INTRODUCTION = """\
# Python API

<!-- Written by `python tests/test_api.py` from the docstrings; a test compares. -->

`import twinline as tw` has every name below.
Nothing else is public, but for what [code of your own](plugins.md) imports.
It imports neither torch (only the processes of a run do) nor matplotlib (only figures do).
`--json` of the [commands](commands.md) prints what `to_json()` of a result returns.
[JSON](json.md) says what its fields are.
"""

SECTIONS = {
    "Experiments": [
        "experiment",
        "load",
        "parse",
        "Experiment",
        "describe_plan",
        "ExperimentError",
    ],
    "Predict": ["predict", "Prediction", "clusters", "Cluster", "strategies"],
    "Run, compare, calibrate": [
        *("run", "Execution", "compare", "Outcome", "calibrate", "Workers", "LaunchError"),
        *("keep_profile", "load_profile", "from_profile", "Profile"),
    ],
    "Learn": ["learn", "Learning", "LearningCurve", "learning_figure"],
    "Validate": ["validate_suite", "cases_of", "Validation"],
    "Results": [
        *("Result", "Metrics", "RankMetrics", "MemoryFit", "Statistics", "Timeline"),
        *("save_trace", "load_trace", "TraceError"),
        *("compare_timelines", "Comparison", "Cause", "OtherProgramError"),
    ],
    "Programs": [
        *("lower", "check_program", "simulate", "Costs", "costs_of", "to_csv", "ring_seconds"),
        *(
            "Program",
            "ProgramError",
            "Instruction",
            "Task",
            "Op",
            "Stream",
            "COMPUTE_STREAM",
            "TensorName",
        ),
    ],
    "Schedules": ["compare_schedules", "PipelineSetting"],
    "Figures": [
        *("timeline_figure", "comparison_figure", "timelines_figure", "memory_figure"),
        *("schedules_figure", "profile_figure", "Chart"),
    ],
    "Numbers for people": ["seconds", "nbytes", "percent"],
}


def first_sentence(value: Any) -> str:
    """Return the first paragraph of the docstring on one line, up to its first full stop."""
    paragraph = (inspect.getdoc(value) or "").partition("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=[.]) ", paragraph)[0]


def signature(name: str, function: Any) -> str:
    """Return how `function` is called, without the quotes of annotations."""
    text = str(inspect.signature(function))
    text = re.sub(r"""(?<=: |> )(["'])(.*?)\1""", r"\2", text)
    return name + text.replace("(self, ", "(").replace("(self)", "()")


def entries(function: Any, section: str) -> Iterator[tuple[str, str]]:
    """Yield names and descriptions of a section of a docstring, ``Args`` or ``Raises``."""
    text = inspect.getdoc(function) or ""
    for body in re.findall(rf"^{section}:\n((?: {{4}}.*\n?)+)", text, re.MULTILINE):
        for entry in re.split(r"^ {4}(?=\S)", body, flags=re.MULTILINE)[1:]:
            names, _, description = " ".join(entry.split()).partition(": ")
            yield names.replace(", ", "`, `"), description


def details(function: Any) -> Iterator[str]:
    """Lines for the arguments of a function and for the errors that it raises."""
    for names, description in entries(function, "Args"):
        yield f"- `{names}`: {description}"
    for names, description in entries(function, "Raises"):
        yield f"- raises `{names}`: {description}"


def members(of: type) -> Iterator[str]:
    """Lines for the fields, and for the public methods and properties that `of` itself has."""
    bases = [base.__name__ for base in of.__bases__ if base.__name__ in tw.__all__]
    if bases:
        yield f"- all that {bases[0]} has"
    if is_dataclass(of):
        own = [f"`{field.name}`" for field in fields(of) if field.name in of.__annotations__]
        yield f"- fields {', '.join(own)}"
    for name, value in vars(of).items():
        if name.startswith("_") or not inspect.getdoc(value):
            continue
        if isinstance(value, property):
            yield f"- `{name}`: {first_sentence(value)}"
        elif inspect.isfunction(value) or isinstance(value, classmethod):
            function = getattr(of, name)
            if function.__module__.split(".")[0] in ("simulator", "runtime"):
                yield f"- `{signature(name, function)}`: {first_sentence(function)}"


def page() -> str:
    """Return the text of ``docs/api.md``."""
    lines = [INTRODUCTION]
    for title, names in SECTIONS.items():
        lines.append(f"## {title}\n")
        for name in names:
            value = getattr(tw, name)
            lines.append(f"### {name}\n")
            if inspect.isfunction(value):
                lines.append(f"```python\n{signature(name, value)}\n```\n")
            if isinstance(value, tw.Stream):
                lines.append("The stream of passes and optimizer steps.\n")
                continue
            lines.append(first_sentence(value) + "\n")
            if inspect.isfunction(value) and (found := list(details(value))):
                lines.append("\n".join(found) + "\n")
            if inspect.isclass(value) and (found := list(members(value))):
                lines.append("\n".join(found) + "\n")
    return "\n".join(lines)


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tests/test_api.py"


def test_the_page_has_every_public_name_once() -> None:
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == tw.__all__


def test_every_public_name_has_a_sentence() -> None:
    for name in tw.__all__:
        value = getattr(tw, name)
        if not isinstance(value, tw.Stream):
            assert first_sentence(value).endswith("."), name


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
