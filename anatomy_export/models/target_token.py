"""Which token a classifier reads: the first, or the last that is not padding."""

import torch


def first_token(input_ids: torch.Tensor, pad_token_id: int | None) -> torch.Tensor:
    """Position 0 of every sequence: (batch,)."""
    return torch.zeros(input_ids.shape[0], dtype=torch.long, device=input_ids.device)


def last_real_token(input_ids: torch.Tensor, pad_token_id: int | None) -> torch.Tensor:
    """Position (batch,) of the last token that is not padding, as `GPT2ForSequenceClassification` picks it."""
    positions = torch.arange(input_ids.shape[1], device=input_ids.device)
    return (positions * (input_ids != pad_token_id)).argmax(-1)
