"""What a checkpoint is, read off its files, its config and the names of its tensors.

Supported are single-label classifiers of a sequence. What is something else is refused by what it is, before anything
reads its head as a classifier's; a body without a head is let through where a fresh head is asked for.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError, safe_open

from anatomy_export.core.errors import AnatomyError
from anatomy_export.models.family import Family

SINGLE_LABEL = (None, "single_label_classification")
WHAT_IT_IS = {
    "multi_label_classification": "a multi-label classifier, one sigmoid a label",
    "regression": "a regression model, one score and no classes",
}
BODIES = (
    transformers.MODEL_MAPPING,
    transformers.MODEL_FOR_PRETRAINING_MAPPING,
    transformers.MODEL_FOR_CAUSAL_LM_MAPPING,
    transformers.MODEL_FOR_MASKED_LM_MAPPING,
    transformers.MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING,
)
HARMLESS_EXTRA = re.compile(
    r"position_ids$|\.attn\.(masked_)?bias$|embeddings\.token_type_ids$|^roberta\.pooler\.dense\.(weight|bias)$"
)
WEIGHT_FILES = re.compile(r"model(-\d+-of-\d+)?\.safetensors|pytorch_model(-\d+-of-\d+)?\.bin")
OTHER_HEADS = ("classifier.", "score.", "qa_outputs.", "multiple_choice_head.")
FLOATS = ("F64", "F32", "F16", "BF16", "torch.float64", "torch.float32", "torch.float16", "torch.bfloat16")
ADAPTER = "adapter_config.json"
SENTENCE_TRANSFORMERS = "modules.json"
SAVE_AGAIN = "and save it with save_pretrained"
WRAPPED = (
    (r"lora_[AB]\.|\.base_layer\.", "LoRA, not merged into the weights", f"merge it (merge_and_unload()) {SAVE_AGAIN}"),
    (r"^(module\.)?_orig_mod\.", "torch.compile", f"take the model's _orig_mod {SAVE_AGAIN}"),
    (r"^module\.", "DataParallel", f"take the model's module {SAVE_AGAIN}"),
    (
        r"_(orig|mask)$",
        "torch.nn.utils.prune",
        f"make its masks permanent (torch.nn.utils.prune.remove) {SAVE_AGAIN}",
    ),
    (
        r"parametrizations\.|\.weight_[gv]$",
        "torch.nn.utils.parametrize",
        f"remove the parametrizations (remove_parametrizations) {SAVE_AGAIN}",
    ),
    (
        r"\.(SCB|qweight|qzeros|scales|weight_scale|weight\.(absmax|quant_map|_data|_scale))$",
        "a quantised model",
        "pass the float32 checkpoint that it was made from",
    ),
)


def has_file(source: str, name: str) -> bool:
    """Does a checkpoint directory, or a hub id, hold a file of that name?"""
    path = Path(source)
    if path.is_dir():
        return (path / name).is_file()
    try:
        return transformers.utils.cached_file(source, name) is not None
    except (OSError, ValueError):
        return False


def refuse_adapter(source: str) -> None:
    """Raise AnatomyError for a PEFT adapter: transformers would load the base model that it names, or ignore it."""
    if has_file(source, ADAPTER):
        raise AnatomyError(
            f"model {source}: this is a PEFT adapter ({ADAPTER}), not a whole model; next step: load it with peft, "
            f"merge it into its base (merge_and_unload()) {SAVE_AGAIN}, tokenizer included; "
            f"where that is done, remove {ADAPTER}"
        )


def require_checkpoint(source: str) -> None:
    """Raise AnatomyError for a path that is no directory, and for what is there but no checkpoint of a whole model."""
    path = Path(source)
    looks_like_path = path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1
    if looks_like_path and not path.is_dir():
        raise AnatomyError(f"model {source}: no such directory; next step: check the path")
    refuse_adapter(source)
    if not path.is_dir():
        return
    if not (path / "config.json").is_file():
        state = "is empty" if not any(path.iterdir()) else "has no config.json, so it is no transformers checkpoint"
        raise AnatomyError(f"model {source}: the directory {state}; next step: pass a directory saved by transformers")
    if not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")) and any(path.glob("*.onnx")):
        raise AnatomyError(
            f"model {source}: the directory holds ONNX and no model.safetensors; next step: cut the .onnx itself with "
            "anatomy slice-onnx, or pass the checkpoint that it was exported from"
        )


def check_config(source: str, config, family: Family) -> None:
    """Raise AnatomyError for a feature that transformers ignores by now, or that is no plain float classifier's."""
    causal = family.rule == "bert" and getattr(config, "is_decoder", False)
    position = getattr(config, "position_embedding_type", None) or "absolute"
    asked = {
        "auto_map": (getattr(config, "auto_map", None), "Python code of its own"),
        "quantization_config": (getattr(config, "quantization_config", None), "quantised weights"),
        "position_embedding_type": (None if position == "absolute" else position, "positions that are not absolute"),
        "pruned_heads": (getattr(config, "pruned_heads", None), "attention without some of its heads"),
        "is_decoder": (causal, "causal attention"),
        "add_cross_attention": (getattr(config, "add_cross_attention", False), "cross-attention"),
    }
    for name, (value, meaning) in asked.items():
        if value:
            raise AnatomyError(
                f"model {source}: its config asks for {meaning} ({name}: {str(value)[:60]}), which is not supported; "
                f"next step: {_instead(name)}"
            )
    _check_classes(source, config)


