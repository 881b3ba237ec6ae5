"""`anatomy finetune`: a checkpoint and labelled text in, a classifier out."""

from pathlib import Path

import transformers

from anatomy_export.data import load_dataset
from anatomy_export.errors import AnatomyError
from anatomy_export.files import staged_directory
from anatomy_export.models import family_of
from anatomy_export.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from anatomy_export.models.finetune import Recipe, finetune_, torch_accuracy
from anatomy_export.models.zoo import resolve_model
from anatomy_export.progress import Progress


def run_finetune(
    *,
    model: str,
    data: str,
    output: Path,
    recipe: Recipe,
    progress: Progress,
    text_column: str = "text",
    label_column: str = "label",
    split_column: str | None = None,
    force: bool = False,
) -> dict:
    """Fine-tune `model` on `data`, save it to `output`; returns output, accuracy on test (a fraction) and recipe.

    A checkpoint without a classification head gets a fresh one with as many classes as the data has.

    Raises:
        AnatomyError: bad input, or a sequence length that the model does not take.
    """
    with staged_directory(output, force) as staging:
        with progress.stage("load model and data"):
            dataset = load_dataset(data, text_column=text_column, label_column=label_column, split_column=split_column)
            classes = max(dataset.train.labels + dataset.validation.labels + dataset.test.labels) + 1
            source = resolve_model(model, progress)
            checkpoint = load_checkpoint(source.checkpoint, allow_random_head=True)
            if checkpoint.model.config.num_labels < classes:
                raise AnatomyError(
                    f"model {model} has {checkpoint.model.config.num_labels} classes, data {data} has {classes}; "
                    "next step: pass a model with a head of that size"
                )
            limit = family_of(checkpoint.model.config).max_positions(checkpoint.model.config)
            if recipe.max_length > limit:
                raise AnatomyError(f"--max-length is {recipe.max_length}, this model takes at most {limit} tokens")
            _name_labels(checkpoint.model.config, dataset.label_names)
        with progress.stage("fine-tune"):
            finetune_(checkpoint, dataset, recipe, show_progress=progress.console.is_terminal)
        with progress.stage("accuracy on test"):
            accuracy = torch_accuracy(checkpoint, dataset.test, recipe.max_length)
        save_checkpoint(Checkpoint(checkpoint.model, checkpoint.tokenizer), staging)
    return {"output": str(output), "accuracy": accuracy, "recipe": recipe.as_dict()}


def _name_labels(config: transformers.PretrainedConfig, names: tuple[str, ...]) -> None:
    if len(names) == config.num_labels:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: index for index, name in enumerate(names)}
