"""Predicted times of messages and all-reduces over shaped networks, beside published ones.

    python tests/benchmarks/networks.py

Prints the table of ``docs/validation.md``. Published are times of AWS p3.2xlarge nodes, one V100
each, of which Linux (tc netem) delays what arrives, and limits its rate: BinhangYuan's
tc_cluster_setting on GitHub, results/p2p.md and results/allreduce.md (PyTorch 1.9 with CUDA 11.1),
and results/Simulate_DP.md for a second series of all-reduces.
"""

from __future__ import annotations

from typing import NamedTuple

from simulator import parse
from simulator.cluster.resolve import resolve
from simulator.program.operations import Op

NODES = 4

MESSAGES = {
    # delay in ms, Gbit/s: seconds of gloo with 64 and 128 MiB, of NCCL with 64 and 128 MiB
    (0, None): (0.107, 0.216, 0.055, 0.112),
    (1, None): (0.110, 0.222, 0.059, 0.115),
    (5, None): (0.274, 0.512, 0.080, 0.134),
    (10, None): (0.532, 0.972, 0.113, 0.171),
    (0, 5): (0.110, 0.218, 0.109, 0.217),
    (0, 2): (0.271, 0.542, 0.270, 0.541),
    (0, 1): (0.541, 1.082, 0.541, 1.082),
    (1, 5): (0.115, 0.224, 0.110, 0.220),
    (5, 2): (0.311, 0.581, 0.275, 0.542),
    (10, 1): (0.620, 1.160, 0.543, 1.083),
}
ALL_REDUCES = {
    # the same with 128 and 256 MiB
    (0, None): (0.327, 0.657, 0.175, 0.363),
    (1, 5): (0.485, 0.959, 0.329, 0.655),
    (5, 2): (1.517, 2.989, 0.835, 1.650),
    (10, 1): (2.993, 5.909, 1.669, 3.298),
}
SECOND_SERIES = {
    # NCCL alone, with 256 and 1024 MiB
    (0, None): (0.37, 1.42),
    (1, 5): (0.71, 3.15),
    (5, 2): (1.77, 7.23),
    (10, 1): (4.06, 16.87),
    (50, 1): (7.57, 29.83),
}
"""Published seconds, by network: delay in ms and rate in Gbit/s (None: as it is)."""


class Row(NamedTuple):
    """A published time and the predicted one.

    Attributes:
        what: the series that it is of.
        backend: gloo or nccl.
        delay_ms, gbit: the network; None: as it is.
        mib: the payload.
        published, predicted: seconds.
    """

    what: str
    backend: str
    delay_ms: float
    gbit: float | None
    mib: int
    published: float
    predicted: float

    @property
    def error(self) -> float:
        """Predicted − published, relative to published."""
        return self.predicted / self.published - 1


def seconds(op: Op, backend: str, latency_ms: float, gbit: float | None, mib: int) -> float:
    """Return the predicted time of a message, or of a collective of four nodes."""
    cluster = {"preset": "aws-p3-2xlarge", "node_latency_us": latency_ms * 1e3}
    if gbit is not None:
        cluster["node_bandwidth_gbit"] = gbit
    experiment = parse(
        {
            "workload": {"model": "mlp", "layers": 4},
            "parallel": {"data": NODES, "pipeline": 1},
            "cluster": cluster,
            "run": {"backend": backend, "device": "cuda"},
        }
    )
    costs = resolve(experiment).communication
    if op is Op.SEND:
        return costs.message_seconds(0, 1, mib * 2**20)
    return costs.cost(op, tuple(range(NODES)), mib * 2**20).seconds


def rows() -> list[Row]:
    """Return all published times with predictions.

    In the series of messages only the receiver's side was delayed: the delay is that of a round
    trip, so half of it is the latency of each way.
    """
    found: list[Row] = []
    for what, op, series, sizes, share in (
        ("message", Op.SEND, MESSAGES, (64, 128), 0.5),
        ("all-reduce", Op.ALL_REDUCE, ALL_REDUCES, (128, 256), 1.0),
        ("all-reduce, second series", Op.ALL_REDUCE, SECOND_SERIES, (256, 1024), 1.0),
    ):
        for (delay, gbit), published in series.items():
            backends = ("gloo", "nccl")[-len(published) // 2 :]
            names = [(backend, mib) for backend in backends for mib in sizes]
            for (backend, mib), time in zip(names, published, strict=True):
                predicted = seconds(op, backend, delay * share, gbit, mib)
                found.append(Row(what, backend, delay, gbit, mib, time, predicted))
    return found


def main() -> None:
    print("| | backend | delay, ms | Gbit/s | MiB | published, s | predicted, s | error |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows():
        print(
            f"| {row.what} | {row.backend} | {row.delay_ms} | {row.gbit or '—'} | {row.mib} | "
            f"{row.published:.3f} | {row.predicted:.3f} | {row.error:+.1%} |"
        )


if __name__ == "__main__":
    main()
