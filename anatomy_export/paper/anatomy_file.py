"""An anatomy on disk: `anatomy.json` beside `anatomy.npz`, written together and read strictly."""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import write_atomic
from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.paper.anatomy_summary import summarize_anatomy

FORMAT_VERSION = 1
DESCRIPTION, ARRAYS = "anatomy.json", "anatomy.npz"
LAYERS, NEURONS = "layer_similarity", "neuron_similarity"


def write_anatomy(
    anatomy: Anatomy,
    directory: Path,
    *,
    model: str,
    family: str,
    rule: str,
    hidden_size: int,
    tasks: Sequence[str | None] | None = None,
) -> dict:
    """Write both files into `directory`; what `anatomy.json` then says.

    `anatomy.npz` holds `layer_similarity` (P, L + 1) and `neuron_similarity.<l>` (P, n_l), float64.

    Args:
        model: its public name. family, rule: of the model. hidden_size: d.
        tasks: the sub-task of each probe, None where it has none; None alone where none has one.
    """
    known = [None] * len(anatomy.probes) if tasks is None else tasks
    buffer = io.BytesIO()
    neurons = {f"{NEURONS}.{layer}": similarity for layer, similarity in enumerate(anatomy.neuron_similarity)}
    np.savez(buffer, **{LAYERS: anatomy.layer_similarity, **neurons})  # type: ignore[arg-type]
    arrays = buffer.getvalue()
    body = {
        "format_version": FORMAT_VERSION,
        "kind": "anatomy",
        "model": model,
        "family": family,
        "fingerprint": anatomy.fingerprint,
        "rule": rule,
        "widths": anatomy.widths,
        "hidden_size": hidden_size,
        "probes": [{"text": text, "task": task} for text, task in zip(anatomy.probes, known, strict=True)],
        "strong_threshold": anatomy.strong_threshold,
        "arrays_sha256": hashlib.sha256(arrays).hexdigest(),
        "summary": summarize_anatomy(anatomy),
    }
    write_atomic(directory / ARRAYS, arrays)
    write_atomic(directory / DESCRIPTION, json.dumps(body, indent=1, allow_nan=False) + "\n")
    return body


def read_anatomy(directory: Path) -> Anatomy:
    """The anatomy in a directory that `anatomy score` or `anatomy study` wrote.

    Raises:
        AnatomyError: a file is missing or damaged, of another format version, or the two do not belong together.
    """
    directory = Path(directory)
    body = _description(directory / DESCRIPTION)
    try:
        probes = tuple(str(probe["text"]) for probe in body["probes"])
        checksum, widths = body["arrays_sha256"], tuple(body["widths"])
        threshold, fingerprint = float(body["strong_threshold"]), str(body["fingerprint"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(directory / DESCRIPTION, f"{type(error).__name__}: {error}") from error
    layers, neurons = read_arrays(directory / ARRAYS, sha256=checksum, probes=len(probes), widths=widths)
    return Anatomy(layers, neurons, threshold, probes, fingerprint)


def read_arrays(
    file: Path, *, sha256: str, probes: int, widths: Sequence[int], command: str = "anatomy score"
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Layer similarity (P, L + 1) and neuron similarity, (P, n) a layer, of an `anatomy.npz`; all finite.

    Args:
        sha256, probes, widths: of the arrays, as the `anatomy.json` beside it has them.
        command: that wrote the files, for the error.

    Raises:
        AnatomyError: the file is missing or damaged, or not the one that `anatomy.json` describes.
    """
    shapes = {LAYERS: (probes, len(widths) + 1)}
    shapes |= {f"{NEURONS}.{layer}": (probes, width) for layer, width in enumerate(widths)}
    try:
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise _damaged(file, f"its checksum is not the one in {DESCRIPTION}, so damaged or of another run", command)
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: np.asarray(stored[name], dtype=np.float64) for name in shapes}
    except OSError as error:
        raise _damaged(file, str(error.strerror or error), command) from error
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise _damaged(file, f"{type(error).__name__}: {error}", command) from error
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            raise _damaged(
                file,
                f"{name} has shape {arrays[name].shape} or is not finite, expected finite numbers of shape {shape}",
                command,
            )
    layers, *neurons = arrays.values()
    return layers, tuple(neurons)


def _description(file: Path) -> dict:
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _damaged(file, str(error.strerror or error)) from error
    except ValueError as error:
        raise _damaged(file, f"not valid JSON ({error})") from error
    if not isinstance(body, dict) or body.get("kind") != "anatomy":
        raise _damaged(file, "not an anatomy")
    if body.get("format_version") != FORMAT_VERSION:
        raise _damaged(file, f"format version {body.get('format_version')!r}, expected {FORMAT_VERSION}")
    return body


def _damaged(file: Path, what: str, command: str = "anatomy score") -> AnatomyError:
    return AnatomyError(f"{file}: {what}; next step: make it again with {command}")
