"""Coders make tensors of the sizes that codecs say, and lose nothing that they do not keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from runtime.executor.codecs.bits import packed, unpacked
from runtime.executor.codecs.block_int8 import BlockInt8Coder
from runtime.executor.codecs.coder import ErrorFeedback, Place
from runtime.executor.codecs.power_sgd import PowerSgdCoder, orthogonalize
from runtime.executor.codecs.table import CODERS
from simulator.program.codecs import power_sgd
from simulator.program.codecs.block_int8 import BlockInt8
from simulator.program.codecs.codec import Encoding, Values
from simulator.program.codecs.table import CODECS

KEYS: dict[str, dict[str, Any]] = {
    "top-k": {"density": 0.3},
    "qsgd": {"levels": 7},
    "power-sgd": {"compression_rank": 1},
}
SHAPES = ((4,), (6, 7), (2, 2))
RANKS, COUNT = 3, 50


def coders(name: str, like: Tensor, fed: bool = True, **keys: Any) -> list[ErrorFeedback]:
    """One coder for each rank."""
    codec = CODECS[name](**KEYS.get(name, {}) | keys)
    encoding = Encoding(codec, like.dtype.itemsize, fed, shapes=SHAPES)
    made = CODERS[type(codec)]
    return [ErrorFeedback(made(encoding, like, Place(rank, 7)), like) for rank in range(RANKS)]


def exchange(of: list[ErrorFeedback], values: list[Tensor]) -> list[Tensor]:
    """What all ranks have after a step, done as collectives do it; `values` are changed."""
    codec, come = of[0].coder.encoding.codec, list[Tensor]()
    described = Values(values[0].numel(), values[0].dtype.itemsize, SHAPES)
    for number, tensors in enumerate(codec.rounds(described)):
        sent = [coder.encode(mine, number, come) for coder, mine in zip(of, values, strict=True)]
        for place, tensor in enumerate(tensors):
            theirs = [one[place] for one in sent]
            assert {one.nbytes for one in theirs} == {tensor.nbytes}
            come.append(sum(theirs[1:], theirs[0]) if tensor.is_summed else torch.cat(theirs))
    return [coder.total(mine, come, RANKS) for coder, mine in zip(of, values, strict=True)]


@pytest.mark.parametrize("name", CODECS)
def test_what_was_sent_and_the_errors_are_what_was_given(name: str) -> None:
    """The sum over steps, to rounding; of the largest values of integers exactly."""
    torch.manual_seed(1)
    of = coders(name, torch.zeros(COUNT, dtype=torch.float64))
    given, sent = torch.zeros(2, COUNT, dtype=torch.float64)
    for _ in range(6):
        gradients = [torch.randint(-99, 99, (COUNT,)).double() for _ in range(RANKS)]
        given += sum(gradients)
        totals = exchange(of, gradients)
        assert all(total.equal(totals[0]) for total in totals)
        sent += totals[0]
    errors = sum(coder.error for coder in of if coder.error is not None)
    tolerance = {"top-k": 0.0, "power-sgd": 1e-10}.get(name, 2e-4)
    torch.testing.assert_close(sent + errors, given, rtol=0, atol=tolerance)
    assert not sent.equal(given) or name in ("fp16", "bf16")


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("fed", [False, True])
def test_kept_bytes_are_those_of_the_codec(name: str, fed: bool) -> None:
    like = torch.zeros(COUNT)
    coder = coders(name, like, fed)[0]
    assert coder.nbytes == coder.coder.encoding.kept_bytes(Values(COUNT, 4, SHAPES))
    gradients = torch.randn(RANKS, COUNT)
    exchange(coders(name, like, fed), list(gradients))


@pytest.mark.parametrize("name", CODECS)
def test_zeros_stay_zeros(name: str) -> None:
    of = coders(name, torch.zeros(COUNT))
    for total in exchange(of, [torch.zeros(COUNT) for _ in range(RANKS)]):
        assert total.equal(torch.zeros(COUNT))


def test_all_values_are_the_sum() -> None:
    of = coders("top-k", torch.zeros(COUNT), density=1.0)
    given = [torch.randn(COUNT) for _ in range(RANKS)]
    totals = exchange(of, [one.clone() for one in given])
    torch.testing.assert_close(totals[0], sum(given))
    assert all(coder.error is not None and not coder.error.any() for coder in of)


def test_integers_are_within_half_a_step() -> None:
    given = [torch.randn(COUNT) * scale for scale in (1e-9, 1.0, 1e6)]
    coder = coders("int8", torch.zeros(COUNT), fed=False)[0].coder
    for one in given:
        low, high = one.min().clamp(max=0), one.max().clamp(min=0)
        lost = (coder.total(coder.encode(one, 0, ()), 1) - one).abs().max()
        assert lost <= (high - low) / 255 * 1.001


@pytest.mark.parametrize("count", [1, 2048, 5000])
def test_integers_of_a_block_are_within_half_a_step_of_its_largest(count: int) -> None:
    """Blocks of magnitudes far apart; what is sent is as large as the codec says."""
    torch.manual_seed(2)
    codec, scale = BlockInt8(), 10.0 ** torch.arange(-(-count // 2048))
    given = torch.randn(count) * scale.repeat_interleave(2048)[:count]
    coder = BlockInt8Coder(Encoding(codec, 4), given, Place(0, 7))
    before, sent = given.clone(), coder.encode(given, 0, ())
    assert given.equal(before)
    assert [one.nbytes for one in sent] == [one.nbytes for one in codec.rounds(Values(count, 4))[0]]
    decoded = coder.total(sent, 1)
    for mine, theirs in zip(given.split(2048), decoded.split(2048), strict=True):
        largest = mine.abs().max()
        assert (mine - theirs).abs().max() <= largest / 254 * 1.0001
        assert theirs.abs().max() == pytest.approx(float(largest))
    both = [torch.cat([one, one]) for one in sent]
    assert all(part.equal(decoded) for part in coder.parts(both, 2))
    torch.testing.assert_close(coder.total(both, 2), 2 * decoded)
    assert coder.total(coder.encode(torch.zeros(count), 0, ()), 1).equal(torch.zeros(count))


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_parts_whose_values_a_cast_can_hold_come_out_exactly(name: str) -> None:
    narrow = {"fp16": torch.float16, "bf16": torch.bfloat16}[name]
    given = torch.randn(RANKS, COUNT).to(narrow).double()
    coder = coders(name, given[0], fed=False)[0].coder
    come = [torch.cat(sent) for sent in zip(*(coder.encode(g, 0, ()) for g in given), strict=True)]
    for part, expected in zip(coder.parts(come, RANKS), given, strict=True):
        assert part.equal(expected)


@pytest.mark.parametrize("levels", [1, 4, 100])
def test_random_levels_are_right_on_average(levels: int) -> None:
    """E Q(v) = v, and E‖Q(v) - v‖² ≤ min(d/s², √d/s) ‖v‖² of a group."""
    torch.manual_seed(3)
    given, draws = torch.randn(300, dtype=torch.float64), 400
    coder = coders("qsgd", given, fed=False, levels=levels)[0].coder
    seen = torch.stack([coder.total(coder.encode(given, 0, ()), 1) for _ in range(draws)])
    square, count = float(given.square().sum()), 512
    bound = min(count / levels**2, count**0.5 / levels) * square
    lost = (seen - given).square().sum(dim=1)
    assert float(lost.mean()) <= bound
    deviation = float(lost.mean() / draws) ** 0.5  # of the norm of the mean
    assert float((seen.mean(dim=0) - given).norm()) < 1.2 * deviation
    again = coders("qsgd", given, fed=False, levels=levels)[0].coder
    assert again.total(again.encode(given, 0, ()), 1).equal(seen[0])
    other = coders("qsgd", given, fed=False, levels=levels)[1].coder
    assert not other.total(other.encode(given, 0, ()), 1).equal(seen[0])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_small_integers_come_out_as_they_went_in(bits: int) -> None:
    small = torch.randint(0, 1 << bits, (64,), dtype=torch.uint8)
    several = packed(small, bits)
    assert several.nbytes == 8 * bits
    assert unpacked(several, bits).equal(small)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_sum_of_low_rank_comes_out_exactly(rank: int) -> None:
    """Matrices with a common column space, whose sum has the rank of the factors."""
    torch.manual_seed(5)
    size, shape = (rank, 24), (30, 24)
    columns = torch.randn(30, rank, dtype=torch.float64)
    given = [columns @ torch.randn(size, dtype=torch.float64) for _ in range(RANKS)]
    exact = exchanged([one.flatten() for one in given], shape, rank)
    torch.testing.assert_close(exact.view(shape), sum(given), rtol=1e-10, atol=1e-12)


def test_factors_of_full_rank_are_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power_sgd, "LEAST_RATE", 0)
    given = [torch.randn(6 * 9, dtype=torch.float64) for _ in range(RANKS)]
    exact = exchanged([one.clone() for one in given], (6, 9), 6)
    torch.testing.assert_close(exact, sum(given), rtol=1e-10, atol=1e-12)


def exchanged(given: list[Tensor], shape: tuple[int, int], rank: int) -> Tensor:
    """The sum of matrices by factors of a rank, when they are exchanged for the first time."""
    encoding = Encoding(power_sgd.PowerSgd(rank), 8, True, shapes=(shape,))
    of = [
        ErrorFeedback(PowerSgdCoder(encoding, given[0], Place(number, 7)), given[0])
        for number in range(RANKS)
    ]
    sums = []
    for number in (0, 1):
        sent = [coder.encode(one, number, sums) for coder, one in zip(of, given, strict=True)]
        sums += [sum(theirs) for theirs in zip(*sent, strict=True)]
    return of[0].total(given[0], sums, RANKS)


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_columns_become_orthogonal_and_span_what_they_did(columns: int) -> None:
    matrix = torch.randn(20, columns, dtype=torch.float64)
    made = matrix.clone()
    orthogonalize(made)
    torch.testing.assert_close(made.t() @ made, torch.eye(columns, dtype=torch.float64))
    torch.testing.assert_close(made @ (made.t() @ matrix), matrix)
