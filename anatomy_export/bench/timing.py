"""Interleaved timing of ONNX classifiers by ONNX Runtime on the CPU: equal inputs, equal threads, raw values kept."""

import json
import platform
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from anatomy_export.errors import AnatomyError, MissingExtraError
from anatomy_export.progress import Progress

FORMAT_VERSION = 1
WARMUPS = 3


@dataclass(frozen=True)
class Timing:
    """Raw wall-clock times of one model at one input shape, in seconds; the first model is the one compared with.

    `speedup` is the median over rounds of (first model's time ÷ this one's time in the same round).
    """

    name: str
    path: str
    batch: int
    seq_len: int
    warmup_s: tuple[float, ...]
    times_s: tuple[float, ...]
    median_s: float
    speedup: float


@dataclass(frozen=True)
class BenchResult:
    """Every timing and the environment that it was taken in."""

    environment: dict
    results: tuple[Timing, ...]

    def as_dict(self) -> dict:
        return {"format_version": FORMAT_VERSION, **asdict(self)}


def time_models(
    paths: Sequence[Path],
    *,
    batches: Sequence[int],
    lengths: Sequence[int],
    repeats: int,
    threads: int,
    progress: Progress,
) -> BenchResult:
    """Time each model on the same inputs, one call at a time, in an order shuffled anew every round.

    Args:
        paths: `.onnx` files or bundles; the first is what speed-ups are against.
        batches, lengths: every combination is timed; sequences are unpadded random token ids.
        repeats: rounds a combination, after the warm-ups, which are kept apart.
        threads: intra-op threads of ONNX Runtime.

    Raises:
        AnatomyError: a path is neither a bundle nor an `.onnx` file, or ONNX Runtime refuses it.
    """
    files = [_onnx_file(Path(path)) for path in paths]
    sessions = [_session(file, threads) for file in files]
    results: list[Timing] = []
    for batch in batches:
        for length in lengths:
            with progress.stage(f"time batch {batch}, {length} tokens"):
                warmups, times = _rounds(sessions, batch, length, repeats)
            for index, path in enumerate(paths):
                ratios = [first / own for first, own in zip(times[0], times[index], strict=True)]
                results.append(
                    Timing(
                        name=Path(path).stem,
                        path=str(path),
                        batch=batch,
                        seq_len=length,
                        warmup_s=tuple(warmups[index]),
                        times_s=tuple(times[index]),
                        median_s=statistics.median(times[index]),
                        speedup=statistics.median(ratios),
                    )
                )
    return BenchResult(_environment(threads), tuple(results))


def _onnx_file(path: Path) -> Path:
    file = path / "model.onnx" if path.is_dir() else path
    if not file.is_file():
        raise AnatomyError(f"{path}: neither a bundle nor an .onnx file; next step: make one with anatomy-export")
    return file


def _session(file: Path, threads: int):
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "cpu") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise AnatomyError(f"ONNX Runtime cannot load {file}: {str(error)[:300]}") from error


def _rounds(sessions: list, batch: int, length: int, repeats: int) -> tuple[list[list[float]], list[list[float]]]:
    generator = np.random.default_rng(0)
    ids = generator.integers(1000, 5000, size=(batch, length))
    values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    feeds = [{value.name: values[value.name] for value in session.get_inputs()} for session in sessions]
    warmups: list[list[float]] = [[] for _ in sessions]
    times: list[list[float]] = [[] for _ in sessions]
    order = list(range(len(sessions)))
    shuffle = random.Random(0)
    for round_number in range(WARMUPS + repeats):
        shuffle.shuffle(order)
        for index in order:
            start = time.perf_counter()
            sessions[index].run(None, feeds[index])
            (warmups if round_number < WARMUPS else times)[index].append(time.perf_counter() - start)
    return warmups, times


def _environment(threads: int) -> dict:
    import onnxruntime

    return {
        "engine": "ort",
        "provider": "cpu",
        "precision": "fp32",
        "threads": threads,
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def write_result(result: BenchResult, path: Path) -> None:
    """Write `bench.json`."""
    from anatomy_export.files import write_atomic

    write_atomic(path, json.dumps(result.as_dict(), indent=1) + "\n")
