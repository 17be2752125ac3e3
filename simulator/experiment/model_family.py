"""Families of models: what distinguishes one model from another outside its own file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

ModelName = Literal[
    "unit", "mlp", "gpt", "llama", "moe-gpt", "bert", "alexnet", "vgg16", "resnet50"
]


@dataclass(frozen=True)
class ModelFamily:
    """Properties of a model that other rooms ask for.

    Attributes:
        data: what it is trained on: "text" as bytes, "images", "numbers", or "nothing".
        is_causal: a token attends to those before it only.
        has_experts: every block has a mixture of experts.
        is_llama: its blocks are Llama's, with the keys that they have.
    """

    data: Literal["text", "images", "numbers", "nothing"]
    is_causal: bool = False
    has_experts: bool = False
    is_llama: bool = False

    @property
    def has_attention(self) -> bool:
        """Tell whether it is a transformer."""
        return self.data == "text"

    @property
    def has_parameters(self) -> bool:
        """Tell whether there is something to train: `unit` is nothing but its duration."""
        return self.data != "nothing"

    @property
    def has_shape_keys(self) -> bool:
        """Tell whether the user may set its layers, hidden size and so on."""
        return self.data in ("text", "numbers")


FAMILIES: dict[ModelName, ModelFamily] = {
    "unit": ModelFamily("nothing"),
    "mlp": ModelFamily("numbers"),
    "gpt": ModelFamily("text", is_causal=True),
    "llama": ModelFamily("text", is_causal=True, is_llama=True),
    "moe-gpt": ModelFamily("text", is_causal=True, has_experts=True),
    "bert": ModelFamily("text"),
    "alexnet": ModelFamily("images"),
    "vgg16": ModelFamily("images"),
    "resnet50": ModelFamily("images"),
}


def models_with(condition: Callable[[ModelFamily], bool]) -> tuple[ModelName, ...]:
    """Return the models whose family meets a condition."""
    return tuple(name for name, family in FAMILIES.items() if condition(family))
