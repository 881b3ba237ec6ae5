"""The slice: the kept neurons of one FFN, copied out of its weights."""

import torch


def gather_neurons(
    up_weight: torch.Tensor, up_bias: torch.Tensor, down_weight: torch.Tensor, keep: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Copy the kept neurons out, in order.

    Args:
        up_weight: W1, (n, d).
        up_bias: b1, (n,).
        down_weight: W2, (n, d).
        keep: (k,) sorted neuron indices.

    Returns:
        W1 (k, d), b1 (k,), W2 (k, d).
    """
    return up_weight[keep], up_bias[keep], down_weight[keep]
