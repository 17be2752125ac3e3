"""The anatomy of a transformer block: its sizes, its norms, its biases, its MLP, its heads."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.experiment.workload import Workload
from simulator.workloads.layer import norm_shapes


@dataclass(frozen=True)
class Anatomy:
    """A transformer block of one family, with the sizes that the user gives.

    Attributes:
        heads, kv_heads: heads of queries, and of keys and values, each of which serves as many
            of the former (Ainslie et al. 2023, "GQA").
        head: values of a head.
        rms: norms have a weight and no bias, and divide by the root mean square without
            subtracting the mean (Zhang and Sennrich 2019, "Root Mean Square Layer Normalization").
        gated: the MLP multiplies one of two products, after its activation function, with the
            other (Shazeer 2020, "GLU Variants Improve Transformer").
        rotary: queries and keys are turned by their positions (Su et al. 2021, "RoFormer").
        qkv_bias: the product that makes Q, K and V has a bias.
        bias: all other products of a block have one.
        qk_norm: heads of queries and keys are normed (Henry et al. 2020, "Query-Key
            Normalization"; as an RMS norm with a weight for each value of a head).
        window: tokens that a token attends to, itself included; None: all before it.
        full_every: every so many blocks have no window; 0: all have it.
    """

    hidden: int
    heads: int
    kv_heads: int
    head: int
    ffn: int
    rms: bool = False
    gated: bool = False
    rotary: bool = False
    qkv_bias: bool = True
    bias: bool = True
    qk_norm: bool = False
    window: int | None = None
    full_every: int = 0

    @classmethod
    def of(cls, workload: Workload) -> Anatomy:
        """Return the anatomy of the blocks of `workload`."""
        hidden, heads = workload.hidden, workload.heads
        if not workload.family.is_llama:
            return cls(hidden, heads, heads, hidden // heads, workload.ffn)
        return cls(
            hidden,
            heads,
            workload.kv_heads or heads,
            workload.head_dim or hidden // heads,
            workload.ffn,
            rms=True,
            gated=True,
            rotary=True,
            qkv_bias=workload.bias != "none",
            bias=workload.bias == "all",
            qk_norm=workload.qk_norm,
            window=workload.window if workload.has_window else None,
            full_every=workload.full_attention_every or 0,
        )

    @property
    def queries(self) -> int:
        """Columns of Q of all heads."""
        return self.heads * self.head

    @property
    def keys(self) -> int:
        """Columns of K, and of V, of all heads."""
        return self.kv_heads * self.head

    @property
    def group(self) -> int:
        """Heads of queries that one head of keys and values serves."""
        return self.heads // self.kv_heads

    @property
    def norm_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parameters of a norm."""
        return norm_shapes(self.hidden)[: 1 if self.rms else 2]

    @property
    def statistics(self) -> int:
        """Values that a norm keeps of a token: mean and deviation, or one over the latter."""
        return 1 if self.rms else 2

    @property
    def inner(self) -> int:
        """Columns of the first product of the MLP."""
        return 2 * self.ffn if self.gated else self.ffn

    @property
    def activation_work(self) -> tuple[int, int]:
        """Values of `ffn` columns that the activation function moves, and its kernels."""
        return (5, 2) if self.gated else (2, 1)

    @property
    def shape(self) -> str:
        """The part of the name of a kind of layer that says how heads are made."""
        if not self.rotary:
            return f"a{self.heads}"
        biases = " biases" if self.bias else " bias" if self.qkv_bias else ""
        normed = " normed" if self.qk_norm else ""
        return f"a{self.heads} k{self.kv_heads} d{self.head}{biases}{normed}"

    def window_of(self, block: int) -> int | None:
        """Return the tokens that a token of a block attends to; None: all before it."""
        full = self.full_every and (block + 1) % self.full_every == 0
        return None if full else self.window
