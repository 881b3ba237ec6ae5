"""An anatomy on disk: `anatomy.json` beside `anatomy.npz`, written together and read strictly."""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    layers: dict[str, Any] = {f"{NEURONS}.{layer}": one for layer, one in enumerate(anatomy.neuron_similarity)}
    np.savez(buffer, **{LAYERS: anatomy.layer_similarity, **layers})
    arrays = buffer.getvalue()
    body = {
        "format_version": FORMAT_VERSION,
        "kind": "anatomy",
        "model": model,
        "family": family,
        "fingerprint": anatomy.fingerprint,
        "rule": rule,
        "widths": [similarity.shape[1] for similarity in anatomy.neuron_similarity],
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
    file = directory / ARRAYS
    try:
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != body["arrays_sha256"]:
            raise _damaged(file, f"its checksum is not the one in {DESCRIPTION}")
        with np.load(io.BytesIO(content)) as arrays:
            layers = arrays[LAYERS]
            neurons = tuple(arrays[f"{NEURONS}.{layer}"] for layer in range(len(body["widths"])))
        probes = tuple(str(probe["text"]) for probe in body["probes"])
        anatomy = Anatomy(layers, neurons, float(body["strong_threshold"]), probes, str(body["fingerprint"]))
    except OSError as error:
        raise _damaged(file, str(error.strerror or error)) from error
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise _damaged(file, f"{type(error).__name__}: {error}") from error
    expected = [(len(probes), len(neurons) + 1), *((len(probes), width) for width in body["widths"])]
    found = [layers.shape, *(one.shape for one in neurons)]
    if found != expected:
        raise _damaged(file, f"its arrays have shapes {found}, expected {expected}")
    return anatomy


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


def _damaged(file: Path, what: str) -> AnatomyError:
    return AnatomyError(f"{file}: {what}; next step: make it again with anatomy score")
