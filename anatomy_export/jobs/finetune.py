"""`anatomy finetune`: a checkpoint and labelled text in, a classifier out."""

import json
from dataclasses import replace
from pathlib import Path

import transformers

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import staged_directory
from anatomy_export.core.names import public_name
from anatomy_export.core.progress import Progress
from anatomy_export.data.labels import class_names
from anatomy_export.data.loading import Dataset, load_dataset
from anatomy_export.evaluation.torch_classifier import torch_accuracy
from anatomy_export.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, text_limit
from anatomy_export.models.text_lengths import data_lengths
from anatomy_export.zoo.embedded import ModelSource, resolve_model
from anatomy_export.zoo.finetune import Recipe, finetune_

RECORD = "finetune.json"


def run_finetune(
    *,
    model: str,
    data: str,
    output: Path,
    recipe: Recipe,
    progress: Progress,
    max_length: int | None = None,
    text_column: str = "text",
    label_column: str = "label",
    split_column: str | None = None,
    force: bool = False,
) -> dict:
    """Fine-tune `model` on `data`, save it to `output`; returns output, accuracy on test (a fraction) and recipe.

    A checkpoint without a classification head gets a fresh one with as many classes as the data has, by the recipe's
    seed. `max_length` in tokens: None takes what the model and its tokenizer take. `finetune.json` in the
    output records recipe, data and accuracy.

    Raises:
        AnatomyError: bad input, or a sequence length that the model does not take.
    """
    columns = {"text_column": text_column, "label_column": label_column, "split_column": split_column}
    with staged_directory(output, force, marks=(RECORD,)) as staging:
        with progress.stage("load model and data"):
            source = resolve_model(model, progress)
            checkpoint, dataset = _load(source, data, columns, recipe.seed)
            recipe = replace(recipe, max_length=text_limit(checkpoint, max_length))
            _name_labels(checkpoint.model.config, dataset.label_names)
        for note in dataset.notes:
            progress.note(f"note: {note}")
        data_lengths(checkpoint.tokenizer, dataset.splits, recipe.max_length, progress)
        with progress.stage("fine-tune"):
            finetune_(checkpoint, dataset, recipe, show_progress=progress.console.is_terminal)
        with progress.stage("accuracy on test"):
            accuracy = torch_accuracy(checkpoint, dataset.test, recipe.max_length)
        save_checkpoint(checkpoint, staging)
        record = {
            "source": source.provenance,
            "data": public_name(dataset.name),
            "data_sha256": dataset.fingerprint,
            "recipe": recipe.as_dict(),
            "test_accuracy": accuracy,
            "test_examples": len(dataset.test),
        }
        (staging / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return {"output": str(output), "accuracy": accuracy, "recipe": recipe.as_dict()}


def _load(source: ModelSource, data: str, columns: dict, seed: int) -> tuple[Checkpoint, Dataset]:
    """The checkpoint, its head as wide as the data where it has none of its own, and the data."""
    checkpoint = load_checkpoint(source.checkpoint, allow_random_head=True, seed=seed)
    config = checkpoint.model.config
    names = class_names(config.to_dict(), source.name)
    dataset = load_dataset(data, **columns, class_names=names, name_labels=checkpoint.random_head)
    if not len(dataset.train):
        raise AnatomyError(f"data {data}: no row is left for the train split; next step: pass more rows")
    classes = max(2, max(dataset.labels) + 1)
    if checkpoint.random_head and classes != config.num_labels:
        checkpoint = load_checkpoint(source.checkpoint, allow_random_head=True, num_labels=classes, seed=seed)
    dataset.check_labels(checkpoint.model.config.num_labels)
    return checkpoint, dataset


def _name_labels(config: transformers.PretrainedConfig, names: tuple[str, ...]) -> None:
    if len(names) == config.num_labels:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: index for index, name in enumerate(names)}
