"""Transformer layers cut into the parts between which ranks must talk.

Megatron-LM's tensor parallelism: attention heads and MLP columns over ranks, one all-reduce
after each (Shoeybi et al. 2019, section 3), embedding, logits and loss over the vocabulary.
With sequence parallelism the all-reduces become reduce-scatter and all-gather, and norms and
residuals are computed on a share of the tokens (Korthikanti et al. 2022, section 4.2.2).
The parts of one layer of `gpt` or `bert` compute what that layer does.
`runtime.models.transformer` has their modules.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.experiment.experiment import Experiment
from simulator.program.operations import Op
from simulator.workloads.anatomy import Anatomy
from simulator.workloads.attention import Core, Form, form
from simulator.workloads.layer import REPLICATED, Exchange, Layer, exchange, linear, linear_shapes

EVERYWHERE = ("expert", "tensor")
"""Mesh axes over which parameters that are not split are copies."""


@dataclass(frozen=True)
class SplitTransformer:
    """Parts of transformer layers for one experiment, as one rank has them.

    Attributes:
        sequence: tokens of a sample that a context rank has.
        width, wide: bytes of a value, and of one where 16 bits are too few.
        shares_tokens: norms and residuals are computed on a share of the tokens.
        tied: the embedding is also the weight of the logits.
        is_alone: one stage has all layers.
        kv_ranks: tensor ranks that have the same heads of keys and values.
    """

    batch: int
    sequence: int
    anatomy: Anatomy
    vocab: int
    width: int
    wide: int
    tensor: int
    shares_tokens: bool
    context: int
    context_style: str
    form: Form
    kv_ranks: int
    tied: bool
    is_alone: bool

    @classmethod
    def of(cls, experiment: Experiment) -> SplitTransformer:
        """Return the parts for `experiment`."""
        w, parallel = experiment.workload, experiment.parallel
        return cls(
            batch=experiment.microbatch_size,
            sequence=w.sequence // parallel.context,
            anatomy=Anatomy.of(w),
            vocab=w.vocab,
            width=w.dtype_bytes,
            wide=w.wide_bytes,
            tensor=parallel.tensor,
            shares_tokens=parallel.sequence_parallel,
            context=parallel.context,
            context_style=parallel.context_style,
            form=form(experiment),
            tied=w.tie_embeddings,
            is_alone=parallel.pipeline * parallel.virtual_stages == 1,
            kv_ranks=w.kv_ranks(parallel.tensor),
        )

    @property
    def hidden(self) -> int:
        """Hidden size."""
        return self.anatomy.hidden

    @property
    def heads(self) -> int:
        """Number of all heads."""
        return self.anatomy.heads

    @property
    def ffn(self) -> int:
        """Size of the feed-forward layer."""
        return self.anatomy.ffn

    @property
    def queries(self) -> int:
        """Columns of Q that a rank has."""
        return self.anatomy.queries // self.tensor

    @property
    def keys(self) -> int:
        """Columns of K, and of V, that a rank has."""
        return self.anatomy.keys * self.kv_ranks // self.tensor

    @property
    def group(self) -> int:
        """Heads of queries that share a head of keys and values on a rank."""
        return self.queries // self.keys

    @property
    def keys_sums(self) -> tuple[str, ...]:
        """Mesh axes over which gradients of the weights of keys and values are sums."""
        return (*REPLICATED, "kv") if self.kv_ranks > 1 else REPLICATED

    @property
    def is_apart(self) -> bool:
        """Tell whether queries and keys are layers of their own, as they have other copies."""
        return self.kv_ranks > 1 or self.anatomy.qk_norm

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
        """Bytes that a norm keeps of every token, besides its input."""
        return self.anatomy.statistics * self.here * self.wide

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
            kind=f"{'rms-' if self.anatomy.rms else ''}norm n{self.here} h{self.hidden}",
            shapes=self.anatomy.norm_shapes,
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

    def core(self, whole: int, causal: bool) -> Core:
        """Return the core of attention of the heads and tokens of a rank, in a whole layer."""
        return Core(
            self.form,
            self.batch * self.heads // self.tensor,
            self.sequence,
            self.anatomy.head,
            self.width,
            causal,
            self.group,
            self.anatomy.rotary,
            self.anatomy.window_of((whole - 1) // 2),
        )

    def attention(self, whole: int, causal: bool) -> Layer:
        """Return the part from the input of Q, K and V to the output projection."""
        h, a, q, qkv = self.hidden, self.anatomy, self.queries, self.queries + 2 * self.keys
        heads_bytes = self.tokens * (q + qkv) * self.width
        return self.core(whole, causal).into(
            Layer(
                kind=f"{'causal' if causal else 'full'}-attention-part {self.shape} {a.shape}",
                shapes=(*linear_shapes(h, qkv, a.qkv_bias), *linear_shapes(q, h, False)),
                matmuls=(linear(self.tokens, h, qkv), linear(self.tokens, q, h)),
                saved_bytes=heads_bytes,
                deferred_bytes=heads_bytes + self.all_bytes,
                defers_input=True,
                output_shape=(self.batch, self.sequence, h),
                output_bytes=self.all_bytes,
                starts_block=False,
                whole=(whole, "attention"),
            )
        )

    def mlp(self, whole: int) -> Layer:
        """Return columns of the first product, activation function, and rows of the second."""
        h, t, tokens, width, a = self.hidden, self.tensor, self.tokens, self.width, self.anatomy
        columns, inner = self.ffn // t, a.inner // t
        kept, (moves, kernels) = tokens * (inner + columns) * width, a.activation_work
        gated = f"gated-{'biases-' if a.bias else ''}" if a.gated else ""
        return Layer(
            kind=f"{gated}mlp-part {self.shape} f{self.ffn}",
            shapes=(*linear_shapes(h, inner, a.bias), *linear_shapes(columns, h, False)),
            matmuls=(linear(tokens, h, inner), linear(tokens, columns, h)),
            moved_bytes=moves * tokens * columns * width,
            kernels=kernels,
            saved_bytes=kept,
            deferred_bytes=self.all_bytes + kept,
            defers_input=True,
            output_shape=(self.batch, self.sequence, h),
            output_bytes=self.all_bytes,
            starts_block=False,
            whole=(whole, "mlp"),
        )

    def add(self, whole: int, back: int) -> Layer:
        """Return bias and residual, which is the input of the layer, `back` boundaries ago."""
        biased = self.anatomy.bias
        return Layer(
            kind=f"{'add' if biased else 'residual'} n{self.here} h{self.hidden}",
            shapes=((self.hidden,),) if biased else (),
            moved_bytes=3 * self.here_bytes,
            kernels=1 + biased,
            output_shape=self.here_shape,
            output_bytes=self.here_bytes,
            starts_block=False,
            reads=(0, back),
            keeps=(False, False),
            sums_over=self.copied_sums,
            copied_over=EVERYWHERE,
            whole=(whole, "add"),
        )
