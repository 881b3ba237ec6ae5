"""From a budget in the user's terms to the share of the FFN neurons that stays."""

from collections.abc import Callable, Sequence

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.models.checkpoint import sequence_length
from anatomy_export.models.flops import FlopModel, count_flops
from anatomy_export.planning.latency_table import LatencyTable, MeasureLatency
from anatomy_export.planning.options import ScoreOptions
from anatomy_export.planning.plan_maker import PlanMaker

RATIO_STEPS = 30


def budget_share(options: ScoreOptions, maker: PlanMaker, measure_latency: MeasureLatency, progress: Progress) -> dict:
    """`keep_ratio`, the share of the neurons that the budget leaves, and what else the plan records of it.

    Raises:
        AnatomyError: no share is so fast, or has so few FLOPs.
    """
    calibration = maker.calibration
    checkpoint, widths = calibration.checkpoint, calibration.widths
    if options.flops_ratio is not None:
        tokens = calibration.mean_tokens
        ratio = ratio_for_flops(count_flops(checkpoint.model), options.flops_ratio, tokens)
        return {"flops_ratio": options.flops_ratio, "flops_tokens": tokens, "keep_ratio": ratio}
    if options.target_speedup is None:
        return {"keep_ratio": options.keep_ratio}
    length = sequence_length(checkpoint, options.seq_len, "--seq-len")
    table = measure_latency(checkpoint, batch=options.batch, seq_len=length, progress=progress)

    def widths_at(ratio: float) -> list[int]:
        return [len(kept) for kept in maker.kept_neurons(options.method, ratio)]

    ratio = ratio_for_speedup(table, options.target_speedup, widths, widths_at)
    return {
        "target_speedup": options.target_speedup,
        "predicted_speedup": round(table.speedup(widths_at(ratio), widths), 4),
        "batch": table.batch,
        "seq_len": table.seq_len,
        "device": table.device,
        "keep_ratio": ratio,
    }


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
