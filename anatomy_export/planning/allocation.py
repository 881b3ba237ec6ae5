"""How many neurons each layer keeps, for a given total."""

from collections.abc import Sequence
from math import ceil

import numpy as np

from anatomy_export.core.arguments import check_share, check_whole
from anatomy_export.core.errors import AnatomyError

UNIFORM, GLOBAL, SENSITIVITY = "uniform", "global", "sensitivity"
ALLOCATIONS = (UNIFORM, GLOBAL, SENSITIVITY)


def uniform_widths(widths: Sequence[int], keep_ratio: float, align: int = 1) -> list[int]:
    """The same share of every layer, at least one neuron, rounded up to a multiple of `align`.

    Raises:
        AnatomyError: no share, or no multiple.
    """
    check_share("keep_ratio", keep_ratio)
    check_whole("align", align, 1)
    return [min(width, ceil(max(1, round(keep_ratio * width)) / align) * align) for width in widths]


def global_widths(scores: Sequence[np.ndarray], total: int, *, comparable: bool, align: int = 1) -> list[int]:
    """Widths of one ranking over all layers, best scores first, that add up to about `total`.

    Args:
        scores: per layer (n,), higher = keep; infinite for the protected.
        comparable: the layers' scores are in one unit; otherwise each layer's are standardised first (FLAP, arXiv
            2312.11983).

    Raises:
        AnatomyError: see `marginal_widths`.
    """
    levelled = [layer if comparable else _standardised(layer) for layer in scores]
    finite = np.concatenate([layer[np.isfinite(layer)] for layer in levelled])
    floor, roof = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    span = roof - floor or 1.0
    damage = []
    for layer in levelled:
        rising = np.sort(np.where(np.isfinite(layer), (layer - floor) / span, 2.0))
        damage.append(np.concatenate([[0.0], rising.cumsum()]))
    return marginal_widths(damage, total, align)


def _standardised(scores: np.ndarray) -> np.ndarray:
    finite = scores[np.isfinite(scores)]
    return (scores - finite.mean()) / (finite.std() or 1.0) if len(finite) else scores


def marginal_widths(damage: Sequence[np.ndarray], total: int, align: int = 1) -> list[int]:
    """Widths that add up to about `total` with the least predicted damage.

    Each layer gives up its neurons in its own order; the next `align` of them go where they do the least. A layer's
    marginal damage is made never to fall (running maximum). Where the curves are convex, that changes nothing and this
    greedy choice is the optimum.

    Args:
        damage: per layer (n + 1,): damage once 0, 1, … n neurons are gone, in one unit for all layers.
        total: neurons to keep; rounded up to a multiple of `align`.
        align: widths are multiples of it where the layer is that wide.

    Raises:
        AnatomyError: `total` does not leave `align` neurons to every layer, or `align` is no multiple.
    """
    check_whole("align", align, 1)
    widths = [len(curve) - 1 for curve in damage]
    ladders = [_ladder(width, align) for width in widths]
    least = sum(ladder[0] for ladder in ladders)
    if total < least:
        raise AnatomyError(
            f"{total} neurons are to be kept, but {len(widths)} layers need at least {least} (--align {align}); "
            "next step: keep more, or lower --align"
        )
    steps = []
    for layer, (curve, ladder) in enumerate(zip(damage, ladders, strict=True)):
        kept = np.array(ladder)
        saved = curve[widths[layer] - kept[:-1]] - curve[widths[layer] - kept[1:]]
        price = np.maximum.accumulate(saved[::-1] / np.diff(kept)[::-1])[::-1]
        steps += [(-price[rung], rung, layer) for rung in range(len(price))]
    chosen = [0] * len(widths)
    kept_now = least
    for _, _, layer in sorted(steps):
        if kept_now >= total:
            break
        kept_now += ladders[layer][chosen[layer] + 1] - ladders[layer][chosen[layer]]
        chosen[layer] += 1
    return [ladder[rung] for ladder, rung in zip(ladders, chosen, strict=True)]


def _ladder(width: int, align: int) -> list[int]:
    """Widths that a layer may keep, rising: multiples of `align`, and `width` itself."""
    return sorted({*range(align, width, align), width})


def width_multiple(asked: str) -> int:
    """The multiple that `--align` names: a number, or "auto": 64 with CUDA (T4 fp16 tiles), else 16 (AVX2 columns)."""
    if asked != "auto":
        return int(asked)
    import torch

    return 64 if torch.cuda.is_available() else 16
