"""Named sizes are the published models, and the table of them in the documentation is theirs.

``python tests/simulator/experiment/test_model_sizes.py`` writes the table.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.analysis.contents import model_parameters
from simulator.experiment.model_sizes import SIZES, SOURCES
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import experiment, parse, with_overrides

PAGE = Path(__file__).parents[3] / "docs" / "sizes.md"
BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"
UNITS = {"M": 10**6, "B": 10**9}


def parameters(name: str) -> int:
    return model_parameters(experiment(size=name, global_batch=1))


def table() -> str:
    lines = ["| size | model | parameters | published | keys | source |", "| --- " * 6 + "|"]
    for name, size in SIZES.items():
        published = f"{int(size.published):,}" if size.published.isdigit() else size.published
        keys = ", ".join(
            f"{key} {str(value).lower() if isinstance(value, bool) else value}"
            for key, value in size.keys.items()
        )
        counted = f"{parameters(name):,}"
        lines.append(
            f"| `{name}` | `{size.model}` | {counted} | {published} | {keys} | {size.source} |"
        )
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", [name for name, size in SIZES.items() if size.published])
def test_parameters_are_the_published_ones(name: str) -> None:
    """Counts are exact where weights were released, else right to the published digits."""
    published, found = SIZES[name].published, parameters(name)
    if published.isdigit():
        assert found == int(published)
    else:
        digits = len(published.partition(".")[2]) - 1 if "." in published else 0
        assert round(found / UNITS[published[-1]], digits) == float(published[:-1])


def test_the_table_of_the_documentation_is_that_of_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0] == table()


def test_every_source_is_of_a_size() -> None:
    assert {size.source for size in SIZES.values()} == set(SOURCES.values())


def test_keys_that_are_given_besides_say_otherwise_and_a_note_tells() -> None:
    small = experiment(size="llama-3-8b", layers=4, sequence=1024)
    assert (small.workload.layers, small.workload.hidden) == (4, 4096)
    (note,) = small.notes
    assert note == (
        "workload.size = 'llama-3-8b' with layers = 4 in place of 32, sequence = 1024 in place "
        "of 8192"
    )
    assert experiment(size="llama-3-8b", layers=32).notes == []


def test_another_size_has_its_own_keys_and_those_that_were_given() -> None:
    small = experiment(size="llama-3-8b", sequence=1024)
    other = with_overrides(small, ["workload.size=bert-large"])
    assert (other.workload.model, other.workload.hidden) == ("bert", 1024)
    assert (other.workload.sequence, other.workload.kv_heads) == (1024, None)
    assert parse(small.model_dump(exclude_unset=True)) == small


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"size": "llama-3-9b"}, "workload.size = 'llama-3-9b': did you mean 'llama-3-8b'? allo"),
        ({"size": "gpt-2", "model": "llama"}, "'llama': workload.size = 'gpt-2' is a gpt; give"),
        ({"size": 8}, "workload.size = 8: allowed: text"),
    ],
)
def test_sizes_that_there_are_not(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        experiment(**keys)
    assert message in str(error.value)


def test_vocabularies_are_padded_as_megatron_lm_pads_them() -> None:
    padded = experiment(size="gpt-2", tensor=4)
    assert padded.workload.vocab == 50688  # 99 × 128 × 4
    assert padded.notes == [
        "workload.vocab = 50257 is padded to 50688, a multiple of 128 × parallel.tensor = 4, as "
        "in Megatron-LM"
    ]
    assert parse(padded.model_dump(exclude_unset=True)).workload.vocab == 50688
    assert experiment(size="gpt-2").workload.vocab == 50257
    assert experiment(size="llama-3-8b", tensor=8).workload.vocab == 128256  # divides


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
