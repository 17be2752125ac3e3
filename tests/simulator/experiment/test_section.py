"""Values of every key are kept as they are, or refused by the key's name."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import Experiment, ExperimentError, parse

SECTIONS = ("workload", "parallel", "cluster", "run")


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("wrong", [3, "text", [1], None, True])
def test_a_section_is_a_table(section: str, wrong: object) -> None:
    with pytest.raises(ExperimentError, match=f"^{section} = ") as error:
        parse({section: wrong})
    assert "\n" not in str(error.value)


def test_an_interpreter_shows_what_was_given() -> None:
    plan = parse({"parallel": {"pp": 2, "microbatches": 4}})
    assert repr(plan) == str(plan) == "Experiment(parallel=Parallel(pipeline=2, microbatches=4))"
    assert repr(Experiment()) == "Experiment()"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_of_the_wrong_type_is_refused(section: str) -> None:
    for key in type(getattr(Experiment(), section)).model_fields:
        with pytest.raises(ExperimentError, match=rf"^{section}\.{key} = \{{\}}: allowed: "):
            parse({section: {key: {}}})
        with pytest.raises(
            ExperimentError, match=rf"^{section}\.{key}: unknown|^{section}\.{key}x"
        ):
            parse({section: {f"{key}x": 1}})


texts = st.sampled_from(["", "4", "cpu", "a\nb", "\x00"])
jsonish = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
keys = [
    (section, key)
    for section in SECTIONS
    for key in type(getattr(Experiment(), section)).model_fields
    if key not in ("hidden", "heads")  # a huge hidden takes long to find a divisor of
]


@given(st.sampled_from(keys), jsonish)
def test_a_value_is_kept_or_refused_by_name(place: tuple[str, str], wild: object) -> None:
    section, key = place
    try:
        experiment = parse({section: {key: wild}})
    except ExperimentError as error:
        assert "\n" not in str(error)
        assert f"{section}." in str(error)
        return
    kept = getattr(getattr(experiment, section), key)
    assert kept == wild
    assert not isinstance(kept, float) or math.isfinite(kept)
    assert isinstance(kept, bool) == isinstance(wild, bool)
