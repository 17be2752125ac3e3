"""Help fills lines up to the width, and leaves examples as they are."""

from __future__ import annotations

from simulator.cli.help import description, summary, two_columns

DOCSTRING = """Compare two
    timelines.

    Files go to
    twinline-out/.

    Examples:
        twinline compare --predicted predicted.json --measured measured.json
    """


def test_paragraphs_are_filled_and_examples_kept() -> None:
    assert description(DOCSTRING, 24) == (
        "Compare two timelines.\n\n"
        "Files go to\ntwinline-out/.\n\n"
        "Examples:\n    twinline compare --predicted predicted.json --measured measured.json"
    )
    assert description(DOCSTRING, 78).splitlines()[2] == "Files go to twinline-out/."


def test_the_summary_is_the_first_paragraph() -> None:
    assert summary(DOCSTRING) == "Compare two timelines."
    assert summary(None) == ""


def test_columns() -> None:
    rows = [("--json", "Print one JSON object."), ("--set KEY=VALUE", "Override."), ("-x", "")]
    assert two_columns(rows, 31) == (
        "  --json           Print one\n"
        "                   JSON object.\n"
        "  --set KEY=VALUE  Override.\n"
        "  -x"
    )
