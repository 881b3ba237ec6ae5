"""The model and the text that a job works on, and whether the two belong together."""

from dataclasses import dataclass

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.data.data_options import DataOptions
from anatomy_export.data.labels import class_names
from anatomy_export.data.loading import Dataset, load_dataset, load_texts
from anatomy_export.evaluation.label_check import check_dense_accuracy
from anatomy_export.models.checkpoint import Checkpoint, load_checkpoint, text_limit
from anatomy_export.zoo.embedded import ModelSource, resolve_model


@dataclass(frozen=True)
class LoadedModel:
    """The model that a job was asked for, and its text, None where there is none.

    `max_length`: tokens that a text is cut off at.
    """

    source: ModelSource
    checkpoint: Checkpoint
    max_length: int
    data: Dataset | None

    @property
    def classes(self) -> tuple[str, ...]:
        """The model's class names; see `class_names`."""
        return model_classes(self.checkpoint, self.source.name)

    def labelled_data(self, command: str, text: str = "labelled text") -> Dataset:
        """The data, for a command that measures accuracy.

        Raises:
            AnatomyError: there is none.
        """
        if self.data is None:
            raise AnatomyError(f"{command} needs {text}; next step: pass --data")
        return self.data


def load_model(
    asked: str, options: DataOptions, progress: Progress, *, allow_random_head: bool = False, trained_for: str = ""
) -> LoadedModel:
    """The model of that name, and its data. `trained_for`: the command that needs a trained one, if it does.

    Raises:
        AnatomyError: the model cannot be loaded, or is not trained; else see `load_source_data`.
    """
    source = resolve_model(asked, progress)
    with progress.stage("load model"):
        checkpoint = load_checkpoint(source.checkpoint, allow_random_head=allow_random_head)
        max_length = text_limit(checkpoint, options.max_length)
    if trained_for and source.random_weights:
        raise AnatomyError(
            f"model {asked} is not trained, {trained_for} needs one that is; next step: pass a fine-tuned --model"
        )
    return LoadedModel(source, checkpoint, max_length, load_source_data(source, checkpoint, options, progress))


def load_source_data(
    source: ModelSource, checkpoint: Checkpoint, options: DataOptions, progress: Progress
) -> Dataset | None:
    """The data that was asked for, else the model's own; None where there is neither. Says how it was read.

    Raises:
        AnatomyError: it cannot be read, a label is no class of the model, or the trained model is right no more often
            than by naming one class, or than with its classes in another order, unless that is allowed.
    """
    names = model_classes(checkpoint, source.name)
    name = options.data or source.default_data
    if name is None:
        return None
    with progress.stage("load data"):
        data = _load(name, names, options)
        if not options.unlabelled:
            data.check_labels(checkpoint.model.config.num_labels)
    for note in data.notes:
        progress.note(f"note: {note}")
    if not (options.unlabelled or source.random_weights or checkpoint.random_head):
        max_length = text_limit(checkpoint, options.max_length)
        allowed = options.allow_bad_labels
        check_dense_accuracy(checkpoint, data, max_length=max_length, allowed=allowed, progress=progress)
    return data


def model_classes(checkpoint: Checkpoint, source: str) -> tuple[str, ...]:
    """The model's class names; see `class_names`."""
    return class_names(checkpoint.model.config.to_dict(), source)


def _load(name: str, names: tuple[str, ...], options: DataOptions) -> Dataset:
    if options.unlabelled:
        return load_texts(name, text_column=options.text_column)
    return load_dataset(
        name,
        text_column=options.text_column,
        label_column=options.label_column,
        split_column=options.split_column,
        class_names=names,
    )