def _instead(name: str) -> str:
    if name == "quantization_config":
        return "pass the float32 checkpoint that it was made from"
    return f"pass a plain checkpoint, made without {name}"


def _check_classes(source: str, config) -> None:
    numbers = sorted(config.id2label or {}, key=str)
    if set(numbers) != set(range(config.num_labels)):
        raise AnatomyError(
            f"model {source}: id2label in its config numbers the classes {', '.join(map(str, numbers[:5]))}, expected "
            f"0–{config.num_labels - 1}; next step: correct id2label and label2id"
        )


def check_task(source: str, config, *, fresh_head: bool) -> None:
    """Raise AnatomyError unless its config says that a checkpoint is a single-label classifier, or says nothing.

    Args:
        fresh_head: the head may be missing; a body or language model is then let through.
    """
    _check_problem(source, config)
    name = _architecture(source, config)
    if name == classifier_name(config):
        return
    body = name is None or name in _body_names(config)
    if body and fresh_head:
        return
    if has_file(source, SENTENCE_TRANSFORMERS):
        raise AnatomyError(
            f"model {source}: this is a sentence-transformers embedding model ({SENTENCE_TRANSFORMERS}), not a "
            f"classifier, and {_supported(config)}; next step: fine-tune it into one (anatomy finetune)"
        )
    if name is None:
        return
    if body:
        raise no_head(source, f"this is {name}")
    raise AnatomyError(
        f"model {source}: this is {name}, and {_supported(config)}; next step: pass such a model, or save the body of "
        "this one alone (model.base_model.save_pretrained) and fine-tune that (anatomy finetune)"
    )


def check_head(source: str, config, missing: Collection[str], unexpected: Iterable[str], head: Sequence[str]) -> None:
    """Raise AnatomyError where the file holds the head of another task.

    Args:
        missing: tensors of the classifier that the file lacks.
        unexpected: tensors of the file that the classifier has not.
        head: the classifier's tensors that come after the body; the pooler, which the body holds, is none of them.
    """
    there = [name for name in head if name not in missing]
    lacking = sorted(missing)
    other = sorted(name for name in unexpected if name.startswith(OTHER_HEADS))
    if missing and (there or other):
        raise AnatomyError(
            f"model {source}: {(there or other)[0]} is of another head than a {classifier_name(config)}'s, which has "
            f"{lacking[0]}: most likely it labels tokens or answers questions, and {_supported(config)}; "
            "next step: pass such a model, or save the body alone (model.base_model.save_pretrained) and fine-tune that"
        )


def require_classes(source: str, config) -> None:
    """Raise AnatomyError for a head that gives a single score."""
    if config.num_labels == 1:
        raise _not_single_label(source, "regression", "num_labels is 1")


