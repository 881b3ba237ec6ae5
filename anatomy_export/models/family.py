"""What the toolkit must know of a model family, and the FFN blocks it then finds.

`torch.nn.Linear` stores a weight as (out, in), GPT-2's `Conv1D` as (in, out). `FfnBlock` hides that: it reads every
weight in the canonical orientation, one row a neuron.
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from anatomy_export.core.errors import AnatomyError

IDS_AND_MASK = ("input_ids", "attention_mask")
WITH_TOKEN_TYPES = (*IDS_AND_MASK, "token_type_ids")


@dataclass(frozen=True)
class Family:
    """A family's FFN, target token, threshold rule and inputs. Paths are dotted attribute names.

    `target(input_ids, pad_token_id)` gives, for `input_ids: (batch, sequence)`, the position `(batch,)` of the token
    that the classifier reads. `inputs` are the tensors that the model takes, where its tokenizer gives them.
    `absorb_token_types_(model)` makes a model that would add the embedding of token type 0 to every token, as GPT-2
    does, one that needs no token type ids for the same logits.
    """

    model_type: str
    rule: str
    layers: str
    up: str
    down: str
    target: Callable[[torch.Tensor, int | None], torch.Tensor]
    max_positions: Callable[[Any], int]
    inputs: tuple[str, ...] = IDS_AND_MASK
    absorb_token_types_: Callable[[torch.nn.Module], None] | None = None


@dataclass(frozen=True)
class FfnBlock:
    """The FFN of one layer: `y = act(x W1 + b1) W2 + b2`, `n` neurons, hidden size `d`."""

    layer: int
    up: torch.nn.Module
    down: torch.nn.Module

    @property
    def width(self) -> int:
        """Number of neurons `n`."""
        return self.up.bias.shape[0]

    @property
    def up_weight(self) -> torch.Tensor:
        """W1 in canonical orientation, (n, d); a view of the parameter."""
        return self.up.weight.T if isinstance(self.up, Conv1D) else self.up.weight

    @property
    def up_bias(self) -> torch.Tensor:
        """b1, (n,); the parameter itself."""
        return self.up.bias

    @property
    def down_bias(self) -> torch.Tensor:
        """b2, (d,); the parameter itself."""
        return self.down.bias

    @property
    def down_weight(self) -> torch.Tensor:
        """W2 in canonical orientation, (n, d); a view of the parameter."""
        return self.down.weight if isinstance(self.down, Conv1D) else self.down.weight.T

    def resize_(self, up_weight: torch.Tensor, up_bias: torch.Tensor, down_weight: torch.Tensor) -> None:
        """Replace the neurons in place: weights (k, d), (k,), (k, d), and the modules' recorded widths with them."""
        _set_weight_(self.up, up_weight, flip=isinstance(self.up, Conv1D))
        _set_weight_(self.down, down_weight, flip=not isinstance(self.down, Conv1D))
        self.up.bias = torch.nn.Parameter(up_bias.contiguous())
        setattr(self.up, "nf" if isinstance(self.up, Conv1D) else "out_features", up_bias.shape[0])
        setattr(self.down, "nx" if isinstance(self.down, Conv1D) else "in_features", up_bias.shape[0])


def _set_weight_(module: torch.nn.Module, weight: torch.Tensor, *, flip: bool) -> None:
    module.weight = torch.nn.Parameter((weight.T if flip else weight).contiguous())


def family_layers(model: torch.nn.Module, family: Family) -> torch.nn.ModuleList:
    """The model's layers in order."""
    return attrgetter(family.layers)(model)


def ffn_blocks(model: torch.nn.Module, family: Family) -> list[FfnBlock]:
    """Every layer's FFN in order.

    Raises:
        AnatomyError: the model lacks the family's FFN, or a module is neither Linear nor Conv1D with a bias.
    """
    up, down = attrgetter(family.up), attrgetter(family.down)
    try:
        layers = family_layers(model, family)
        blocks = [FfnBlock(index, up(layer), down(layer)) for index, layer in enumerate(layers)]
    except AttributeError as error:
        raise AnatomyError(f"this {family.model_type} model has no FFN where one belongs: {error}") from error
    for block in blocks:
        for module in (block.up, block.down):
            if not isinstance(module, torch.nn.Linear | Conv1D) or module.bias is None:
                raise AnatomyError(
                    f"layer {block.layer}: FFN module is {type(module).__name__}, expected Linear or Conv1D with a bias"
                )
    return blocks
