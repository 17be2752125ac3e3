"""A job is the same behind the pipe to its ranks."""

from __future__ import annotations

import json

import pytest

from runtime.launch.job import Job


@pytest.mark.parametrize(
    "keys",
    [{}, {"measure": False, "calibrate": True}, {"fault": (1, "1F0", "hang")}],
    ids=["measured", "calibrated", "faulty"],
)
def test_a_job_survives_the_pipe_between_processes(experiment, keys):
    job = Job(experiment(pipeline=2, schedule="gpipe"), **keys)
    again = Job.from_json(json.loads(json.dumps(job.to_json())))
    assert again == job
