"""Every mistake in an experiment is refused in one line: key, value, what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simulator import Experiment, ExperimentError, load, lower, parse, predict
from simulator.cluster.preset_files import PRESETS
from simulator.experiment_file import TABLE_OF, experiment
from simulator.workloads.expert_load import loads_of

SECTIONS = ("workload", "parallel", "cluster", "run")


def refusal(overrides: list[str], path: str | None = None) -> str:
    with pytest.raises(ExperimentError) as error:
        load(path, overrides)
    message = str(error.value)
    assert "\n" not in message
    return message


def value(override: str) -> Any:
    """What --set made of the right-hand side, read back from the key it was given for."""
    section, _, key = override.partition("=")[0].strip().partition(".")
    return getattr(getattr(load(None, [override]), section), key)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("workload.model=mlp", "mlp"),
        ('workload.model="mlp"', "mlp"),
        ("workload.model='mlp'", "mlp"),
        (" workload.model = mlp ", "mlp"),
        ("workload.layers=6", 6),
        ("workload.layers=1_000", 1000),
        ("workload.hidden=0x100", 256),
        ("parallel.bucket_mb=0.5", 0.5),
        ("parallel.bucket_mb=1e-3", 0.001),
        ("parallel.bucket_mb=2", 2.0),
        ("parallel.sequence_parallel=false", False),
        ("parallel.schedule=1f1b", "1f1b"),
        ("cluster.profile=/tmp/a b=c.json", "/tmp/a b=c.json"),
        ("cluster.profile=1.2.3", "1.2.3"),
        ("run.pace=2 # twice as slow", 2.0),
    ],
)
def test_set(override: str, expected: object) -> None:
    found = value(override)
    assert found == expected
    assert type(found) is type(expected)


def test_later_settings_win() -> None:
    experiment = load(None, ["parallel.pipeline=4", "parallel.pipeline=1"])
    assert experiment.parallel.pipeline == 1


@pytest.mark.parametrize(
    "override",
    ["", "=", "layers", "workload.=3", ".=3", "workload.layers", "=3"],
)
def test_set_that_is_not_an_assignment(override: str) -> None:
    assert refusal([override]) == f"--set {override}: expected section.key=value"


def test_a_table_is_no_key() -> None:
    assert refusal(["Workload=3"]) == "--set Workload=3: expected workload.key=value"


@pytest.mark.parametrize(
    ("override", "table", "key", "expected"),
    [
        ("layers=3", "workload", "layers", 3),
        ("num-layers=3", "workload", "layers", 3),
        ("lr=4.5", "run", "learning_rate", 4.5),
        ("micro_batch_size=1", "parallel", "microbatch_size", 1),
        ("preset=dgx-h100", "cluster", "preset", "dgx-h100"),
    ],
)
def test_a_key_without_its_table(override: str, table: str, key: str, expected: object) -> None:
    assert getattr(getattr(load(None, [override]), table), key) == expected


def test_an_unknown_key_without_its_table() -> None:
    assert refusal(["lyers=3"]).startswith("lyers: unknown key; did you mean layers? known: model")


@pytest.mark.parametrize("text", ["[1, 3]", "[1,3]", "[ 1 , 3, ]"])
def test_a_list(text: str) -> None:
    assert load(None, [f"parallel.split={text}"]).parallel.split == (1, 3)


def test_a_list_of_text_needs_no_quotes() -> None:
    order = "[context,expert,data,pipeline,tensor]"
    given = load(None, [f"parallel.rank_order={order}"]).parallel.rank_order
    assert given == ("context", "expert", "data", "pipeline", "tensor")


def test_one_value_is_no_list() -> None:
    assert refusal(["parallel.split=2"]) == "parallel.split = 2: allowed: a list, in brackets"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["workload.model=foo"], "workload.model = 'foo': allowed: 'unit', 'mlp'"),
        (["workload.model="], "workload.model = '': allowed: 'unit', 'mlp'"),
        (
            ["workload.dtype=int8"],
            "workload.dtype = 'int8': allowed: 'fp64', 'fp32', 'bf16' or 'fp16'",
        ),
        (["workload.layers=0"], "workload.layers = 0: allowed: 1 to 65536"),
        (["workload.layers=-4"], "workload.layers = -4: allowed: 1 to 65536"),
        (["workload.layers=true"], "workload.layers = True: allowed: a whole number"),
        (["workload.layers='4'"], "workload.layers = '4': allowed: a whole number"),
        (["workload.layers=4.0"], "workload.layers = 4.0: allowed: a whole number"),
        (["workload.layers=[4]"], "workload.layers = [4]: allowed: a whole number"),
        (["workload.layers=[[["], "workload.layers = '[[[': allowed: a whole number"),
        (["parallel.bucket_mb=nan"], "parallel.bucket_mb = nan: allowed: a finite number"),
        (["parallel.bucket_mb=inf"], "parallel.bucket_mb = inf: allowed: a finite number"),
        (["parallel.bucket_mb=0"], "parallel.bucket_mb = 0: allowed: more than 0"),
        (["parallel.bucket_mb=true"], "parallel.bucket_mb = True: allowed: a number"),
        (["parallel.bucket_mb='1'"], "parallel.bucket_mb = '1': allowed: a number"),
        (["parallel.data=65537"], "parallel.data = 65537: allowed: 1 to 65536"),
        (["parallel.data=0"], "parallel.data = 0: allowed: 1 to 65536"),
        (["parallel.zero_group=0"], "parallel.zero_group = 0: allowed: 1 to 65536"),
        (["parallel.virtual_stages=2"], "parallel.schedule = '1f1b' with virtual_stages = 2; allo"),
        (
            [
                "parallel.pipeline=4",
                "parallel.virtual_stages=2",
                "parallel.schedule=interleaved-1f1b",
            ],
            "parallel.virtual_stages = 2: pipeline × virtual_stages = 8 stages, more than "
            "workload.layers = 4; no other parallel.virtual_stages works with the rest",
        ),
        (["parallel.zero=4"], "parallel.zero = 4: allowed: 0 to 3"),
        (["parallel.zero=stage3"], "parallel.zero = 'stage3': allowed: a whole number, 0 to 3"),
        (
            ["parallel.sequence_parallel=1"],
            "parallel.sequence_parallel = 1: allowed: true or false",
        ),
        (["parallel.schedule=7"], "parallel.schedule = 7: allowed: text"),
        (["parallel.schedule=zigzag"], "parallel.schedule = 'zigzag': allowed: naive, gpipe, 1f1b"),
        (["cluster.nodes=0"], "cluster.nodes = 0: allowed: 1 or more"),
        (
            ["cluster.node_bandwidth_gbit=-1"],
            "cluster.node_bandwidth_gbit = -1: allowed: more",
        ),
        (["run.device=tpu"], "run.device = 'tpu': allowed: 'cpu' or 'cuda'"),
        (["run.timeout_s=-inf"], "run.timeout_s = -inf: allowed: a finite number"),
        (["run.warmup=-1"], "run.warmup = -1: allowed: 0 or more"),
        (["foo.x=1"], "foo: unknown key; known here: workload, parallel, cluster, run"),
        (["workload.foo=1"], "workload.foo: unknown key; known here: model, layers, hidden, "),
        (["parallel.x.y=1"], "parallel.x.y: unknown key; known here: data, pipeline, "),
        (
            ["run.devices=cpu"],
            "run.devices: unknown key; did you mean device? known ",
        ),
        (
            ["workload.heads=3", "workload.hidden=256"],
            "workload.heads = 3: must divide workload.hidden = 256; nearest that works: 2",
        ),
        (["workload.vocab=255"], "workload.vocab = 255: .*allowed: 256 or more"),
        (["workload.forward=1"], "workload.forward = 1.0: only for workload.model = 'unit'"),
        (
            ["workload.model=mlp", "workload.p2p=0"],
            "workload.p2p = 0.0: only for workload.model = 'unit'",
        ),
        (
            ["workload.global_batch=30", "parallel.data=3", "parallel.microbatches=4"],
            "workload.global_batch = 30: must be a multiple of data × microbatches = "
            "3 × 4 = 12; nearest that works: 24",
        ),
        (
            ["workload.global_batch=1", "parallel.microbatches=4"],
            "workload.global_batch = 1: .* = 1 × 4 = 4; nearest that works: 4",
        ),
        (
            ["parallel.pipeline=5", "workload.layers=4"],
            "parallel.pipeline = 5: more stages than workload.layers = 4; allowed: 1 to 4",
        ),
        (
            ["cluster.preset=laptop", "cluster.profile=mine.json"],
            "cluster.profile = 'mine.json': cluster.preset is set too; give one of them",
        ),
    ],
)
def test_refused_in_one_line(overrides: list[str], message: str) -> None:
    found = refusal(overrides)
    for part in message.split(".*"):
        assert part in found
    assert found.startswith(message.split(".*")[0])


def write(folder: Path, text: str | bytes) -> str:
    path = folder / "experiment.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def test_a_file_with_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "[workload]\nmodel = 'mlp'\nlayers = 3\n[run]\npace = 2.5\n")
    experiment = load(path, ["workload.layers=5", "parallel.data=2"])
    assert experiment == parse(
        {
            "workload": {"model": "mlp", "layers": 5},
            "run": {"pace": 2.5},
            "parallel": {"data": 2},
        }
    )
    assert experiment.parallel.pipeline == 1  # the built-in experiment is not mixed in


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workload", "not TOML"),
        ("[workload]\nlayers = \n", "not TOML"),
        ("[workload]\nlayers = 1\nlayers = 2\n", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        ("[workload]\nlayers = " + "9" * 5000, "not TOML"),
        ("workload = 3", "workload = 3: "),
        ("[[run]]\nseed = 1", "run = "),
        ("[workload.layers]\nx = 1", "workload.layers = {'x': 1}: allowed: a whole number"),
        ("layers = 3", "layers: unknown key; did you mean workload.layers? known here: workload"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    found = refusal([], path)
    assert found.startswith(f"{path}: {message}" if message == "not TOML" else message)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert refusal([], str(tmp_path / "none.toml")).endswith("none.toml: No such file or directory")
    assert refusal([], str(tmp_path)) == f"{tmp_path}: Is a directory"


def test_an_override_of_something_that_is_no_table(tmp_path: Path) -> None:
    path = write(tmp_path, "workload = 3")
    assert refusal(["workload.layers=2"], path) == "workload = 3: expected a table [workload]"


def test_the_file_is_not_changed_by_overrides() -> None:
    first = load(None, ["workload.layers=7"])
    assert (first.workload.layers, load(None).workload.layers) == (7, 4)


def test_sizes_left_out() -> None:
    experiment = parse({"workload": {"hidden": 12, "dtype": "bf16"}})
    assert (experiment.workload.ffn, experiment.workload.dtype_bytes) == (48, 2)
    assert parse({"workload": {"ffn_hidden": 7}}).workload.ffn == 7


def test_keywords_of_all_tables() -> None:
    found = experiment(
        model="mlp", layers=6, pipeline=2, schedule="gpipe", preset="dgx-h100", pace=2.0
    )
    assert found == parse(
        {
            "workload": {"model": "mlp", "layers": 6},
            "parallel": {"pipeline": 2, "schedule": "gpipe"},
            "cluster": {"preset": "dgx-h100"},
            "run": {"pace": 2.0},
        }
    )
    assert experiment(
        parallel={"pipeline": 2}, schedule="gpipe", model="mlp", layers=6
    ).parallel == (found.parallel)
    assert experiment() == parse({})  # as an empty file, not the built-in experiment


def test_keywords_are_refused_as_keys_of_a_file_are() -> None:
    def refused(**keys: Any) -> str:
        with pytest.raises(ExperimentError) as error:
            experiment(**keys)
        return str(error.value)

    assert refused(zigzag=2).startswith("zigzag: unknown key; known: model, layers, hidden")
    assert refused(layers="4") == refusal(["workload.layers='4'"])
    assert refused(layers=2, pipeline=3) == refusal(["workload.layers=2", "parallel.pipeline=3"])
    assert refused(pp=2, parallel={"pipeline": 4}).startswith("parallel.pipeline: parallel.pp is ")
    for keys in (
        {"tensor": 2, "parallel": {"tensor": 1}},
        {"parallel": {"tensor": 1}, "tensor": 2},
    ):
        assert refused(**keys) == "parallel.tensor: given twice, alone and in parallel = {…}"
    assert refused(cluster="dgx-h100").startswith("cluster = 'dgx-h100': expected a dict")


def test_no_key_is_in_two_tables() -> None:
    keys = [
        key for section in SECTIONS for key in type(getattr(Experiment(), section)).model_fields
    ]
    assert sorted(keys) == sorted(TABLE_OF)
    assert not {*TABLE_OF} & {*SECTIONS}


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbf[workload]\nlayers = 3\n")
    assert load(path) == parse({"workload": {"layers": 3}})


def marked(folder: Path, name: str, text: str) -> Path:
    """Write a text file as some editors do: with a byte order mark."""
    path = folder / name
    path.write_text(text, encoding="utf-8-sig")
    return path


def test_nor_of_a_schedule_a_cluster_or_a_load_of_experts(tmp_path: Path) -> None:
    schedule = marked(tmp_path, "schedule.csv", "0F0,0B0\n1F0,1B0\n")
    read = experiment(schedule=f"csv:{schedule}", pipeline=2)
    assert lower(read).hash() == lower(experiment(schedule="1f1b", pipeline=2)).hash()
    preset = (PRESETS / "dgx-h100.toml").read_text(encoding="utf-8")
    cluster = marked(tmp_path, "cluster.toml", preset)
    of_file, of_preset = (
        experiment(**{key: value})
        for key, value in (("file", str(cluster)), ("preset", "dgx-h100"))
    )
    assert predict(of_file).timeline.iteration_time == predict(of_preset).timeline.iteration_time
    load_file = marked(tmp_path, "load.json", "[0.25, 0.25, 0.25, 0.25]")
    moe = experiment(model="moe-gpt", routing=f"file:{load_file}")
    assert loads_of(moe.workload)[0] == [0.25] * 4


@pytest.mark.parametrize(
    "override",
    ["workload.layers=3\nheads = 2", "workload.layers=3\nx", "cluster.file=a\nb", "run.seed=1\r2"],
)
def test_a_second_line_of_an_override_is_refused(override: str) -> None:
    assert refusal([override]).endswith(": more than one line; allowed: one --set for each key")
    assert load(None, ["workload.layers=3\n"]) == load(None, ["workload.layers=3"])
