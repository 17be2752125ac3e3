"""Other spellings of keys and values are understood where they mean the same, else suggested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simulator import ExperimentError, load, parse, predict
from simulator.experiment.model_sizes import SIZES
from simulator.experiment.spelling import (
    KEYS,
    SIMILAR,
    VALUES,
    canonical_key,
    canonical_value,
    squashed,
)
from simulator.experiment_file import TABLE_OF, TABLES, experiment
from simulator.strategies.schedules.registry import SCHEDULES


def refusal(**keys: Any) -> str:
    with pytest.raises(ExperimentError) as error:
        experiment(**keys)
    return str(error.value)


def test_every_name_of_the_tables_leads_to_a_key() -> None:
    assert {*KEYS, *VALUES, *SIMILAR.values()} <= {*TABLE_OF}
    names = [squashed(name) for text in KEYS.values() for name in text.split()]
    assert len(names) == len({*names})
    assert not {*names} & {squashed(key) for key in TABLE_OF}
    assert not {squashed(name) for name in SIMILAR} & {*names}


@pytest.mark.parametrize("key", sorted(VALUES))
def test_every_value_of_the_tables_is_one_of_its_key(key: str) -> None:
    known = {"schedule": SCHEDULES, "size": SIZES}.get(key) or TABLES[TABLE_OF[key]]._texts(key)
    assert {*VALUES[key].values()} <= {*known}
    assert all(name == squashed(name) for name in VALUES[key])
    assert not {*VALUES[key]} & {squashed(value) for value in known}


def test_names_of_other_frameworks() -> None:
    ours = experiment(
        layers=6, hidden=96, heads=6, sequence=32, vocab=512, pipeline=2, learning_rate=0.1
    )
    assert ours == experiment(
        num_layers=6,
        hidden_size=96,
        num_attention_heads=6,
        seq_length=32,
        vocab_size=512,
        pipeline_model_parallel_size=2,
        lr=0.1,
    )
    assert ours == experiment(
        n_layer=6, n_embd=96, n_head=6, seq_len=32, Vocab_Size=512, PP=2, learningRate=0.1
    )


@pytest.mark.parametrize(
    ("key", "given", "meant"),
    [
        ("schedule", "1F1B", "1f1b"),
        ("schedule", "Interleaved1F1B", "interleaved-1f1b"),
        ("schedule", "ZBVZeroBubble", "zb-v"),
        ("schedule", "DualPipeV", "dualpipe-v"),
        ("schedule", "eager_1f1b", "eager-1f1b"),
        ("dtype", "BF16", "bf16"),
        ("dtype", "torch.bfloat16", "bf16"),
        ("model", "MoE_GPT", "moe-gpt"),
        ("model", "ResNet-50", "resnet50"),
        ("recompute", "Full", "full"),
        ("preset", "DGX_H100", "dgx-h100"),
    ],
)
def test_values_in_other_spellings(key: str, given: str, meant: str) -> None:
    known = TABLES[TABLE_OF[key]]._texts(key)
    assert canonical_value(key, given, known) == meant
    if key in ("dtype", "schedule") and meant in ("bf16", "1f1b"):
        assert experiment(**{key: given}) == experiment(**{key: meant})


def test_paths_and_names_of_plug_ins_stay_as_they_are() -> None:
    for name in ("csv:/tmp/1F1B.csv", "file:My_Schedule.py", "mine.ZigZag", "../1F1B"):
        assert canonical_value("schedule", name, ()) == name
    assert experiment(profile="DGX.JSON").cluster.profile == "DGX.JSON"


def test_files_and_overrides_may_spell_a_key_differently(tmp_path: Path) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text("[Workload]\nNum-Layers = 6\n[parallel]\ntp = 2\n", encoding="utf-8")
    found = load(str(path), ["workload.n_layer=3", "Parallel.tensor=1"])
    assert found == parse({"workload": {"layers": 3}, "parallel": {"tensor": 1}})


def test_a_key_given_in_two_spellings_is_refused() -> None:
    assert refusal(workload={"num_layers": 4, "layers": 6}) == (
        "workload.layers: workload.num_layers is given too, and means the same; give one of them"
    )
    assert refusal(layers=4, num_layers=4).startswith("workload.num_layers: workload.layers is ")


@pytest.mark.parametrize(
    ("tables", "hint"),
    [
        ({"workload": {"layer": 4}}, "workload.layer: unknown key; did you mean layers? known"),
        ({"workload": {"pipeline": 4}}, "unknown key; did you mean parallel.pipeline? known"),
        ({"workload": {"lr": 0.1}}, "unknown key; did you mean run.learning_rate? known"),
        ({"paralel": {}}, "paralel: unknown key; did you mean parallel? known here: workload"),
        ({"parallel": {"sp": True}}, "parallel.sp: unknown key; did you mean sequence_parallel?"),
        ({"workload": {"batch": 8}}, "workload.batch: unknown key; did you mean global_batch?"),
        ({"parallel": {"ep": 2}}, "parallel.ep: unknown key; did you mean expert? known here"),
        ({"workload": {"batch_size": 2}}, "did you mean global_batch? known here"),
        ({"workload": {"zzz": 2}}, "workload.zzz: unknown key; known here"),
        ({"workload": {"dtype": "bf6"}}, "workload.dtype = 'bf6': did you mean 'bf16'? allowed:"),
        ({"parallel": {"schedule": "zb-h3"}}, "'zb-h3': did you mean 'zb-h2'? allowed: naive"),
        ({"run": {"device": "tpu"}}, "run.device = 'tpu': allowed: 'cpu' or 'cuda'"),
    ],
)
def test_what_is_not_understood_gets_a_suggestion(tables: dict[str, Any], hint: str) -> None:
    with pytest.raises(ExperimentError) as error:
        parse(tables)
    assert hint in str(error.value)


def test_a_preset_gets_a_suggestion() -> None:
    with pytest.raises(ExperimentError, match="'dgx-h10': did you mean 'dgx-h100'\\? allowed: "):
        predict(experiment(preset="dgx-h10"))


def test_a_known_key_is_never_taken_for_another() -> None:
    for key, table in TABLE_OF.items():
        assert canonical_key(key, TABLES[table].model_fields) == key
