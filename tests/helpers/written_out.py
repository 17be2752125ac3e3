"""Programs whose instructions are there one by one, without the calls they came from."""

from __future__ import annotations

from simulator.program.program import Program


def written_out(program: Program) -> Program:
    """Return a program of the same lists, which may be changed and over which nothing leaps."""
    lists = program.ranks, program.resident, program.buckets
    return Program(*lists, program.num_stages, program.list_of)
