"""`anatomy slice-onnx` on what each exporter writes: the widths that are cut, and the error against the torch route.

Run `.venv/bin/python benchmarks/surgery.py`, then `.venv-optimum/bin/python benchmarks/surgery.py` for optimum's
exporters: each adds what its environment can write to surgery.json beside this file. The embedded models lose 70 % of
their FFN neurons, unequal widths and repaired weights; the other families are the tests' small seeded ones.
"""

import importlib.metadata
import json
import sys
import tempfile
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import transformers
from summarize import write_json

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.data.loading import movie_reviews
from anatomy_export.data.probes import BUILT_IN_PROBES
from anatomy_export.evaluation.comparison import verification_batches
from anatomy_export.evaluation.onnx_classifier import OnnxClassifier
from anatomy_export.evaluation.torch_classifier import torch_forward
from anatomy_export.jobs.slice_onnx import SliceRequest, run_slice
from anatomy_export.models.checkpoint import Checkpoint, load_checkpoint
from anatomy_export.models.prune import slice_neurons
from anatomy_export.plan_files.plan import PrunePlan
from anatomy_export.plan_files.repair_file import Repair
from anatomy_export.planning.sweep import Pruned, PruneSpec, prune_each
from anatomy_export.zoo.embedded import resolve_model

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "surgery"))
from test_onnx_surgery_exports import EXPORTERS, FAMILY_NAMES, KEEP, plan_for, repair_for, sensitive_checkpoint

OUTPUT = Path(__file__).with_suffix(".json")
EMBEDDED = ("bert", "gpt2")
SPEC = PruneSpec("obs-gradient", "sensitivity", "auto", 0.7)
ALIGN, MAX_LENGTH = 16, 32


@dataclass(frozen=True)
class Case:
    """A model, and what is done to it."""

    name: str
    checkpoint: Checkpoint
    plan: PrunePlan
    repair: Repair


def main() -> None:
    progress = Progress()
    cuts = json.loads(OUTPUT.read_text(encoding="utf-8")) if OUTPUT.exists() else {}
    for case in cases(progress):
        for exporter in EXPORTERS:
            if "optimum" in exporter and find_spec("optimum") is None:
                continue
            if case.name.startswith("gpt2") and exporter.startswith("torchscript") and transformers.__version__ < "5":
                continue  # TorchScript cannot trace its mask there
            key = f"{case.name}/{exporter}"
            if key not in cuts:
                with tempfile.TemporaryDirectory() as folder:
                    cuts[key] = measure(case, exporter, Path(folder), progress)
                print(key, f"{cuts[key]['max_abs_error']:.1e}", flush=True)
                write_json(OUTPUT, cuts)


def cases(progress: Progress):
    for name in EMBEDDED:
        checkpoint = load_checkpoint(resolve_model(name, progress).checkpoint)
        (pruned,) = prune_each(
            checkpoint, movie_reviews().train, [SPEC], seed=0, examples=512, max_length=128, align=ALIGN
        )
        if not isinstance(pruned, Pruned) or pruned.repair is None:
            raise AnatomyError(f"{name} was not pruned and repaired")
        yield Case(name, checkpoint, pruned.plan, pruned.repair)
    for family in FAMILY_NAMES:
        checkpoint = sensitive_checkpoint(family)
        plan = plan_for(checkpoint.model, KEEP)
        repair = repair_for(checkpoint.model, plan, 1)
        yield Case(f"{family}, small", checkpoint, replace(plan, repair=repair.entry()), repair)


def measure(case: Case, exporter: str, folder: Path, progress: Progress) -> dict:
    """Export, cut by the plan, and compare with the sliced torch model: largest error over the logits of ten texts."""
    checkpoint = Checkpoint(case.checkpoint.model, case.checkpoint.tokenizer)
    with progress.stage(f"export by {exporter}"), torch.no_grad():
        EXPORTERS[exporter](checkpoint, folder / "model.onnx")
    (folder / "plan.json").write_text(case.plan.to_json(), encoding="utf-8")
    case.repair.save(folder)
    cut = run_slice(SliceRequest(folder / "model.onnx", folder / "cut.onnx", folder / "plan.json"), progress)
    batches = verification_batches(checkpoint.tokenizer, BUILT_IN_PROBES, MAX_LENGTH)
    sliced = slice_neurons(checkpoint.model, case.plan, case.repair)
    expected = np.concatenate(list(map(torch_forward(sliced), batches)))
    dense = np.concatenate(list(map(torch_forward(checkpoint.model), batches)))
    classifier = OnnxClassifier(folder / "cut.onnx", checkpoint.tokenizer, MAX_LENGTH)
    logits = np.concatenate(list(map(classifier.run, batches)))
    return {
        "found_as": cut.layers[0].found_as,
        "widths": [layer.width for layer in cut.layers],
        "kept": [layer.kept for layer in cut.layers],
        "max_abs_error": float(np.abs(logits - expected).max()),
        "dense_differs_by": float(np.abs(dense - expected).max()),
        "size_bytes": cut.size_bytes,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "onnxruntime": importlib.metadata.version("onnxruntime-gpu" if "optimum" in sys.prefix else "onnxruntime"),
    }


if __name__ == "__main__":
    main()
