"""The table of operations is whole, and documentation says what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.program.operation_columns import Formula, Payload, Side
from simulator.program.operations import (
    COLLECTIVES,
    COMMUNICATION,
    MESSAGES,
    OPERATIONS,
    PASSES,
    ROWS,
    Op,
    Operation,
)

PAGE = Path(__file__).resolve().parents[3] / "docs" / "program.md"


def test_every_word_has_one_row():
    assert len(ROWS) == len(OPERATIONS)
    assert set(OPERATIONS) == set(Op)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.op)
def test_columns_of_a_row_agree(row: Operation):
    """What moves bytes has others that take part, and is not counted as work of a device."""
    transfers = Formula.MESSAGE | Formula.SCATTERING | Formula.GATHERING | Formula.TRANSPOSING
    transfers |= Formula.CHAINING
    alone = row.side is Side.COMPUTES
    assert alone == (row.payload is Payload.NOTHING)
    assert alone == (not row.cost & transfers)
    assert row.cost & transfers in (Formula(0), row.cost)
    assert bool(row.hop) == (row.side is Side.MEETS and row.cost is Formula.MESSAGE)


def test_looks_are_told_apart():
    assert len({row.look for row in ROWS}) == len(ROWS)


def test_kinds_of_operations_do_not_overlap():
    assert not COLLECTIVES & MESSAGES
    assert not COMMUNICATION & PASSES
    assert {op for op in Op if op.row.halves == 2} == {Op.ALL_REDUCE}


def test_documentation_has_the_rows():
    """`docs/program.md` has a line for each row, in their order, and no others."""
    lines = [
        f"| `{row.op}` | {', '.join(f'`{label}`' for label in row.labels)} | {row.side.value} "
        f"| {row.payload.value} | {row.docs} |"
        for row in ROWS
    ]
    assert "\n".join(["", *lines, "", ""]) in PAGE.read_text(encoding="utf-8")
