"""Weights are doubly stochastic, mix as fast as their eigenvalues say, and files are checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simulator.experiment.section import ExperimentError
from simulator.strategies.gradients.topologies import NAMES, topology_named

SIZES = [2, 3, 4, 6, 8, 12, 16]


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_rows_and_columns_add_up_to_one_and_all_are_reached(name: str, count: int) -> None:
    if name == "torus" and count < 4:
        pytest.skip("no grid")
    topology = topology_named(name, count)
    product = np.eye(count)
    for step in range(len(topology.taken)):
        matrix = topology.matrix(step)
        assert (matrix >= 0).all()
        assert np.allclose(matrix.sum(axis=0), 1, atol=1e-15)
        assert np.allclose(matrix.sum(axis=1), 1, atol=1e-15)
        for replica in range(count):
            takers = np.flatnonzero(matrix[:, replica]).tolist()
            assert topology.takers(replica, step) == [r for r in takers if r != replica]
            row = topology.row(replica, step + len(topology.taken))
            assert row == {j: matrix[replica, j] for j in row}
        product = matrix @ product
    assert (np.linalg.matrix_power(product, count) > 0).all()


@pytest.mark.parametrize("count", [3, 5, 8])
def test_eigenvalues_of_a_ring(count: int) -> None:
    """1/3 + 2/3·cos(2πk/n) (Lian et al. 2017)."""
    found = np.sort(np.linalg.eigvalsh(topology_named("ring", count).matrix()))
    expected = np.sort(1 / 3 + 2 / 3 * np.cos(2 * np.pi * np.arange(count) / count))
    assert found == pytest.approx(expected, abs=1e-12)


def test_eigenvalues_of_a_torus() -> None:
    """1/5 + 2/5·(cos 2πa/4 + cos 2πb/4) on a grid of 4 × 4."""
    found = np.sort(np.linalg.eigvalsh(topology_named("torus", 16).matrix()))
    cosines = np.cos(2 * np.pi * np.arange(4) / 4)
    expected = np.sort((0.2 + 0.4 * (cosines[:, None] + cosines)).ravel())
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize("count", [4, 16])
def test_replicas_get_closer_by_the_second_singular_value(name: str, count: int) -> None:
    matrix = topology_named(name, count).matrix()
    second = np.linalg.svd(matrix, compute_uv=False)[1]
    x = np.random.default_rng(0).normal(size=(count, 50))
    for _ in range(5):
        mixed = matrix @ x
        apart, before = (np.linalg.norm(v - v.mean(axis=0)) for v in (mixed, x))
        assert apart <= second * before + 1e-12
        assert mixed.mean(axis=0) == pytest.approx(x.mean(axis=0), abs=1e-12)
        x = mixed


@pytest.mark.parametrize("count", [2, 4, 8, 32])
def test_one_peer_a_step_is_the_exact_mean_after_log_2_of_n_steps(count: int) -> None:
    topology = topology_named("one-peer-exponential", count)
    product = np.eye(count)
    for step in range(int(np.log2(count))):
        assert (product != 1 / count).any()
        product = topology.matrix(step) @ product
    assert (product == 1 / count).all(), "halves are exact in binary"


def test_complete_is_the_mean() -> None:
    assert topology_named("complete", 8).matrix() == pytest.approx(np.full((8, 8), 1 / 8))


def written(folder: Path, text: str) -> str:
    path = folder / "weights.csv"
    path.write_text(text)
    return f"csv:{path}"


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    rows = "0,1,0\n0,0.5,0.5\n1.0,-0.0,0\n"
    with pytest.raises(ExperimentError, match="column 1 adds up to 1"):
        topology_named(written(tmp_path, rows), 3)
    topology = topology_named(written(tmp_path, "0.5,0.5,0\n0,0.5,0.5\n0.5,0,0.5\n"), 3)
    assert topology.row(1, 7) == {1: 0.5, 2: 0.5}
    assert topology.takers(0, 0) == [2]
    others = topology_named(written(tmp_path, "0,0.5,0.5\n0.5,0,0.5\n0.5,0.5,0\n"), 3)
    assert others.row(0, 0) == {0: 0.0, 1: 0.5, 2: 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5,0.5\n0.5,0.4\n", "row 1 adds up to 0.9; rows and columns must add up to 1"),
        ("1,0\n0,1\n", "is not connected: nothing of row 1 gets to row 0"),
        ("0,1\n1,0\n", "replicas hand parameters round and never get closer"),
        ("", "has 0 × 1 weights; this plan needs 2 × 2"),
        ("1.5,-0.5\n-0.5,1.5\n", "row 0 has a weight below 0, or none"),
        ("nan,1\n1,0\n", "row 0 has a weight below 0, or none"),
        ("1\n", "has 1 × 1 weights; this plan needs 2 × 2"),
        ("a,b\nc,d\n", "could not convert string"),
    ],
)
def test_weights_that_do_not_mix_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        topology_named(written(tmp_path, text), 2)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_push_sum_needs_columns_alone(tmp_path: Path) -> None:
    rows = "0,0.5,0\n0,0.5,0.5\n1.0,0,0.5\n"
    with pytest.raises(
        ExperimentError, match=r"row 0 adds .* columns alone with parallel.push_sum"
    ):
        topology_named(written(tmp_path, rows), 3)
    topology = topology_named(written(tmp_path, rows), 3, push_sum=True)
    power = np.linalg.matrix_power(topology.matrix(), 100)
    assert power == pytest.approx(np.outer(power[:, 0], np.ones(3)), abs=1e-12)
    for text, message in (
        ("0.5,0.5\n0.5,0.4\n", "column 1 adds up to 0.9; columns must add up to 1"),
        ("1,0.5\n0,0.5\n", "is not connected: nothing of row 0 gets to row 1"),
        ("0.5,0\n0.5,1\n", "is not connected: nothing of row 1 gets to row 0"),
        ("0,1\n1,0\n", "replicas hand parameters round and never get closer"),
    ):
        with pytest.raises(ExperimentError) as error:
            topology_named(written(tmp_path, text), 2, push_sum=True)
        assert str(error.value).endswith(message) or message in str(error.value)


def test_names_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"allowed: ring, torus, .*csv:PATH"):
        topology_named("star", 4)
    with pytest.raises(ExperimentError, match="7 replicas form no grid"):
        topology_named("torus", 7)
    with pytest.raises(ExperimentError, match=r"none\.csv.: No such file|none\.csv not found"):
        topology_named(f"csv:{tmp_path}/none.csv", 4)
