"""The model card: the bundle's README.md, with the metadata that the hub reads."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anatomy_export.core.errors import AnatomyError, first_line
from anatomy_export.core.names import is_local, markdown_text

if TYPE_CHECKING:
    from anatomy_export.bundle.manifest import BundleFacts

TASK = "text-classification"
HUB_DATASETS = {"imdb": "stanfordnlp/imdb"}
RESTATED = ("language", "license", "license_name", "license_link", "base_model")
DIGITS = 6
NOT_OF_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


def card_metadata(facts: "BundleFacts") -> dict[str, Any]:
    """The card's metadata as the hub's `ModelCardData` gives it back: accuracy on test where it was measured.

    A data set is listed by its hub id, where it has one; a user's own file is named in the results alone.
    """
    tags = ["onnx", "pruned", "anatomy-export", *([facts.precision] if facts.precision != "fp32" else [])]
    metadata = {**facts.source_card, "library_name": "onnx", "pipeline_tag": TASK, "tags": tags}
    data, accuracy = facts.provenance.get("data"), facts.result["accuracy"]["pruned"]
    if data is None:
        return metadata
    name = Path(data["name"]).name
    if data["name"] in HUB_DATASETS:
        metadata["datasets"] = [HUB_DATASETS[data["name"]]]
    if accuracy is not None:
        metadata["metrics"] = ["accuracy"]
        metadata["model-index"] = [
            {
                "name": f"{facts.name}, {facts.mode}",
                "results": [
                    {
                        "task": {"type": TASK},
                        "dataset": {"type": HUB_DATASETS.get(name, name), "name": name, "split": "test"},
                        "metrics": [{"type": "accuracy", "value": round(accuracy, DIGITS)}],
                    }
                ],
            }
        ]
    return metadata


def front_matter(metadata: dict[str, Any]) -> str:
    """Metadata as a YAML block; strings, lists and dictionaries as JSON writes them, which YAML contains.

    What YAML takes for a line break or refuses is escaped: JSON writes it as it is.
    """
    lines = [f"{name}: {_yaml_value(value)}" for name, value in metadata.items()]
    return "\n".join(["---", *lines, "---"]) + "\n"


def _yaml_value(value: Any) -> str:
    return NOT_OF_YAML.sub(lambda found: f"\\u{ord(found.group()):04x}", json.dumps(value, ensure_ascii=False))


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
        found = ModelCard.load(file).data.to_dict()
    except Exception as error:
        raise AnatomyError(
            f"model card {file}: its metadata cannot be read ({first_line(error)[:200]}); next step: put it right, or "
            "remove the file"
        ) from error
    card = {name: found[name] for name in RESTATED if found.get(name)}
    if any(is_local(base) for base in _listed(card.get("base_model", ()))):
        del card["base_model"]
    return card


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def model_card(facts: "BundleFacts") -> str:
    """The bundle's README.md: metadata block, what was done, widths, accuracy, size, provenance, how to run it."""
    result, accuracy = facts.result, facts.result["accuracy"]
    labels = ", ".join(map(markdown_text, facts.labels))
    rows = "\n".join(
        f"| {layer} | {width} | {kept} |"
        for layer, (width, kept) in enumerate(zip(facts.widths, facts.kept_widths, strict=True))
    )
    return f"""{front_matter(card_metadata(facts))}
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


def _precision_sentence(facts: "BundleFacts") -> str:
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
