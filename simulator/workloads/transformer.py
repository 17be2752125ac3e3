"""Transformer layers cut into the parts between which ranks must talk.

Megatron-LM's tensor parallelism: attention heads and MLP columns over ranks, one all-reduce
after each (Shoeybi et al. 2019, section 3), embedding, logits and loss over the vocabulary.
With sequence parallelism the all-reduces become reduce-scatter and all-gather, and norms and
residuals are computed on a share of the tokens (Korthikanti et al. 2022, section 4.2.2).
The parts of one layer of `gpt` or `bert` compute what that layer does.
`runtime.models.transformer` has their modules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.experiment.experiment import Experiment
from simulator.program.operations import Op
from simulator.workloads.attention import Core, Form, form
from simulator.workloads.layer import REPLICATED, Exchange, Layer, exchange, linear

EVERYWHERE = ("expert", "tensor")
"""Mesh axes over which parameters that are not split are copies."""


@dataclass(frozen=True)
class SplitTransformer:
    """Parts of transformer layers for one experiment, as one rank has them.

    Attributes:
        sequence: tokens of a sample that a context rank has.
        width, wide: bytes of a value, and of one where 16 bits are too few.
        shares_tokens: norms and residuals are computed on a share of the tokens.
    """

    batch: int
    sequence: int
    hidden: int
    heads: int
    ffn: int
    vocab: int
    width: int
    wide: int
    tensor: int
    shares_tokens: bool
    context: int
    context_style: str
    form: Form

    @classmethod
    def of(cls, experiment: Experiment) -> SplitTransformer:
        """Return the parts for `experiment`."""
        w, parallel = experiment.workload, experiment.parallel
        return cls(
            batch=experiment.microbatch_size,
            sequence=w.sequence // parallel.context,
            hidden=w.hidden,
            heads=w.heads,
            ffn=w.ffn,
            vocab=w.vocab,
            width=w.dtype_bytes,
            wide=w.wide_bytes,
            tensor=parallel.tensor,
            shares_tokens=parallel.sequence_parallel,
            context=parallel.context,
            context_style=parallel.context_style,
            form=form(experiment),
        )

    @property
    def tokens(self) -> int:
        """Tokens of a microbatch on a context rank."""
        return self.batch * self.sequence

    @property
    def here(self) -> int:
        """Tokens whose norms and residuals this rank computes."""
        return self.tokens // self.tensor if self.shares_tokens else self.tokens

    @property
    def shape(self) -> str:
        """Sizes that all layers have in the name of their kind."""
        return f"b{self.batch} s{self.sequence} h{self.hidden} t{self.tensor} c{self.context}"

    @property
    def here_bytes(self) -> int:
        """Bytes of a hidden tensor of the tokens `here`."""
        return self.here * self.hidden * self.width

    @property
    def all_bytes(self) -> int:
        """Bytes of a hidden tensor of all tokens of a context rank."""
        return self.tokens * self.hidden * self.width

    @property
    def here_shape(self) -> tuple[int, ...]:
        """Shape of a hidden tensor of the tokens `here`."""
        if self.shares_tokens:
            return (self.here, self.hidden)
        return (self.batch, self.sequence, self.hidden)

    @property
    def copied_sums(self) -> tuple[str, ...]:
        """Mesh axes over which gradients of copies are sums: shares of tokens give parts."""
        return (*REPLICATED, "tensor") if self.shares_tokens else REPLICATED

    @property
    def norm_statistics(self) -> int:
        """Bytes of the mean and the deviation that a norm keeps of every token."""
        return 2 * self.here * self.wide

    def enter(self) -> list[Layer]:
        """Return f, by which every rank gets the whole input of its share of the weights."""
        if self.tensor == 1:
            return []
        how = Exchange("tensor", None, Op.ALL_REDUCE)
        if self.shares_tokens:
            how = Exchange("tensor", Op.ALL_GATHER, Op.REDUCE_SCATTER, regathered=True)
        full = (self.batch, self.sequence, self.hidden)
        return [exchange(how, full, self.all_bytes)]

    def leave(self) -> list[Layer]:
        """Return g, which adds up the parts of the output that the ranks have."""
        if self.tensor == 1:
            return []
        how = Exchange("tensor", Op.ALL_REDUCE, None)
        if self.shares_tokens:
            how = Exchange("tensor", Op.REDUCE_SCATTER, Op.ALL_GATHER)
        return [exchange(how, self.here_shape, self.here_bytes)]

    def norm(self, whole: int) -> Layer:
        """Return a norm of the tokens here."""
        return Layer(
            kind=f"norm n{self.here} h{self.hidden}",
            parameters=2 * self.hidden,
            moved_bytes=2 * self.here_bytes,
            kernels=1,
            saved_bytes=self.norm_statistics,
            output_shape=self.here_shape,
            output_bytes=self.here_bytes,
            starts_block=False,
            sums_over=self.copied_sums,
            copied_over=EVERYWHERE,
            whole=(whole, "norm"),
        )

    def attention(self, whole: int, causal: bool) -> Layer:
        """Return the part from the input of Q, K and V to the output projection."""
        h, t, heads = self.hidden, self.tensor, self.heads
        heads_bytes = self.all_bytes // t
        core = Core(
            self.form, self.batch * heads // t, self.sequence, h // heads, self.width, causal
        )
        return core.into(
            Layer(
                kind=f"{'causal' if causal else 'full'}-attention-part {self.shape} a{heads}",
                parameters=(3 * h * h + 3 * h + h * h) // t,
                matmuls=(linear(self.tokens, h, 3 * h // t), linear(self.tokens, h // t, h)),
                saved_bytes=4 * heads_bytes,
                deferred_bytes=4 * heads_bytes + self.all_bytes,
                defers_input=True,
                output_shape=(self.batch, self.sequence, h),
                output_bytes=self.all_bytes,
                starts_block=False,
                whole=(whole, "attention"),
            )
        )

    def mlp(self, whole: int) -> Layer:
        """Return columns of the first product, GELU, and rows of the second."""
        h, t, tokens, width = self.hidden, self.tensor, self.tokens, self.width
        columns = self.ffn // t
        return Layer(
            kind=f"mlp-part {self.shape} f{self.ffn}",
            parameters=h * columns + columns + columns * h,
            matmuls=(linear(tokens, h, columns), linear(tokens, columns, h)),
            moved_bytes=2 * tokens * columns * width,
            kernels=1,
            saved_bytes=2 * tokens * columns * width,
            deferred_bytes=self.all_bytes + 2 * tokens * columns * width,
            defers_input=True,
            output_shape=(self.batch, self.sequence, h),
            output_bytes=self.all_bytes,
            starts_block=False,
            whole=(whole, "mlp"),
        )

    def add(self, whole: int, back: int) -> Layer:
        """Return bias and residual, which is the input of the layer, `back` boundaries ago."""
        return Layer(
            kind=f"add n{self.here} h{self.hidden}",
            parameters=self.hidden,
            moved_bytes=3 * self.here_bytes,
            kernels=2,
            output_shape=self.here_shape,
            output_bytes=self.here_bytes,
            starts_block=False,
            reads=(0, back),
            keeps=(False, False),
            sums_over=self.copied_sums,
            copied_over=EVERYWHERE,
            whole=(whole, "add"),
        )

    def embedding(self) -> Layer:
        """Return the rows of this rank's share of the vocabulary; other tokens are 0."""
        rows = self.vocab // self.tensor
        return Layer(
            kind=f"embedding-part {self.shape} v{self.vocab}",
            parameters=rows * self.hidden,
            moved_bytes=4 * self.all_bytes,
            kernels=3,
            saved_bytes=9 * self.tokens,  # index, which are others'
            output_shape=(self.batch, self.sequence, self.hidden),
            output_bytes=self.all_bytes,
            whole=(0, "embedding"),
        )

    def logits(self, whole: int, tokens: int, bias: bool) -> Layer:
        """Return the logits of this rank's share of the vocabulary: (tokens, vocab ÷ tensor)."""
        columns = self.vocab // self.tensor
        nbytes = tokens * columns * self.width
        return Layer(
            kind=f"logits-part n{tokens} {self.shape} v{self.vocab}",
            parameters=self.hidden * columns + bias * columns,
            matmuls=(linear(tokens, self.hidden, columns),),
            deferred_bytes=nbytes,
            defers_input=True,
            output_shape=(tokens, columns),
            output_bytes=nbytes,
            starts_block=False,
            whole=(whole, "logits"),
        )

    def cross_entropy(self, whole: int, tokens: int) -> list[Layer]:
        """Return the mean cross-entropy of logits that are nowhere whole.

        It takes their maximum, the sum of exponentials and the logit of the target over the
        ranks, then the mean (Shoeybi et al. 2019, section 3). It reads the logits, which are
        before it.
        """
        columns = self.vocab // self.tensor
        nbytes, row = tokens * columns * self.wide, tokens * self.wide
        if self.tensor == 1:
            return [self._loss(whole, tokens, nbytes)]
        maximum = Layer(
            kind=f"maximum n{tokens} v{columns}",
            moved_bytes=tokens * columns * self.width,
            kernels=1,
            output_shape=(tokens,),
            output_bytes=row,
            starts_block=False,
            keeps=(False,),
            differentiable=False,
            whole=(whole, "maximum"),
        )
        highest = Exchange("tensor", Op.ALL_REDUCE, None, reduction="max")
        sums = Layer(
            kind=f"exponentials n{tokens} v{columns}",
            moved_bytes=5 * nbytes,  # shifted, exponentials, their sum
            kernels=5,
            saved_bytes=nbytes + 9 * tokens,  # exponentials; target's place, whether it is here
            output_shape=(2, tokens),
            output_bytes=2 * row,
            starts_block=False,
            reads=(0, 2),
            keeps=(False, False),
            whole=(whole, "exponentials"),
        )
        loss = Layer(
            kind=f"cross-entropy n{tokens}",
            moved_bytes=4 * row,
            kernels=3,
            starts_block=False,
            whole=(whole, "cross-entropy"),
        )
        return [
            maximum,
            replace(exchange(highest, (tokens,), row), differentiable=False),
            sums,
            exchange(Exchange("tensor", Op.ALL_REDUCE, None), (2, tokens), 2 * row),
            loss,
        ]

    def _loss(self, whole: int, tokens: int, nbytes: int) -> Layer:
        """Return the mean cross-entropy where the logits of a token are in one place."""
        return Layer(
            kind=f"loss n{tokens} v{self.vocab}",
            moved_bytes=3 * nbytes,  # log-softmax
            kernels=2,
            saved_bytes=nbytes + 8 * tokens + self.wide,  # log-softmax, targets, their weight
            starts_block=False,
            keeps=(False,),
            whole=(whole, "loss"),
        )
