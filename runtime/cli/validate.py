"""The command ``validate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.running import progress_bar, run_errors
from runtime.validation import validation
from runtime.validation.kept import Row, finished, identity
from runtime.validation.report import line_of, print_validation
from runtime.validation.suite import cases_of
from runtime.validation.suite_case import SuiteCase
from simulator.cli.application import FAILED, INTERRUPTED, fail
from simulator.cli.console import stdout_console
from simulator.cli.options import AsJson
from simulator.cli.outputs import Output, deliver
from simulator.experiment.describe import describe_plan


@run_errors
def validate(
    suite: Annotated[
        str, typer.Option(metavar="SUITE", help="quick (a few minutes) or full (half an hour).")
    ] = "quick",
    ranks: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Only cases with so many ranks. May be repeated."),
    ] = None,
    cases: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Only cases with this in their name; * is anything. May be repeated.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A key of all cases but the paced ones: run.device=cuda. May be repeated.",
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name the cases; run nothing.")] = False,
    as_json: AsJson = False,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Results, kept case by case.")
    ] = Path("twinline-validate"),
) -> None:
    """Predict and execute a suite of strategies, and sum the errors up beside their targets.

    A second call with the same DIR goes on where the first was interrupted.

    Examples:
        twinline validate
        twinline validate --suite full --ranks 2 --cases "zero*"
        twinline validate --list
    """
    chosen = cases_of(suite, ranks or (), cases or (), set_ or ())
    if list_:
        deliver(lambda: list_cases(chosen))
        return
    done = len(finished(output).keys() & {identity(case) for case in chosen})
    if done:
        print(f"{output}: {done} of {len(chosen)} cases are there already", file=sys.stderr)
    try:
        with progress_bar() as on_progress:
            found = validation.validate_suite(chosen, output, show_case, on_progress)
    except KeyboardInterrupt:
        done = len(finished(output).keys() & {identity(case) for case in chosen})
        kept = f"{done} of {len(chosen)} cases are kept in {output}; the same command goes on"
        fail(f"interrupted; no process is left; {kept}", INTERRUPTED)

    def show() -> None:
        if as_json:
            print(json.dumps(found.to_json()))
        else:
            console = stdout_console()
            print_validation(console, found)
            console.print(f"wrote {output / 'cases.jsonl'}")

    def scatter(path: Path) -> None:
        from simulator.charts.validation import scatter_figure

        scatter_figure(found.done).save(path)

    def errors(path: Path) -> None:
        from simulator.charts.validation import errors_figure

        errors_figure(found.done).save(path)

    pictures: list[Output] = [(output / "scatter.png", scatter), (output / "errors.png", errors)]
    deliver(show, pictures if found.done else [], quiet=as_json)
    if found.failed:
        raise typer.Exit(FAILED)


def list_cases(cases: Sequence[SuiteCase]) -> None:
    """Print a line for each case."""
    for case in cases:
        print(f"{case.name}: {describe_plan(case.experiment)}")


def show_case(row: Row) -> None:
    """Print the line of a case that is done."""
    print(line_of(row), file=sys.stderr)
