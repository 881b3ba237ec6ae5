"""Seconds for 1,000 examples of masked models against the dense one (the paper, figures 4-1 and 5-1).

The paper's job is batches of 32 texts padded to 100 tokens. All batches of one shape take the same time, so one of them
is run in interleaved rounds and its median scaled to 1,000 examples.
"""

import copy
import tempfile
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from anatomy_export.bench.engines import EngineSpec
from anatomy_export.bench.measure import ONE_INPUT, measure_one_input
from anatomy_export.bench.rounds import Samples
from anatomy_export.bench.stats import median_interval, paired_ratio
from anatomy_export.core.platform import cpu_model, usable_cores
from anatomy_export.core.progress import Progress
from anatomy_export.evaluation.classifier_inputs import Inputs
from anatomy_export.exporter.torch_to_onnx import export_onnx
from anatomy_export.models.checkpoint import Checkpoint, save_checkpoint, sequence_length
from anatomy_export.models.prune import mask_neurons_
from anatomy_export.plan_files.plan import PrunePlan

EXAMPLES, BATCH, LENGTH = 1000, 32, 100
ROUNDS, GROUP = 20, 4
DENSE = "dense"


def time_masked(
    checkpoint: Checkpoint,
    plans: dict[str, PrunePlan],
    texts: Sequence[str],
    *,
    backend: str = "torch",
    progress: Progress,
) -> Iterator[dict[str, dict]]:
    """The timing of each plan by name, `GROUP` plans at a time, always beside the dense model, whose name is "dense".

    `median_s` and `interval_s` (95 %) are seconds for `EXAMPLES` texts, `times_s` the raw seconds of one batch.
    `dense_ratio` is the dense model's time ÷ this one's, paired round by round: above 1, masking made it faster.

    Args:
        texts: at least one; the first 32 are the batch, repeated where there are fewer.
        backend: "torch" (eager) or "ort".

    Raises:
        AnatomyError: a model could not be timed.
    """
    threads = usable_cores()
    inputs = _inputs(checkpoint, texts)
    names = list(plans)
    for start in range(0, len(names), GROUP):
        with tempfile.TemporaryDirectory() as folder:
            specs = {}
            for name in (DENSE, *names[start : start + GROUP]):
                path = _write_model(checkpoint, plans.get(name), Path(folder) / name, backend)
                specs[name] = EngineSpec(backend, str(path), threads=threads)
            samples = measure_one_input(specs, inputs, rounds=ROUNDS, title="time masked models", progress=progress)
        about = {"engine": backend, "device": f"{cpu_model()}, {threads} threads"}
        yield {name: _timing(samples, name, inputs) | about for name in specs}


def _inputs(checkpoint: Checkpoint, texts: Sequence[str]) -> Inputs:
    """(32, 100) token ids, mask and token types, or as many tokens as the model takes."""
    arrays = checkpoint.tokenizer(
        list(islice(cycle(texts), BATCH)),
        truncation=True,
        padding="max_length",
        max_length=min(LENGTH, sequence_length(checkpoint, None)),
        return_token_type_ids=True,
        return_tensors="np",
    )
    return {name: np.ascontiguousarray(array, dtype=np.int64) for name, array in arrays.items()}


def _write_model(checkpoint: Checkpoint, plan: PrunePlan | None, directory: Path, backend: str) -> Path:
    """A copy of the model, masked where there is a plan, in the form that the backend loads."""
    model = copy.deepcopy(checkpoint.model)
    if plan is not None:
        mask_neurons_(model, plan)
    directory.mkdir()
    masked = Checkpoint(model, checkpoint.tokenizer)
    if backend == "torch":
        save_checkpoint(masked, directory)
    else:
        export_onnx(masked, directory / "model.onnx", metadata={})
    return directory


def _timing(samples: Samples, name: str, inputs: Inputs) -> dict:
    batch, length = inputs["input_ids"].shape
    scale = EXAMPLES / batch
    times = samples.times(name, ONE_INPUT)
    ratio = paired_ratio(*samples.paired(DENSE, name, ONE_INPUT)[:2])
    bounds = median_interval(times)
    return {
        "median_s": float(np.median(times)) * scale,
        "interval_s": None if bounds is None else [scale * bound for bound in bounds],
        "examples": EXAMPLES,
        "batch": batch,
        "seq_len": length,
        "dense_ratio": ratio.median,
        "dense_ratio_interval": ratio.bounds,
        "times_s": times,
    }