def require_classifier(model) -> None:
    """Raise AnatomyError unless a torch model in memory is a single-label classifier of its family."""
    config, name = model.config, type(model).__name__
    if not isinstance(model, _classifier(config)):
        raise AnatomyError(f"model is {name}, and {_supported(config)}; next step: pass such a model")
    _check_problem(name, config)
    require_classes(name, config)


def refuse_wrapped_names(source: str, missing: Collection[str], unexpected: Iterable[str]) -> None:
    """Raise AnatomyError where the tensors have the names that a wrapper around the model gives them.

    Args:
        missing: tensors of the model's body that the file lacks.
        unexpected: tensors of the file that the model has not.
    """
    for name in sorted(unexpected):
        for pattern, wrapper, hint in WRAPPED:
            if re.search(pattern, name):
                raise AnatomyError(
                    f"model {source}: tensor {name} is named as {wrapper} does it, not as transformers saves a model; "
                    f"next step: {hint}"
                )
        prefix = next((name.removesuffix(known) for known in missing if name.endswith(f".{known}")), None)
        if prefix is not None:
            raise AnatomyError(
                f"model {source}: every tensor has the prefix '{prefix}' (as {name}); next step: load the weights "
                f"without it {SAVE_AGAIN}"
            )


def check_stored_types(source: str) -> None:
    """Raise AnatomyError for a weight that a directory stores as integers or in eight bits.

    Its scale is lost where it is read as plain numbers.
    """
    for name, kind in _stored_types(source).items():
        if kind not in FLOATS and not HARMLESS_EXTRA.search(name):
            raise AnatomyError(
                f"model {source}: tensor {name} is stored as {kind}, expected float weights: this is a quantised "
                "model; next step: pass the float32 checkpoint that it was made from"
            )


def _stored_types(source: str) -> dict[str, str]:
    """The type of every tensor in a directory's weights, as they name it.

    A file that cannot be read is left out: loading it says what is wrong.
    """
    path = Path(source)
    files = sorted(file for file in path.iterdir() if WEIGHT_FILES.fullmatch(file.name)) if path.is_dir() else []
    safe = [file for file in files if file.suffix == ".safetensors"]
    types: dict[str, str] = {}
    for file in safe:
        with suppress(OSError, SafetensorError), safe_open(file, "pt") as tensors:
            types |= {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    for file in () if safe else files:
        with suppress(Exception):
            tensors = torch.load(file, map_location="meta", weights_only=True)
            types |= {name: str(tensor.dtype) for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)}
    return types


def no_head(source: str, what: str) -> AnatomyError:
    """The error for a model without the head that classifies; `what` says how that was seen."""
    return AnatomyError(
        f"model {source}: no classification head in the checkpoint ({what}); next step: fine-tune it "
        "(anatomy finetune), or export with a random head by --allow-random-head"
    )


def classifier_name(config) -> str:
    """Name of the transformers class that classifies a sequence with this config."""
    return _classifier(config).__name__


def _classifier(config) -> type:
    return transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[transformers.CONFIG_MAPPING[config.model_type]]


def _architecture(source: str, config) -> str | None:
    """The class that the config says was saved; None where it does not say."""
    names = config.architectures
    if not names:
        return None
    name = names[0] if isinstance(names, list | tuple) else names
    if not isinstance(name, str):
        raise AnatomyError(
            f"model {source}: architectures in its config is {names!r}, expected a list of one class name; "
            "next step: restore the config.json that the model was saved with"
        )
    return name.removeprefix("TF").removeprefix("Flax")


def _body_names(config) -> set[str]:
    return {mapping[type(config)].__name__ for mapping in BODIES if type(config) in mapping}


def _supported(config) -> str:
    return f"supported is {classifier_name(config)} with one label a text"


def _check_problem(source: str, config) -> None:
    if config.problem_type not in SINGLE_LABEL:
        raise _not_single_label(source, config.problem_type, f"problem_type in its config is {config.problem_type}")


def _not_single_label(source: str, problem: str, seen: str) -> AnatomyError:
    what = WHAT_IT_IS.get(str(problem), f"for the problem '{problem}'")
    return AnatomyError(
        f"model {source}: this is {what} ({seen}); supported are single-label classifiers, whose logits a softmax "
        "turns into probabilities; next step: pass or train such a model"
    )
