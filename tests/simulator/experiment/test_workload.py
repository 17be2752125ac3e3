"""What follows from the keys of a workload."""

from __future__ import annotations

import pytest

from simulator.experiment.workload import Workload


@pytest.mark.parametrize(
    ("kv_heads", "tensor", "ranks"),
    [(None, 8, 1), (8, 8, 1), (8, 2, 1), (2, 8, 4), (1, 4, 4)],
)
def test_ranks_share_heads_of_keys_where_these_are_fewer(kv_heads, tensor, ranks) -> None:
    workload = Workload(model="llama", heads=8, kv_heads=kv_heads)
    assert workload.kv_ranks(tensor) == ranks


@pytest.mark.parametrize(("window", "has"), [(None, False), (63, True), (64, False), (65, False)])
def test_a_window_hides_something_where_it_is_shorter_than_a_sequence(window, has) -> None:
    assert Workload(model="llama", sequence=64, window=window).has_window == has


def test_a_size_gives_its_keys_without_setting_them() -> None:
    workload = Workload(size="llama-3-8b", layers=2)
    assert (workload.model, workload.layers, workload.kv_heads) == ("llama", 2, 8)
    assert workload.model_fields_set == {"size", "layers"}
    assert workload.model_copy(update={"size": "gpt-2"}).hidden == 768


def test_bytes_of_the_optimizer_count_master_weights() -> None:
    """Adam: two states, and in 16 bits an fp32 weight."""
    found = [Workload(dtype=dtype, optimizer="adam").optimizer_bytes for dtype in ("fp64", "bf16")]
    assert found == [16, 12]
