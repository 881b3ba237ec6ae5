"""What a classifier is called with: arrays by the name of the input, each (batch, tokens) int64."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Inputs = dict[str, np.ndarray]
Forward = Callable[[Inputs], np.ndarray]
"""Logits (batch, classes) of inputs, whatever computes them."""


def as_inputs(encoded: Mapping[str, Any]) -> Inputs:
    """What a transformers tokenizer gives for texts of one length."""
    return {name: np.asarray(values, dtype=np.int64) for name, values in encoded.items()}


def unpadded_inputs(input_ids: Sequence[int]) -> Inputs:
    """All that a graph may ask for of one text of these token ids, each (1, tokens)."""
    ids = np.array([input_ids], np.int64)
    positions = np.arange(ids.size)[None]
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
        "position_ids": positions,
    }
