"""Time and memory of choosing and repairing bert-base: calibrate, plan, compensate, on 512 sentences of 128 tokens.

Run `.venv/bin/python benchmarks/calibration_cost.py`. Writes calibration-cost.json beside this file.
"""

from itertools import cycle
from pathlib import Path

import torch
from summarize import write_json

from anatomy_export.bench.environment import describe_environment
from anatomy_export.calibration.batches import calibration_batches
from anatomy_export.core.platform import usable_cores
from anatomy_export.core.progress import Progress
from anatomy_export.criteria.registry import Context
from anatomy_export.criteria.scoring_pass import measure
from anatomy_export.data.loading import movie_reviews
from anatomy_export.models.checkpoint import load_checkpoint
from anatomy_export.models.supported_families import model_blocks
from anatomy_export.planning.plan_maker import choose_widths, kept_neurons
from anatomy_export.repair.refit import refit
from anatomy_export.zoo.embedded import resolve_model

SENTENCES, TOKENS, KEEP_RATIO, ALIGN = 512, 128, 0.5, 16
CRITERION = "obs-gradient"


def main() -> None:
    threads = usable_cores()
    torch.set_num_threads(threads)
    progress, environment = Progress(), describe_environment(threads)
    with progress.stage("load"):
        checkpoint = load_checkpoint(resolve_model("bert-base", progress).checkpoint)
        model, blocks = checkpoint.model, model_blocks(checkpoint.model)
        batches = calibration_batches(checkpoint, long_texts(checkpoint.tokenizer), max_length=TOKENS)
    assert {tuple(batch.inputs["input_ids"].shape[1:]) for batch in batches} == {(TOKENS,)}
    with progress.bar("calibrate and rank", len(batches) + len(blocks)) as tick:
        measurement = measure(model, batches, [CRITERION], Context(), tick=tick)
    with progress.stage("plan"):
        widths = choose_widths(measurement, CRITERION, keep_ratio=KEEP_RATIO, align=ALIGN)
        keep = kept_neurons(measurement.scores[CRITERION], widths)
    with progress.bar("compensate", len(blocks)) as tick:
        refit(model, batches, measurement.dense, keep, after_layer=tick)
    body = {
        "environment": environment,
        "settings": {"sentences": SENTENCES, "tokens": TOKENS, "keep_ratio": KEEP_RATIO, "criterion": CRITERION},
        "stages": [
            {"name": stage.name, "seconds": stage.seconds, "peak_rss_bytes": stage.peak_rss_bytes}
            for stage in progress.stages
        ],
    }
    write_json(Path(__file__).with_name("calibration-cost.json"), body)


def long_texts(tokenizer) -> list[str]:
    """Review sentences joined until each text fills `TOKENS` tokens."""
    texts: list[str] = []
    sentences = cycle(movie_reviews().train.texts)
    while len(texts) < SENTENCES:
        text = next(sentences)
        while len(tokenizer(text)["input_ids"]) < TOKENS:
            text = f"{text} {next(sentences)}"
        texts.append(text)
    return texts


if __name__ == "__main__":
    main()
