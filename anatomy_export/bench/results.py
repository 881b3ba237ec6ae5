"""`bench.json` and what stands beside it: read, write, compare."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from anatomy_export.bench.stats import unpaired_ratio
from anatomy_export.core.errors import AnatomyError

FORMAT_VERSION = 3
MUST_MATCH = (
    ("kind",),
    ("environment", "system"),
    ("environment", "cpu"),
    ("environment", "cpu_flags"),
    ("environment", "cpus"),
    ("environment", "threads"),
    ("environment", "gpus"),
    ("settings", "model"),
    ("settings", "provider"),
    ("settings", "precision"),
    ("settings", "target_cpu"),
    ("inputs_sha256",),
)
MUST_MATCH_WHERE_KNOWN = (("settings", "model_fingerprint"),)


@dataclass(frozen=True)
class BenchResult:
    """`body` is what `bench.json` holds; `interrupted` the exit code of what cut the run short, None if nothing did."""

    body: dict
    interrupted: int | None = None

    @property
    def results(self) -> list[dict]:
        """One dictionary for each engine, variant and input shape."""
        return self.body["results"]


def inputs_sha256(inputs: dict) -> str:
    """SHA-256 over the input arrays: key, name, shape and values."""
    digest = hashlib.sha256()
    for key in sorted(inputs):
        for name in sorted(inputs[key]):
            array = inputs[key][name]
            digest.update(f"{key}/{name} {array.shape} {array.dtype}\n".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


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
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        found = body["format_version"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AnatomyError(
            f"{file}: no readable bench result ({type(error).__name__}); next step: run it again"
        ) from error
    if found != FORMAT_VERSION:
        raise AnatomyError(f"{file}: format version {found!r}, expected {FORMAT_VERSION}; next step: run it again")
    if not isinstance(body.get("results"), list):
        raise AnatomyError(f"{file}: no results in it; next step: compare files written by anatomy-bench")
    return body


def compare_results(first: dict, second: dict, *, allow_different: bool = False) -> list[dict]:
    """Time in `first` ÷ time in `second`, for everything that both have; above 1, the second is faster.

    A row has no interval where one of the runs is of a single launch: `launches` says of how many each is.

    Raises:
        AnatomyError: another machine, other inputs or precision (unless `allow_different`), or nothing in common.
    """
    different = [
        f"{'.'.join(path)}: {_at(first, path)!r} against {_at(second, path)!r}"
        for path in (*MUST_MATCH, *MUST_MATCH_WHERE_KNOWN)
        if _at(first, path) != _at(second, path)
        and (path in MUST_MATCH or None not in (_at(first, path), _at(second, path)))
    ]
    if different and not allow_different:
        raise AnatomyError(
            f"these runs are not comparable ({'; '.join(different)}); next step: repeat one of them under the other's "
            "conditions, or compare all the same with --allow-different"
        )
    try:
        rows = _compared_rows(first, second)
    except (KeyError, TypeError) as error:
        raise AnatomyError(f"a result lacks {error}; next step: compare files written by anatomy-bench") from error
    if not rows:
        raise AnatomyError(
            "the two runs timed nothing in common; next step: compare runs of the same engines and shapes"
        )
    return rows


def _compared_rows(first: dict, second: dict) -> list[dict]:
    identity = ("worker", "batch", "seq_len")
    theirs = {tuple(one[name] for name in identity): one for one in second["results"]}
    rows = []
    for one in first["results"]:
        other = theirs.get(tuple(one[name] for name in identity))
        if other:
            launches = _launches_of(first, one), _launches_of(second, other)
            ratio = unpaired_ratio(
                one["times_s"], other["times_s"], reference_launches=launches[0], own_launches=launches[1]
            )
            row = {name: one[name] for name in identity}
            row |= {"first_median_s": one["median_s"], "second_median_s": other["median_s"], "ratio": ratio.median}
            row |= {"ratio_interval": ratio.bounds, "ratio_void": ratio.bounds is None or ratio.void}
            rows.append({**row, "launches": [len(set(each)) for each in launches]})
    return rows


def _launches_of(body: dict, result: dict) -> list[int]:
    """Of each of a result's times, which launch of the worker processes it was in; a worker that failed has fewer."""
    count = len(result["times_s"])
    launches = body.get("launches", {}).get(f"{result['batch']}x{result['seq_len']}", [])
    return launches[:count] if len(launches) >= count else [0] * count


def _at(body: dict, path: tuple[str, ...]):
    value: object = body
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if path[-1] == "gpus" and isinstance(value, list):  # clocks vary from one moment to the next
        return [{name: one[name] for name in ("name", "driver_version") if name in one} for one in value]
    return value
