"""The directory that ships: its manifest, its files, its model card."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from anatomy_export.errors import AnatomyError
from anatomy_export.exporter.flops import FlopModel
from anatomy_export.files import sha256_file

FORMAT_VERSION = 1
MANIFEST = "bundle.json"


@dataclass(frozen=True)
class BundleFacts:
    """What the manifest and the model card say beside the files' checksums."""

    name: str
    mode: str
    max_length: int
    labels: tuple[str, ...]
    tolerance: float
    provenance: dict
    result: dict
    dense_flops: FlopModel
    planned_ffn_token: int
    widths: tuple[int, ...]
    kept_widths: tuple[int, ...]
    criterion: str
    reference_ids: tuple[tuple[int, ...], ...]
    reference_logits: np.ndarray


def checkpoint_of(directory) -> Path | str:
    """The checkpoint directory inside a bundle, or the argument itself where it is no bundle.

    Raises:
        AnatomyError: a bundle without a checkpoint.
    """
    path = Path(directory)
    if not (path / MANIFEST).is_file():
        return directory
    if not (path / "checkpoint").is_dir():
        raise AnatomyError(f"bundle {path} holds no checkpoint; next step: export it again with --with-checkpoint")
    return path / "checkpoint"


def read_manifest(directory: Path) -> dict:
    """The manifest of a bundle.

    Raises:
        AnatomyError: there is none, it is damaged, or its format version is unknown.
    """
    file = Path(directory) / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        found = manifest["format_version"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AnatomyError(
            f"{file}: no readable bundle manifest ({type(error).__name__}); next step: export the bundle again"
        ) from error
    if found != FORMAT_VERSION:
        raise AnatomyError(
            f"{file}: format version {found!r}, expected {FORMAT_VERSION}; next step: export the bundle again"
        )
    return manifest


def write_manifest(directory: Path, facts: BundleFacts) -> None:
    """Write `README.md`, then `bundle.json` with the SHA-256 of every file in `directory`."""
    (directory / "README.md").write_text(model_card(facts), encoding="utf-8")
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    manifest = {
        "format_version": FORMAT_VERSION,
        "name": facts.name,
        "mode": facts.mode,
        "max_length": facts.max_length,
        "labels": list(facts.labels),
        "tolerance": facts.tolerance,
        "provenance": facts.provenance,
        "result": facts.result,
        "flops": {"dense": asdict(facts.dense_flops), "planned_ffn_token": facts.planned_ffn_token},
        "files": {path.relative_to(directory).as_posix(): sha256_file(path) for path in files},
        "references": [
            {"input_ids": list(ids), "logits": [float(value) for value in row]}
            for ids, row in zip(facts.reference_ids, facts.reference_logits, strict=True)
        ],
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def model_card(facts: BundleFacts) -> str:
    """The bundle's README.md: metadata block, what was done, widths, accuracy, size, provenance, how to run it."""
    accuracy = facts.result["accuracy"]
    rows = "\n".join(
        f"| {layer} | {width} | {kept} |"
        for layer, (width, kept) in enumerate(zip(facts.widths, facts.kept_widths, strict=True))
    )
    return f"""---
library_name: onnx
pipeline_tag: text-classification
tags:
- onnx
- pruned
- anatomy-export
---

# {facts.name}, {facts.mode}

A text classifier with {len(facts.labels)} classes ({", ".join(facts.labels)}), pruned without training and verified
against torch (tolerance {facts.tolerance:g} absolute). Criterion: {facts.criterion}. Sequences up to
{facts.max_length} tokens.

| | dense | pruned |
|---|---|---|
| FFN neurons | {facts.result["neurons"]["dense"]} | {facts.result["neurons"]["pruned"]} |
| parameters | {facts.result["parameters"]["dense"]} | {facts.result["parameters"]["pruned"]} |
| FLOPs at {facts.max_length} tokens | {facts.result["flops"]["dense"]} | {facts.result["flops"]["pruned"]} |
| file, bytes | {facts.result["size_bytes"]["dense"]} | {facts.result["size_bytes"]["pruned"]} |
| accuracy | {_percent(accuracy["dense"])} | {_percent(accuracy["pruned"])} |

## Neurons a layer

| layer | original | computing |
|---|---|---|
{rows}

## Provenance

```json
{json.dumps(facts.provenance, indent=1)}
```

## Run it

```python
import onnxruntime, tokenizers

tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({facts.max_length})
session = onnxruntime.InferenceSession("model.onnx")
encoding = tokenizer.encode("A sentence.")
values = {{"input_ids": encoding.ids, "attention_mask": encoding.attention_mask, "token_type_ids": encoding.type_ids}}
print(session.run(None, {{i.name: [values[i.name]] for i in session.get_inputs()}})[0])
```
"""


def _percent(fraction: float | None) -> str:
    return "n/a" if fraction is None else f"{fraction:.2%}"
