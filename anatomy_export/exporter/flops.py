"""Floating-point operations of one forward pass, a multiply and an add counted as two."""

from dataclasses import dataclass

import torch
from transformers.pytorch_utils import Conv1D

from anatomy_export.models import model_blocks


@dataclass(frozen=True)
class Flops:
    """FLOPs for one batch of padded sequences: `ffn` of the FFN blocks, `total` of everything with a matrix product."""

    ffn: int
    total: int


def count_flops(model, *, batch: int, sequence: int) -> Flops:
    """Projections, attention products, FFN and classification head, as the torch model runs them."""
    tokens = batch * sequence
    blocks = model_blocks(model)
    ffn = sum(4 * block.width * block.up_weight.shape[1] for block in blocks) * tokens
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
            body += 2 * module.weight.numel() * tokens
        else:
            head += 2 * module.weight.numel() * batch
    attention = 4 * batch * sequence**2 * model.config.hidden_size * len(blocks)
    return Flops(ffn=ffn, total=ffn + body + head + attention)
