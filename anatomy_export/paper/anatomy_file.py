"""An anatomy on disk: `anatomy.json` beside `anatomy.npz`, written together and read strictly."""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import write_atomic
from anatomy_export.core.json_files import JsonFile
from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.paper.anatomy_summary import summarize_anatomy

FORMAT_VERSION = 1
DESCRIPTION, ARRAYS = "anatomy.json", "anatomy.npz"
LAYERS, NEURONS = "layer_similarity", "neuron_similarity"


@dataclass(frozen=True)
class _Described:
    strong_threshold: float
    fingerprint: str


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


def read_anatomy(directory: Path, command: str = "anatomy score") -> Anatomy:
    """The anatomy in a directory that `command`, `anatomy score` or `anatomy study`, wrote; all its numbers are finite.

    Raises:
        AnatomyError: a file is missing or damaged, of another format version, or the two do not belong together.
    """

    def damaged(file: Path, what: str) -> AnatomyError:
        return AnatomyError(f"{file}: {what}; next step: make it again with {command}")

    file = Path(directory) / DESCRIPTION
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(body, dict) or body.get("kind") != "anatomy":
            raise damaged(file, "not an anatomy")
        if body.get("format_version") != FORMAT_VERSION:
            raise damaged(file, f"format version {body.get('format_version')!r}, expected {FORMAT_VERSION}")
        probes = tuple(str(probe["text"]) for probe in body["probes"])
        shapes = {LAYERS: (len(probes), len(body["widths"]) + 1)}
        shapes |= {f"{NEURONS}.{layer}": (len(probes), width) for layer, width in enumerate(body["widths"])}
        file = file.with_name(ARRAYS)
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != body["arrays_sha256"]:
            raise damaged(file, f"its checksum is not the one in {DESCRIPTION}, so damaged or of another run")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: np.asarray(stored[name], dtype=np.float64) for name in shapes}
        for name, shape in shapes.items():
            if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
                what = f"{name} has shape {arrays[name].shape} or is not finite"
                raise damaged(file, f"{what}, expected finite numbers of shape {shape}")
        layers, *neurons = arrays.values()
        described = JsonFile(Path(directory) / DESCRIPTION, f"make it again with {command}").convert(body, _Described)
        return Anatomy(layers, tuple(neurons), described.strong_threshold, probes, described.fingerprint)
    except OSError as error:
        raise damaged(file, str(error.strerror or error)) from error
    except json.JSONDecodeError as error:
        raise damaged(file, f"not valid JSON ({error})") from error
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise damaged(file, f"{type(error).__name__}: {error}") from error
