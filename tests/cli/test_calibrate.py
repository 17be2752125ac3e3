"""calibrate as a user runs it: its profile is what predict uses."""

from __future__ import annotations

import json

from command_line import one_object


def test_calibrate_writes_a_profile_that_predict_uses(call, tmp_path):
    code, _, errors = call("calibrate", "tiny.toml", "-o", "here.json", "--plot", "here.svg")
    assert code == 0, errors
    assert (tmp_path / "here.svg").stat().st_size > 10_000
    profile = json.loads((tmp_path / "here.json").read_text())
    means = [timing["mean_s"] for timing in profile["passes"].values()]
    assert len(means) == 6  # forward, backward and step of two different stages
    assert min(means) > 0
    assert str(profile["machine"]["hostname"])

    def predict(*more):
        code, out, errors = call("predict", "tiny.toml", "--json", *more)
        assert code == 0, errors
        return one_object(out)

    calibrated = predict("--set", "cluster.profile=here.json")
    assert calibrated["cluster"] == f"profile of {profile['machine']['hostname']}"
    assert calibrated["notes"] == []
    profile |= {"issue_s": 0.0, "queue_s": 0.0}  # which do not grow with the passes
    (tmp_path / "here.json").write_text(json.dumps(profile))
    bare = predict("--set", "cluster.profile=here.json")
    for timing in profile["passes"].values():
        timing["tenths"] = [10 * seconds for seconds in timing["tenths"]]
    (tmp_path / "here.json").write_text(json.dumps(profile))
    slower = predict("--set", "cluster.profile=here.json")
    compute = [sum(row["compute_s"] for row in result["ranks"]) for result in (bare, slower)]
    assert compute[1] > 5 * compute[0]
    other = predict("--set", "cluster.profile=here.json", "--set", "workload.hidden=16")
    assert any(note.startswith("none of the 6 passes") for note in other["notes"])
