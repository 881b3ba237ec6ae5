"""The latency table of a model on this device: measured through ONNX Runtime once, then cached."""

import hashlib
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import msgspec
import numpy as np

from anatomy_export.bench.engines import EngineSpec
from anatomy_export.bench.environment import cpu_flags, package_versions
from anatomy_export.bench.measure import ONE_INPUT, measure_one_input
from anatomy_export.bench.random_inputs import random_inputs
from anatomy_export.bench.rounds import Samples
from anatomy_export.bench.stats import paired_ratio
from anatomy_export.core.cache import cache_directory, cache_lock
from anatomy_export.core.files import write_atomic
from anatomy_export.core.platform import cpu_model, usable_cores
from anatomy_export.core.progress import Progress
from anatomy_export.exporter.torch_to_onnx import export_onnx
from anatomy_export.models.checkpoint import Checkpoint
from anatomy_export.models.fingerprint import model_fingerprint
from anatomy_export.models.prune import slice_neurons
from anatomy_export.models.supported_families import model_blocks
from anatomy_export.plan_files.plan import LayerPlan, PrunePlan
from anatomy_export.planning.allocation import width_multiple
from anatomy_export.planning.latency_table import LatencyTable

FORMAT_VERSION = 1
SHARES = (0.02, 0.1, 0.25, 0.5, 0.75, 1.0)
ROUNDS, LAUNCHES = 12, 2
DENSE = "1"


def latency_table(checkpoint: Checkpoint, *, batch: int, seq_len: int, progress: Progress) -> LatencyTable:
    """Time of the whole model with `SHARES` of every FFN, batch `batch` of `seq_len` tokens, all interleaved.

    Cached by the model's shape, the input's, the CPU, its threads and the versions.

    Raises:
        AnatomyError: no model could be timed, or the cache cannot be written.
    """
    threads = usable_cores()
    about = {
        "format_version": FORMAT_VERSION,
        "model": _shape(checkpoint.model),
        "input": [batch, seq_len],
        "device": [cpu_model(), cpu_flags(), threads],
        "versions": package_versions(),
        "rounds": [ROUNDS, LAUNCHES, SHARES],
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    file = cache_directory() / "latency" / f"{checkpoint.model.config.model_type}-{batch}x{seq_len}-{digest}.json"
    with cache_lock(file, progress):
        cached = _cached(file)
        if cached is not None:
            return cached
        progress.note(f"timing FFN widths on this device, once (kept in {file.parent})")
        device = f"{cpu_model()}, {threads} threads"
        table = _measure_table(checkpoint, batch, seq_len, threads, device, progress)
        write_atomic(file, json.dumps(asdict(table)) + "\n")
        return table


def _cached(file: Path) -> LatencyTable | None:
    """The table that was measured before; None where there is none, or none that can be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=LatencyTable)
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeError):
        return None


def _shape(model) -> dict:
    """What decides the time of a forward pass."""
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    digest = hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()
    config = model.config
    activation = getattr(config, "hidden_act", None) or getattr(config, "activation_function", None)
    heads = getattr(config, "num_attention_heads", None)
    return {"family": config.model_type, "parameters": digest, "heads": heads, "activation": activation}


def _measure_table(
    checkpoint: Checkpoint, batch: int, seq_len: int, threads: int, device: str, progress: Progress
) -> LatencyTable:
    widths = [block.width for block in model_blocks(checkpoint.model)]
    inputs = random_inputs(checkpoint.model.config.vocab_size, batch, seq_len)
    with tempfile.TemporaryDirectory() as folder:
        specs, shares = {}, {}
        with progress.bar("export FFN widths", len(SHARES)) as tick:
            for share in SHARES:
                kept = _kept(widths, share)
                name = f"{share:g}"
                shares[name] = sum(kept) / sum(widths)
                file = Path(folder) / name / "model.onnx"
                file.parent.mkdir()
                export_onnx(_narrowed(checkpoint, kept), file, metadata={})
                specs[name] = EngineSpec("ort", str(file), threads=threads)
                tick()
        title = "time FFN widths"
        samples = measure_one_input(specs, inputs, rounds=ROUNDS, title=title, progress=progress, launches=LAUNCHES)
    return _table(samples, shares, batch, seq_len, device)


def _table(samples: Samples, shares: dict[str, float], batch: int, seq_len: int, device: str) -> LatencyTable:
    relative = [1 / _speedup(samples, name) for name in shares]
    rising = np.minimum(np.maximum.accumulate(relative), 1.0)
    return LatencyTable(
        shares=tuple(shares.values()),
        relative=tuple(rising.tolist()),
        dense_s=float(np.median(samples.times(DENSE, ONE_INPUT))),
        batch=batch,
        seq_len=seq_len,
        device=device,
    )


def _speedup(samples: Samples, name: str) -> float:
    dense_s, times_s, launches = samples.paired(DENSE, name, ONE_INPUT)
    return paired_ratio(dense_s, times_s, launches=launches).median


def _kept(widths: list[int], share: float) -> list[int]:
    """Widths of that share, rounded up as a plan for this device would be."""
    multiple = width_multiple("auto")
    return [min(width, -(-max(1, round(share * width)) // multiple) * multiple) for width in widths]


def _narrowed(checkpoint: Checkpoint, kept: list[int]) -> Checkpoint:
    """The model with the first neurons of each layer: which ones does not matter for time."""
    blocks = model_blocks(checkpoint.model)
    layers = tuple(
        LayerPlan(block.layer, block.width, tuple(range(count))) for block, count in zip(blocks, kept, strict=True)
    )
    plan = PrunePlan(model_fingerprint(checkpoint.model), layers, "first")
    return Checkpoint(slice_neurons(checkpoint.model, plan), checkpoint.tokenizer)
