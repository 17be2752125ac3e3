"""Predictions of models and GPUs that were not validated say so, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator import load, predict
from simulator.analysis.validated import VALIDATED, caveats
from simulator.cluster.catalogue import clusters
from simulator.cluster.profile import Profile
from simulator.cluster.resolve import from_profile, resolve
from simulator.experiment.model_family import FAMILIES

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "validation.md").read_text("utf-8")


def notes(*overrides: str) -> list[str]:
    experiment = load(None, [*overrides, "parallel.pipeline=1"])
    return caveats(experiment, resolve(experiment))


@pytest.mark.parametrize("preset", ["dgx2", "dgx-v100", "dgx-a100-40gb", "aws-p4de", "aws-p5"])
def test_the_gpus_of_published_steps_have_no_note_for_gpt(preset: str) -> None:
    assert notes(f"cluster.preset={preset}") == []


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        (("dgx-h200", "gpt"), "predictions of gpt on H200-SXM-141GB are not validated"),
        (("a100-pcie", "gpt"), "predictions of gpt on A100-PCIe-80GB are not validated"),
        (("dgx-a100-80gb", "bert"), "predictions of bert on A100-SXM4-80GB are not validated"),
        (
            ("dgx-h100", "moe-gpt"),
            "predictions of moe-gpt on H100-SXM5-80GB are not validated; a published step of a "
            "model with experts took 1.7 times the predicted time",
        ),
        (
            ("dgx-v100", "vgg16"),
            "predictions of vgg16 on V100-SXM2-32GB are not validated; published steps of "
            "ResNet-50 took 0.7 to 0.8 times the predicted time",
        ),
    ],
)
def test_what_was_not_validated_is_said(overrides: tuple[str, str], note: str) -> None:
    preset, model = overrides
    plan = [f"cluster.preset={preset}", f"workload.model={model}"]
    assert notes(*plan) == [note]
    experiment = load(None, [*plan, "parallel.pipeline=1"])
    assert predict(experiment).notes.count(note) == 1


def test_stated_and_measured_times_and_cpus_need_no_note() -> None:
    assert notes("workload.model=unit", "cluster.preset=dgx-h200") == []
    assert notes("workload.model=bert") == []
    experiment = load(None, ["workload.model=bert", "run.device=cuda"])
    assert caveats(experiment, from_profile(Profile({"cores": 2}, device="cuda"))) == []


def test_all_gpus_of_uneven_nodes_are_named(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'like = "dgx-h100"\n[[nodes]]\ndevices = { h100 = 2, old = 2 }\n'
        '[[nodes]]\ndevices = { older = 4 }\n[devices.old]\nlike = "v100"\nmemory_gib = 16\n'
        '[devices.older]\nlike = "a100"\nmemory_gib = 8\n'
    )
    (note,) = notes(f"cluster.file={tmp_path / 'mine.toml'}")
    assert note == "predictions of gpt on old and older are not validated"


def test_the_table_has_names_that_exist_and_is_in_the_documents() -> None:
    devices = {device.name for preset in clusters().values() for device in preset.kinds.values()}
    for model, device in VALIDATED:
        assert model in FAMILIES
        assert device in devices
        assert f"| `{model}` | {device} |" in DOCS
    assert DOCS.count("| `gpt` | ") == len(VALIDATED)
