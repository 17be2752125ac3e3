"""A stack of two-layer perceptrons with residuals, trained to predict the next window.

Each block is x + fc2(GELU(fc1(x))); the loss is the mean squared error. With ``workload.skips``
block i from the end takes the sum of its input and of the output of block i from the beginning
(Ronneberger et al. 2015, "U-Net", where the two are put side by side).
`runtime.models.mlp` is the module that computes it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from simulator.experiment.experiment import Experiment
from simulator.program.operations import Op
from simulator.workloads.layer import Exchange, Layer, Matmul, exchange, linear, linear_shapes
from simulator.workloads.transformer import EVERYWHERE


def layers(experiment: Experiment) -> list[Layer]:
    """Return the blocks, then the loss. The first block's input needs no gradient."""
    w = experiment.workload
    tokens = experiment.microbatch_size * w.sequence
    h, ffn, width = w.hidden, w.ffn, w.dtype_bytes
    hidden_bytes, ffn_bytes = tokens * h * width, tokens * ffn * width
    shape = f"b{experiment.microbatch_size} s{w.sequence} h{h} f{ffn}"

    def block(first: bool) -> Layer:
        return Layer(
            kind=f"perceptron{'-first' if first else ''} {shape}",
            shapes=(*linear_shapes(h, ffn), *linear_shapes(ffn, h)),
            matmuls=(
                Matmul(tokens, ffn, h, into_input=not first),
                linear(tokens, ffn, h),
            ),
            moved_bytes=3 * hidden_bytes + 2 * ffn_bytes,  # residual, GELU
            kernels=2,
            # The first block's input is a batch, held by autograd, not by a boundary.
            saved_bytes=2 * ffn_bytes + (hidden_bytes if first else 0),
            deferred_bytes=hidden_bytes + 2 * ffn_bytes + (hidden_bytes if first else 0),
            defers_input=True,
            output_shape=(experiment.microbatch_size, w.sequence, h),
            output_bytes=hidden_bytes,
        )

    def joined(plain: Layer, back: int) -> Layer:
        """Return a block whose input is the sum of two tensors, which is kept in their place."""
        return replace(
            plain,
            kind=f"perceptron-skip {shape}",
            moved_bytes=plain.moved_bytes + 3 * hidden_bytes,
            kernels=plain.kernels + 1,
            saved_bytes=plain.saved_bytes + hidden_bytes,
            deferred_bytes=plain.deferred_bytes + hidden_bytes,
            defers_input=False,
            reads=(0, back),
            keeps=(False, False),
        )

    loss = squared_error(f"squared-error {shape}", tokens * h, width)
    blocks = [block(True)] + [block(False)] * (w.layers - 1)
    backs = skips(w.layers) if w.skips else {}
    return [*(joined(b, backs[i]) if i in backs else b for i, b in enumerate(blocks)), loss]


