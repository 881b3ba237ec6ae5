"""From a budget in the user's terms to the share of the FFN neurons that stays."""

from collections.abc import Callable, Sequence

from anatomy_export.core.errors import AnatomyError
from anatomy_export.models.flops import FlopModel
from anatomy_export.planning.latency import LatencyTable

RATIO_STEPS = 30


def ratio_for_flops(flops: FlopModel, wanted: float, length: int) -> float:
    """Share of the FFN neurons at which the model runs `wanted` of its FLOPs on `length` tokens.

    Raises:
        AnatomyError: the FFN's share is too small for that.
    """
    total, ffn = flops.total(1, length), flops.ffn_token * length
    ratio = 1 - (1 - wanted) * total / ffn
    if ratio <= 0:
        raise AnatomyError(
            f"--flops-ratio {wanted:g} cannot be reached: the FFN is {ffn / total:.0%} of this model's FLOPs at "
            f"{length} tokens, so at least {1 - ffn / total:.3f} stays; next step: ask for more than that"
        )
    return ratio


def ratio_for_speedup(
    table: LatencyTable, wanted: float, widths: Sequence[int], widths_at: Callable[[float], Sequence[int]]
) -> float:
    """The largest share of the FFN neurons at which the table predicts `wanted` times the dense speed.

    Args:
        widths: of the dense layers.
        widths_at: share to the widths that a plan would keep; raises AnatomyError where there is no room.

    Raises:
        AnatomyError: no share is that fast; says the best.
    """
    low, high, best = 0.0, 1.0, None
    fastest, refusal = 1.0, ""
    for _ in range(RATIO_STEPS):
        middle = (low + high) / 2
        try:
            reached = table.speedup(widths_at(middle), widths)
        except AnatomyError as error:
            low, refusal = middle, f" ({error})"
            continue
        fastest = max(fastest, reached)
        if reached >= wanted:
            low, best = middle, middle
        else:
            high = middle
    if best is None:
        raise AnatomyError(
            f"--target-speedup {wanted:g} cannot be reached by pruning the FFN: with as few neurons as may stay this "
            f"model is {fastest:.2f} times as fast at batch {table.batch} and {table.seq_len} tokens on this device"
            f"{refusal}; next step: ask for less"
        )
    return best
