"""The model card: the bundle's README.md, with the metadata that the hub reads."""

import json
from pathlib import Path
from typing import Any

from anatomy_export.bundle.facts import BundleFacts
from anatomy_export.core.errors import AnatomyError, first_line
from anatomy_export.core.names import is_local, markdown_text

TASK = "text-classification"
HUB_DATASETS = {"imdb": "stanfordnlp/imdb"}
RESTATED = ("language", "license", "license_name", "license_link", "base_model")
DIGITS = 6


def card_metadata(facts: BundleFacts):
    """The card's metadata, a `huggingface_hub.ModelCardData`: accuracy on test where it was measured.

    A data set is listed by its hub id, where it has one; a user's own file is named in the results alone. Names are on
    one line, for YAML takes line breaks in them for others.
    """
    from huggingface_hub import EvalResult, ModelCardData

    data, accuracy = facts.provenance.get("data"), facts.result["accuracy"]["pruned"]
    dataset = None if data is None else HUB_DATASETS.get(data["name"])
    results = None
    if data is not None and accuracy is not None:
        name = _one_line(Path(data["name"]).name)
        results = [
            EvalResult(
                task_type=TASK,
                dataset_type=dataset or name,
                dataset_name=name,
                dataset_split="test",
                metric_type="accuracy",
                metric_value=round(accuracy, DIGITS),
            )
        ]
    return ModelCardData(
        **facts.source_card,
        library_name="onnx",
        pipeline_tag=TASK,
        tags=["onnx", "pruned", "anatomy-export", *([facts.precision] if facts.precision != "fp32" else [])],
        datasets=[dataset] if dataset else None,
        metrics=["accuracy"] if results else None,
        model_name=f"{_one_line(facts.name)}, {facts.mode}" if results else None,
        eval_results=results,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def source_card(checkpoint: str) -> dict[str, Any]:
    """What the card of a checkpoint directory states of language, license and base model; of a hub id its name.

    A base model that is a directory, as a trainer writes it, is left out.

    Raises:
        AnatomyError: the directory's README.md has metadata that cannot be read.
    """
    directory = Path(checkpoint)
    if not directory.is_dir():
        return {"base_model": checkpoint}
    file = directory / "README.md"
    if not file.is_file():
        return {}
    from huggingface_hub import ModelCard

    try:
        metadata = ModelCard.load(file).data.to_dict()
    except Exception as error:
        raise AnatomyError(
            f"model card {file}: its metadata cannot be read ({first_line(error)[:200]}); next step: put it right, or "
            "remove the file"
        ) from error
    card = {name: metadata[name] for name in RESTATED if metadata.get(name)}
    if any(is_local(base) for base in _listed(card.get("base_model", ()))):
        del card["base_model"]
    return card


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def model_card(facts: BundleFacts) -> str:
    """The bundle's README.md: metadata block, what was done, widths, accuracy, size, provenance, how to run it."""
    result, accuracy = facts.result, facts.result["accuracy"]
    labels = ", ".join(map(markdown_text, facts.labels))
    rows = "\n".join(
        f"| {layer} | {width} | {kept} |"
        for layer, (width, kept) in enumerate(zip(facts.widths, facts.kept_widths, strict=True))
    )
    return f"""---
{card_metadata(facts).to_yaml()}
---

# {markdown_text(facts.name)}, {facts.mode}

A text classifier with {len(facts.labels)} classes ({labels}), pruned without training and verified
against torch (tolerance {facts.tolerance:g}, times the largest logit where that exceeds 1).
Criterion: {markdown_text(facts.criterion)}. Sequences up to {facts.max_length} tokens. {_precision_sentence(facts)}

| | dense | pruned |
|---|---|---|
| FFN neurons | {result["neurons"]["dense"]} | {result["neurons"]["pruned"]} |
| parameters | {result["parameters"]["dense"]} | {result["parameters"]["pruned"]} |
| FLOPs at {facts.flops_tokens} tokens | {result["flops"]["dense"]} | {result["flops"]["pruned"]} |
| file, bytes | {result["size_bytes"]["dense"]} | {result["size_bytes"]["pruned"]} |
| accuracy | {_percent(accuracy["dense"])} | {_percent(accuracy["pruned"])} |

## Run it

```sh
pip install numpy onnxruntime tokenizers
python classify.py "A sentence."
```

`anatomy verify .` checks every file, the plan and the reference texts on the machine that it runs on.

## Neurons a layer

| layer | original | computing |
|---|---|---|
{rows}

## Provenance

```json
{json.dumps(facts.provenance, indent=1)}
```
"""


def _precision_sentence(facts: BundleFacts) -> str:
    if facts.conversion is None:
        return "Weights are float32."
    how = ", ".join(f"{name} {value}" for name, value in facts.conversion.items() if not isinstance(value, list))
    weights = {
        None: "",
        True: " Its weights have 7 bits, which every CPU computes right.",
        False: " Its weights have 8 bits, whose sums saturate on x86 without VNNI: run it on CPUs with VNNI, or ARM.",
    }[facts.conversion.get("reduce_range")]
    ranges = ""
    if facts.conversion.get("method") == "dynamic":
        ranges = " Ranges of activations are those of a whole call: what shares a batch changes logits a little."
    return (
        f"Then converted to {facts.precision}{f' ({how})' if how else ''}, which is judged by accuracy, not by "
        f"equality: the dense column is float32, the pruned one is the file that is here.{weights}{ranges}"
    )


def _percent(fraction: float | None) -> str:
    return "n/a" if fraction is None else f"{fraction:.2%}"
