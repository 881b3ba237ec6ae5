"""Where a search for the smallest model starts and how it goes on: each model that is tried takes a repair to make."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

# Layers that are pruned together change the margin by about three times what their damages add up to (seen on the
# embedded BERT at 50 to 95 % removed). It decides where a search starts, not where it ends.
DAMAGE_SCALE = 3.0


def predicted_drop(logits: Sequence[torch.Tensor], damage: float) -> float:
    """Points of accuracy that the dense model's probabilities expect to be lost by a change of the margin.

    A text's class changes where a normal deviation of the margin passes it, Φ(−margin ∕ σ), and that costs the
    difference of the two largest probabilities.

    Args:
        logits: of the dense model, (texts, classes) in parts.
        damage: predicted squared change of the margin, as `Measurement.damage` has it, summed over the layers.
    """
    joined = torch.cat(list(logits)).double()
    best = joined.topk(2, dim=-1).values
    likely = joined.softmax(-1).topk(2, dim=-1).values
    deviation = max(DAMAGE_SCALE * math.sqrt(max(damage, 0.0)), 1e-12)
    changes = torch.special.ndtr(-(best[:, 0] - best[:, 1]) / deviation)
    return 100 * float(((likely[:, 0] - likely[:, 1]) * changes).mean())


def summed_damage(damage: Sequence[np.ndarray], widths: Sequence[int]) -> float:
    """Of keeping `widths[l]` neurons in each layer."""
    return float(sum(one[len(one) - 1 - width] for one, width in zip(damage, widths, strict=True)))


def last_that_fits(fits: Callable[[int], bool], count: int, guess: int) -> int:
    """The last of the positions 0 … `count` − 1 that fits, −1 where none does; those that fit come first.

    Begins at `guess` and doubles its steps until one fits and one does not, then halves what lies between: two calls of
    `fits` where the guess is right.
    """
    low, high, step, at = -1, count, 1, min(max(guess, 0), count - 1)
    while high - low > 1:
        if fits(at):
            low = at
        else:
            high = at
        if high == count:
            at = min(low + step, count - 1)
        elif low == -1:
            at = max(high - step, 0)
        else:
            at = (low + high) // 2
        step *= 2
    return low
