"""`bench.json` and what stands beside it: written, read, compared."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anatomy_export.bench.stats import unpaired_ratio
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.json_files import JsonFile

FORMAT_VERSION = 3
MUST_MATCH = (
    "kind",
    *(f"environment.{name}" for name in ("system", "cpu", "cpu_flags", "cpus", "threads", "gpus")),
    *(f"settings.{name}" for name in ("model", "provider", "precision", "target_cpu")),
    "inputs_sha256",
)
MUST_MATCH_WHERE_KNOWN = ("settings.model_fingerprint",)


@dataclass(frozen=True)
class BenchResult:
    """`body` is what `bench.json` holds; `interrupted` the exit code of what cut the run short, None if nothing did."""

    body: dict
    interrupted: int | None = None

    @property
    def results(self) -> list[dict]:
        """One dictionary for each engine, variant and input shape."""
        return self.body["results"]


@dataclass(frozen=True)
class _Rows:
    results: list[dict[str, Any]]


@dataclass(frozen=True)
class _TimedRow:
    """What is compared of a row of `results`."""

    worker: str
    batch: int
    seq_len: int | None
    median_s: float
    times_s: list[float]

    @property
    def identity(self) -> dict:
        return {"worker": self.worker, "batch": self.batch, "seq_len": self.seq_len}


def write_results(body: dict, directory: Path, *, markdown: str, plot: bytes | None) -> None:
    """Write `bench.json`, `bench.md` and, where there is one, `bench.svg` into a directory."""
    (directory / "bench.json").write_text(json.dumps(body, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (directory / "bench.md").write_text(markdown, encoding="utf-8")
    if plot:
        (directory / "bench.svg").write_bytes(plot)


def read_results(path: Path) -> dict:
    """The body of a `bench.json`, or of the directory that holds one.

    Raises:
        AnatomyError: missing, damaged, or of an unknown format version.
    """
    file = path / "bench.json" if path.is_dir() else path
    if not file.is_file():
        raise AnatomyError(f"{file}: no such file; next step: pass what anatomy-bench wrote")
    stored = JsonFile(file, "run it again, or pass what anatomy-bench wrote")
    body = stored.read_object(format_version=FORMAT_VERSION)
    stored.convert(body, _Rows)
    return body


def compare_results(first: dict, second: dict, *, allow_different: bool = False) -> list[dict]:
    """Time in `first` ÷ time in `second`, for everything that both have; above 1, the second is faster.

    A row has no interval where one of the runs is of a single launch: `launches` says of how many each is.

    Raises:
        AnatomyError: another machine, other inputs or precision (unless `allow_different`), or nothing in common.
        MissingExtraError: both are of several launches, and scipy is not installed.
    """
    sides = [(path, _at(first, path), _at(second, path)) for path in (*MUST_MATCH, *MUST_MATCH_WHERE_KNOWN)]
    different = [
        f"{path}: {before!r} against {after!r}"
        for path, before, after in sides
        if before != after and (path in MUST_MATCH or None not in (before, after))
    ]
    if different and not allow_different:
        raise AnatomyError(
            f"these runs are not comparable ({'; '.join(different)}); next step: repeat one of them under the other's "
            "conditions, or compare all the same with --allow-different"
        )
    firsts, seconds = _timed_rows(first), {tuple(row.identity.values()): row for row in _timed_rows(second)}
    pairs = [(row, seconds.get(tuple(row.identity.values()))) for row in firsts]
    rows = [_compared(first, row, second, other) for row, other in pairs if other]
    if not rows:
        raise AnatomyError(
            "the two runs timed nothing in common; next step: compare runs of the same engines and shapes"
        )
    return rows


def _timed_rows(body: dict) -> list[_TimedRow]:
    stored = JsonFile(Path("bench.json"), "compare files written by anatomy-bench", title="a result")
    return stored.convert(body["results"], list[_TimedRow])


def _compared(first: dict, row: _TimedRow, second: dict, other: _TimedRow) -> dict:
    launches = _launches_of(first, row), _launches_of(second, other)
    ratio = unpaired_ratio(row.times_s, other.times_s, reference_launches=launches[0], launches=launches[1])
    return {
        **row.identity,
        "first_median_s": row.median_s,
        "second_median_s": other.median_s,
        "ratio": ratio.median,
        "ratio_interval": ratio.bounds,
        "ratio_void": ratio.bounds is None or ratio.void,
        "launches": [len(set(each)) for each in launches],
    }


def _launches_of(body: dict, row: _TimedRow) -> list[int]:
    """Of each of a row's times, which launch of the worker processes it was in; a worker that failed has fewer."""
    count = len(row.times_s)
    launches = body.get("launches", {}).get(f"{row.batch}x{row.seq_len}", [])
    return launches[:count] if len(launches) >= count else [0] * count


def _at(body: dict, path: str):
    value: object = body
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if path == "environment.gpus" and isinstance(value, list):  # clocks vary from one moment to the next
        return [{name: gpu[name] for name in ("name", "driver_version") if name in gpu} for gpu in value]
    return value
