"""Profiles as files: what is written is read again, what is damaged is refused."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import Experiment, ExperimentError, load
from simulator.cluster.profile import Profile
from simulator.cluster.profile_file import default_path, load_profile, save_profile
from simulator.cluster.timing import Timing
from small_profile import PROFILE, timed


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "profile.json"
    save_profile(PROFILE, path)
    assert load_profile(path) == PROFILE
    assert list(path.parent.iterdir()) == [path]  # nothing partial is left


times = st.floats(0, 1e6)


points = st.dictionaries(st.integers(0, 10**12), times, min_size=1, max_size=6).map(
    lambda found: sorted(found.items())
)


@given(
    st.builds(
        Profile,
        machine=st.fixed_dictionaries({"cores": st.integers(1, 99)}),
        passes=st.dictionaries(
            st.sampled_from("abc"), st.builds(Timing.of, st.lists(times, min_size=1))
        ),
        messages=points.map(timed) | st.just([]),
        collectives=st.dictionaries(
            st.sampled_from(["ALL_REDUCE", "ALL_GATHER"]),
            st.dictionaries(st.integers(2, 9), points.map(timed), max_size=3),
        ),
        issue_s=times,
        wake_s=times,
        wake_collective_s=st.none() | times,
        transfer_cores=times,
        transfer_loss=st.none() | st.floats(0, 0.99),
    )
)
def test_any_profile_round_trips(tmp_path_factory, profile: Profile) -> None:
    path = tmp_path_factory.getbasetemp() / "profile.json"
    save_profile(profile, path)
    assert load_profile(path) == profile


def damaged(*place: str, **change: Any) -> str:
    document = saved()
    inner = document
    for key in place:
        inner = inner[key]
    for key, wrong in change.items():
        if wrong is KeyError:
            del inner[key]
        else:
            inner[key] = wrong
    return json.dumps(document)


SURE = asdict(Timing.certain(1.0))


def saved() -> dict[str, Any]:
    return {
        "format": "twinline-profile-5",
        "machine": {"cores": 2},
        "device": "cpu",
        "passes": {"x": dict(SURE)},
        "messages": [[1, asdict(Timing.certain(0.5))], [2, asdict(Timing.certain(0.75))]],
        "collectives": {"ALL_REDUCE": {"2": [[1, asdict(Timing.certain(0.5))]]}},
        "issue_s": 0.0,
        "wake_s": 0.0,
        "transfer_cores": 0.0,
        "peak_flops": {"fp32": 1.0},
    }


def test_what_the_damaged_ones_are_made_from_is_sound(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps(saved()))
    assert load_profile(tmp_path / "p.json").messages == timed([(1, 0.5), (2, 0.75)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "truncated or not JSON"),
        (json.dumps(saved())[:-9], "truncated or not JSON"),
        ("[" * 100_000, "truncated or not JSON"),
        (b"\xff\xfe\x00", "truncated or not JSON"),
        ("[]", "not a twinline-profile-5 file"),
        ("{}", "not a twinline-profile-5 file"),
        (damaged(format="twinline-profile-0"), "not a twinline-profile-5 file"),
        (damaged(machine=KeyError), "damaged: "),
        (damaged(machine=[]), "damaged: "),
        (damaged("machine", cores=KeyError), "damaged: KeyError: 'cores'"),
        (damaged("machine", cores=None), "damaged: ValueError: None is not a number"),
        (damaged("machine", cores=0), "damaged: ValueError: no cores"),
        (damaged(surprise=1), "damaged: TypeError: .*surprise"),
        (damaged(passes=KeyError), "damaged: KeyError: 'passes'"),
        (damaged(passes=[]), "damaged: "),
        (damaged(passes={"x": {}}), "damaged: "),
        (damaged("passes", "x", mean_s="fast"), "damaged: ValueError: 'fast' is not a number"),
        (damaged("passes", "x", mean_s=-1.0), "damaged: ValueError: -1.0 is not a number"),
        (damaged(messages=[[1]]), "damaged: "),
        (damaged(messages=[[1, "x"]]), "damaged: "),
        (damaged(messages=[[1, 0.5]]), "damaged: "),
        (damaged(messages=[[1, SURE | {"p10_s": float("nan")}]]), "damaged: ValueError: nan is"),
        (damaged(messages=[[1, SURE | {"tenths": [1.0] * 9}]]), "damaged: ValueError: 9 tenths"),
        (damaged(messages=[[1, SURE | {"tenths": ["x"] * 10}]]), "damaged: ValueError: 'x' is"),
        (damaged(messages=[[float("inf"), SURE]]), "damaged: OverflowError: "),
        (damaged(messages=[[2, SURE], [1, SURE]]), "damaged: ValueError: sizes do not ascend"),
        (damaged(messages=[[2, SURE], [2, SURE]]), "damaged: ValueError: sizes do not ascend"),
        (damaged(collectives={"ALL_REDUCE": {"two": []}}), "damaged: "),
        (damaged(collectives={"ALL_REDUCE": {"2": []}}), "damaged: ValueError: .*without points"),
        (damaged(issue_s="x"), "damaged: ValueError: 'x' is not a number"),
        (damaged(wake_s=None), "damaged: ValueError: None is not a number"),
        (damaged(transfer_cores=-0.5), "damaged: ValueError: -0.5 is not a number"),
        (damaged(transfer_loss=-0.5), "damaged: ValueError: -0.5 is not a number"),
        (damaged(transfer_loss=1.0), "damaged: ValueError: .*nothing is left of passes"),
        (damaged(busy_ranks=0), "damaged: ValueError: no cores"),
        (damaged(messages=[[1, SURE | {"busy_s": -1.0}]]), "damaged: ValueError: -1.0 is not"),
        (damaged(messages=[[1, SURE | {"busy_s": 0.5}]]), "damaged: ValueError: .*faster beside"),
        (damaged(peak_flops={"fp32": 0}), "damaged: ValueError: .*no FLOP/s"),
        (damaged(peak_flops=[1]), "damaged: "),
    ],
)
def test_refused_in_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    start = re.escape(f"cluster.profile = {str(path)!r}: ")
    with pytest.raises(ExperimentError, match=start + message) as error:
        load_profile(path)
    assert "\n" not in str(error.value)


def test_no_such_profile(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"none\.json': No such file or directory$"):
        load_profile(tmp_path / "none.json")
    with pytest.raises(ExperimentError, match=r"Is a directory$"):
        load_profile(tmp_path)


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_path(Experiment()) == tmp_path / "twinline" / "profile.json"
    shared = load(None, ["run.device=cuda", "cluster.ranks_per_device=2"])
    assert default_path(shared) == tmp_path / "twinline" / "profile-cuda-2.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path(Experiment()) == tmp_path / ".cache" / "twinline" / "profile.json"
