"""Floating-point operations of one forward pass, a multiply and an add counted as two; matrix products only."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FlopModel:
    """What a forward pass costs at any batch and padded length.

    Attributes:
        ffn_token: FLOPs of all FFN blocks, for one token.
        body_token: FLOPs of attention projections, and of a head that runs on every token (GPT-2), for one token.
        attention_pair: FLOPs of the attention products QKᵀ and AV over all layers, for one pair of tokens.
        head_sequence: FLOPs of pooler and classifier, for one sequence.
    """

    ffn_token: int
    body_token: int
    attention_pair: int
    head_sequence: int

    def total(self, batch: int, sequence: int) -> int:
        """FLOPs of `batch` sequences of `sequence` tokens, padding included."""
        tokens = batch * sequence
        return (
            (self.ffn_token + self.body_token) * tokens
            + self.attention_pair * tokens * sequence
            + self.head_sequence * batch
        )

    def without_neurons(self, removed_ffn_token: int) -> "FlopModel":
        """The same model with `removed_ffn_token` FLOPs a token fewer in its FFN blocks."""
        ffn_token = self.ffn_token - removed_ffn_token
        return FlopModel(ffn_token, self.body_token, self.attention_pair, self.head_sequence)


def ffn_flops_token(widths: list[int], hidden: int) -> int:
    """FLOPs a token of FFN blocks with `widths` neurons at hidden size `hidden`: two products of 2·n·d each."""
    return sum(4 * width * hidden for width in widths)


def count_flops(model) -> FlopModel:
    """Projections, attention products, FFN and classification head, as the torch model runs them."""
    import torch
    from transformers.pytorch_utils import Conv1D

    from anatomy_export.models.supported_families import model_blocks

    blocks = model_blocks(model)
    in_ffn = {id(module) for block in blocks for module in (block.up, block.down)}
    body = 0
    head = 0
    prefix = model.base_model_prefix + "."
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear | Conv1D) or id(module) in in_ffn:
            continue
        every_token = name.startswith(prefix) and ".pooler." not in name
        per_token_head = model.config.model_type == "gpt2"
        if every_token or per_token_head:
            body += 2 * module.weight.numel()
        else:
            head += 2 * module.weight.numel()
    hidden = blocks[0].up_weight.shape[1]
    return FlopModel(
        ffn_token=ffn_flops_token([block.width for block in blocks], hidden),
        body_token=body,
        attention_pair=4 * model.config.hidden_size * len(blocks),
        head_sequence=head,
    )