def skips(blocks: int) -> dict[int, int]:
    """Return the blocks that a skip connection ends in, and how many boundaries back it begins.

    The one that begins behind block i ends before block blocks - 1 - i.
    """
    ends = {blocks - 1 - begin: begin for begin in range(blocks // 2)}
    return {end: end - begin - 1 for end, begin in sorted(ends.items()) if end - begin > 1}


def squared_error(kind: str, values: int, width: int) -> Layer:
    """Return the mean squared error of `values` numbers of `width` bytes.

    Autograd keeps them and the target. 16-bit ones are copied to fp32 before, and the copies
    are kept.
    """
    copied = width < 4
    return Layer(
        kind=kind,
        moved_bytes=5 * values * 4 if copied else 3 * values * width,
        kernels=4 if copied else 2,
        saved_bytes=2 * values * 4 if copied else values * width,
        starts_block=False,
        keeps=(not copied,),
    )


def split_layers(experiment: Experiment) -> list[Layer]:
    """Return the same, split over ranks in one of three ways (``parallel.tensor_style``).

    "column": each rank has columns of both weights, and all-gathers put the outputs together.
    "row": each has rows, and takes its share of the inputs; all-reduces add up the parts of
    the outputs. "megatron": columns of the first and rows of the second, which needs one
    all-reduce in place of two (Shoeybi et al. 2019, section 3).
    """
    return {"column": _columns, "row": _rows, "megatron": _megatron}[
        experiment.parallel.tensor_style
    ](_Sizes(experiment))


class _Sizes:
    """Sizes of one rank's part of a block, and the layers made from them."""

    def __init__(self, experiment: Experiment):
        w, self.ranks = experiment.workload, experiment.parallel.tensor
        self.blocks, self.hidden = w.layers, w.hidden
        self.width, self.wide = w.dtype_bytes, w.wide_bytes
        self.batch, self.sequence, self.ffn = experiment.microbatch_size, w.sequence, w.ffn
        self.tokens = self.batch * self.sequence
        self.style = experiment.parallel.tensor_style
        self.kind = f"{self.style} b{self.batch} s{w.sequence} h{w.hidden} f{w.ffn} t{self.ranks}"
        self.here, self.mine = w.hidden // self.ranks, w.ffn // self.ranks

    def nbytes(self, columns: int) -> int:
        return self.tokens * columns * self.width

    def part(self, whole: int, part: str, columns: int, **keys: Any) -> Layer:
        """Return a part of block `whole` that puts out (batch, sequence, columns)."""
        return Layer(
            **{
                "kind": f"{part} {self.kind}",
                "output_shape": (self.batch, self.sequence, columns),
                "output_bytes": self.nbytes(columns),
                "starts_block": False,
                "whole": (whole, part),
                **keys,
            }
        )

    def matmul(
        self, whole: int, part: str, inputs: int, outputs: int, bias: int, **keys: Any
    ) -> Layer:
        """Return a part whose main work is one matrix product."""
        first = part == "fc1" and whole == 0  # the batch needs no gradient
        weight, biases = linear_shapes(inputs, outputs, bias=False), ((bias,),) if bias else ()
        # By rows the bias is that of the input.
        shapes = (*biases, *weight) if self.style == "row" else (*weight, *biases)
        return self.part(
            whole,
            f"{part}-first" if first else part,
            outputs,
            **{
                "shapes": shapes,
                "matmuls": (Matmul(self.tokens, outputs, inputs, into_input=not first),),
                **keys,
            },
        )

    def exchange(
        self, forward: Op | None, backward: Op | None, shape: tuple[int, ...]
    ) -> list[Layer]:
        return [
            exchange(Exchange("tensor", forward, backward), shape, math.prod(shape) * self.width)
        ]

    def loss(self) -> Layer:
        error = squared_error(f"squared-error {self.kind}", self.tokens * self.hidden, self.width)
        return replace(error, whole=(self.blocks, "loss"))


def _megatron(p: _Sizes) -> list[Layer]:
    result: list[Layer] = []
    whole = (p.batch, p.sequence, p.hidden)
    mine, hidden = p.nbytes(p.mine), p.nbytes(p.hidden)
    for block in range(p.blocks):
        begin = len(result)
        if block:
            result += p.exchange(None, Op.ALL_REDUCE, whole)
        core = p.part(
            block,
            "columns-rows" if block else "columns-rows-first",
            p.hidden,
            shapes=(
                *linear_shapes(p.hidden, p.mine),
                *linear_shapes(p.mine, p.hidden, bias=False),
            ),
            matmuls=(
                Matmul(p.tokens, p.mine, p.hidden, into_input=block > 0),
                linear(p.tokens, p.mine, p.hidden),
            ),
            moved_bytes=2 * mine,
            kernels=1,
            saved_bytes=2 * mine + (0 if block else hidden),
            deferred_bytes=hidden + 2 * mine + (0 if block else hidden),
            defers_input=True,
        )
        result += [core, *p.exchange(Op.ALL_REDUCE, None, whole)]
        result.append(_add(p, block, len(result) - begin))
        result[begin] = replace(result[begin], starts_block=True)
    return [*result, p.loss()]


def _add(p: _Sizes, block: int, back: int) -> Layer:
    """Return what adds bias and residual."""
    return p.part(
        block,
        "add",
        p.hidden,
        shapes=((p.hidden,),),
        moved_bytes=3 * p.nbytes(p.hidden),
        kernels=2,
        reads=(0, back),
        keeps=(False, False),
        copied_over=EVERYWHERE,
    )


def _rows(p: _Sizes) -> list[Layer]:
    result: list[Layer] = []
    hidden, ffn = (p.batch, p.sequence, p.hidden), (p.batch, p.sequence, p.ffn)
    for block in range(p.blocks):
        begin = len(result)
        if block:
            result += p.exchange(None, Op.ALL_REDUCE, hidden)
        result.append(
            p.matmul(
                *(block, "fc1", p.here, p.ffn, 0),
                moved_bytes=2 * p.nbytes(p.here),  # columns taken
                kernels=1,
                saved_bytes=p.nbytes(p.here),
                deferred_bytes=p.nbytes(p.here) + p.nbytes(p.ffn),
                keeps=(False,),
            )
        )
        result += p.exchange(Op.ALL_REDUCE, Op.ALL_REDUCE, ffn)
        result.append(
            p.matmul(
                *(block, "fc2", p.mine, p.hidden, p.mine),
                moved_bytes=4 * p.nbytes(p.mine),  # columns taken, GELU
                kernels=2,
                saved_bytes=2 * p.nbytes(p.mine),
                deferred_bytes=p.nbytes(p.mine) + p.nbytes(p.hidden),
                keeps=(False,),
            )
        )
        result += p.exchange(Op.ALL_REDUCE, None, hidden)
        result.append(_add(p, block, len(result) - begin))
        result[begin] = replace(result[begin], starts_block=True)
    return [*result, p.loss()]


def _columns(p: _Sizes) -> list[Layer]:
    """Return layers whose residuals are added to the columns that a rank has, then gathered."""
    result: list[Layer] = []
    hidden, here = p.nbytes(p.hidden), p.nbytes(p.here)
    for block in range(p.blocks):
        begin = len(result)
        result.append(
            p.matmul(
                *(block, "fc1", p.hidden, p.mine, p.mine),
                moved_bytes=2 * hidden + 2 * p.nbytes(p.mine),  # put side by side, GELU
                kernels=2,
                saved_bytes=hidden + p.nbytes(p.mine),  # columns put side by side; before GELU
                deferred_bytes=hidden + p.nbytes(p.mine),
                starts_block=True,
                keeps=(False,),
            )
        )
        gathered = (p.ranks, p.batch, p.sequence, p.mine)
        result += p.exchange(Op.ALL_GATHER, Op.REDUCE_SCATTER, gathered)
        result.append(
            p.matmul(
                *(block, "fc2", p.ffn, p.here, p.here),
                moved_bytes=2 * p.nbytes(p.ffn) + 3 * here,  # put side by side, residual
                kernels=2,
                saved_bytes=p.nbytes(p.ffn),
                deferred_bytes=p.nbytes(p.ffn) + here,
                reads=(0, len(result) - begin),
                keeps=(False, False),
            )
        )
        if block + 1 < p.blocks:
            gathered = (p.ranks, p.batch, p.sequence, p.here)
            result += p.exchange(Op.ALL_GATHER, Op.REDUCE_SCATTER, gathered)
    # Each rank has the error of its columns; their sum is the loss.
    error = replace(
        squared_error(f"part-of-squared-error {p.kind}", p.tokens * p.here, p.width),
        output_shape=(1,),
        output_bytes=p.wide,
        whole=(p.blocks, "error"),
    )
    if p.width == p.wide:
        error = replace(error, saved_bytes=hidden)  # the target: this rank's columns are a view
    total = exchange(Exchange("tensor", Op.ALL_REDUCE, None), (1,), p.wide)
    return [*result, error, total, replace(p.loss(), saved_bytes=0, keeps=(False,))]
