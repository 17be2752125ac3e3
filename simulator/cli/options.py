"""The arguments and flags that several commands have, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[
    str | None,
    typer.Argument(
        metavar="FILE.toml", help="Experiment file; without it, the built-in experiment."
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key, e.g. parallel.microbatches=8. May be repeated.",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")
]
Gantt = Annotated[
    Path | None,
    typer.Option("--gantt", metavar="OUT.png", help="Draw the timeline: .png, .svg or .pdf."),
]
Trace = Annotated[
    Path | None,
    typer.Option("--trace", metavar="OUT.json", help="Save the timeline (opens in Perfetto)."),
]
