"""What a T4 could do at best on the paper's job and on one sequence: a roofline, not a measurement. Writes t4.json.

Each FLOP at the card's peak, and the weights of all matrix products read once a batch at its memory bandwidth;
whichever takes longer. Peaks: NVIDIA T4 data sheet (8.1 TFLOP/s fp32, 65 TFLOP/s fp16 tensor cores, 320 GB/s).
"""

import argparse
from pathlib import Path

from summarize import write_json

from anatomy_export.models.flops import FlopModel, ffn_flops_token

PEAK_FLOPS_PER_S = {"fp32": 8.1e12, "fp16": 65e12}
BYTES = {"fp32": 4, "fp16": 2}
BANDWIDTH_BYTES_PER_S = 320e9
LAYERS, HIDDEN, WIDTH = 12, 768, 3072
JOBS = {"paper's job, 1,000 reviews": (32, 100, 1000), "one sequence of 128 tokens": (1, 128, 1)}
REMOVED = (0.0, 0.3, 0.5, 0.7)


def bert_base(removed: float) -> FlopModel:
    """BERT-base with that share of its FFN neurons removed."""
    widths = [round(WIDTH * (1 - removed))] * LAYERS
    projections = 4 * 2 * HIDDEN * HIDDEN * LAYERS
    head = 2 * (HIDDEN * HIDDEN + HIDDEN * 2)
    return FlopModel(ffn_flops_token(widths, HIDDEN), projections, 4 * HIDDEN * LAYERS, head)


def least_seconds(model: FlopModel, precision: str, batch: int, length: int, examples: int) -> float:
    """Lower bound in seconds for `examples` sequences in batches."""
    weights = (model.ffn_token + model.body_token) // 2
    compute = model.total(batch, length) / PEAK_FLOPS_PER_S[precision]
    memory = weights * BYTES[precision] / BANDWIDTH_BYTES_PER_S
    return max(compute, memory) * examples / batch


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rows = [
        {
            "job": job,
            "precision": precision,
            "removed": removed,
            "at_least_s": least_seconds(bert_base(removed), precision, *shape),
        }
        for job, shape in JOBS.items()
        for precision in PEAK_FLOPS_PER_S
        for removed in REMOVED
    ]
    write_json(Path(__file__).with_suffix(".json"), rows)


if __name__ == "__main__":
    main()
