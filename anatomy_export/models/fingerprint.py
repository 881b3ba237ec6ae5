"""Which model a torch model is: the fingerprint of its FFN weights, and its logits for a few token ids."""

from collections.abc import Sequence

import numpy as np
import torch

from anatomy_export.core.errors import AnatomyError
from anatomy_export.models.supported_families import Family, family_of, model_blocks
from anatomy_export.plan_files.model_identity import HINT, ModelIdentity, ffn_fingerprint, record_logits, spread_ids


def model_identity(model) -> ModelIdentity:
    """What a plan for a torch model records of it.

    Raises:
        AnatomyError: its logits are not finite.
    """
    config = model.config
    input_ids = spread_ids(config.vocab_size, config.pad_token_id, family_of(config).max_positions(config))
    return ModelIdentity(model_fingerprint(model), record_logits(input_ids, model_logits(model, input_ids)))


def model_logits(model, input_ids: Sequence[Sequence[int]]) -> np.ndarray:
    """Logits (sequences, classes) of a torch model on the CPU, dropout off, for each sequence alone.

    Raises:
        AnatomyError: the model has no such token, or takes no sequence of that length.
    """
    config, family = model.config, family_of(model.config)
    largest, longest = max(map(max, input_ids)), max(map(len, input_ids))
    if largest >= config.vocab_size or longest > family.max_positions(config):
        raise AnatomyError(
            f"plan was made for another model: it records token id {largest} and {longest} tokens, this one has "
            f"{config.vocab_size} tokens and takes {family.max_positions(config)}; {HINT}"
        )
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            return np.concatenate([_logits(model, family, ids) for ids in input_ids])
    finally:
        model.train(training)


def _logits(model, family: Family, ids: Sequence[int]) -> np.ndarray:
    tensor = torch.tensor([ids])
    values = {
        "input_ids": tensor,
        "attention_mask": torch.ones_like(tensor),
        "token_type_ids": torch.zeros_like(tensor),
    }
    return model(**{name: values[name] for name in family.inputs}).logits.numpy().astype(np.float64)


def model_fingerprint(model) -> str:
    """The fingerprint of a torch model's FFN weights; see `ffn_fingerprint`."""
    return ffn_fingerprint(
        (block.up_weight.detach().numpy(), block.up_bias.detach().numpy(), block.down_weight.detach().numpy())
        for block in model_blocks(model)
    )
