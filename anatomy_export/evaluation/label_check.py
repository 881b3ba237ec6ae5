"""Do labels and model belong together? A trained model is right more often than whoever always names one class, and
with its classes in the order that it was trained with."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from anatomy_export.core.errors import AnatomyError, MissingExtraError
from anatomy_export.core.names import first_names
from anatomy_export.core.progress import Progress
from anatomy_export.data.labels import is_generic
from anatomy_export.data.loading import SPLIT_SEED, Dataset, Examples
from anatomy_export.evaluation.torch_classifier import predict_classes
from anatomy_export.models.checkpoint import Checkpoint

FEWEST_TEXTS, FIRST_TEXTS, MOST_TEXTS = 30, 64, 1024
FEWEST_OF_OTHERS = 5
STANDARD_ERRORS = 3.0
BETTER_BY = 0.1
CLASSES_SHOWN = 6


@dataclass(frozen=True)
class LabelFit:
    """How labels fit predictions on `texts` texts: shares that are right, of the predictions as they are, of naming
    the most frequent class, and of the predictions with the classes in `order` (class of each output).

    `above_chance`: how far the predictions are right more often than if they were shuffled, in standard errors.
    """

    texts: int
    accuracy: float
    above_chance: float
    majority: int
    majority_share: float
    order: tuple[int, ...]
    order_accuracy: float

    @property
    def lead(self) -> float:
        """Accuracy above the most frequent class's share, in standard errors of that share."""
        error = sqrt(self.majority_share * (1 - self.majority_share) / self.texts)
        return (self.accuracy - self.majority_share) / error if error else 0.0

    @property
    def related(self) -> bool:
        """Where most texts are of one class: do the predictions clearly tell something of the labels?"""
        return self.above_chance > STANDARD_ERRORS and self.accuracy > 1 - self.majority_share

    @property
    def reordered(self) -> bool:
        """Does another order of the classes fit much better?"""
        return self.order != tuple(range(len(self.order)))

    @property
    def good(self) -> bool:
        """Is the model clearly right more often than the most frequent class, as its classes stand?"""
        return self.lead > STANDARD_ERRORS and not self.reordered

    @property
    def no_better(self) -> bool:
        """Is it right no more often than the most frequent class?"""
        return self.accuracy <= self.majority_share and self.accuracy < 1

    @property
    def bad(self) -> bool:
        """Can the labels not be the model's? Few texts, or few of any but the most frequent class, must say so clearly.

        A model that finds a rare class may be right less often than one that never names it.
        """
        others = self.texts * (1 - self.majority_share)
        clearly = (self.texts >= FEWEST_TEXTS and others >= FEWEST_OF_OTHERS) or self.lead < -STANDARD_ERRORS
        return self.reordered or (self.no_better and clearly and not self.related)

    @property
    def hardly_better(self) -> bool:
        """Do texts enough leave it open whether it is right more often?"""
        return not self.no_better and self.lead <= STANDARD_ERRORS and self.texts >= FEWEST_TEXTS and self.accuracy < 1


def check_dense_accuracy(
    checkpoint: Checkpoint, data: Dataset, *, max_length: int, allowed: bool, progress: Progress
) -> None:
    """Judge the dense model on texts of train and validation, as few as tell, at most `MOST_TEXTS`.

    Raises:
        AnatomyError: the labels do not fit the model, unless that is `allowed`: then a note.
    """
    sample = _sample(data)
    if not len(sample):
        return
    predicted: list[int] = []
    with progress.stage("check labels against the model"):
        while True:
            count = min(max(FIRST_TEXTS, 2 * len(predicted)), len(sample))
            predicted += predict_classes(checkpoint, sample.texts[len(predicted) : count], max_length)
            fit = label_fit(predicted, sample.labels[:count], checkpoint.model.config.num_labels)
            if fit.good or count == len(sample):
                break
    if not (fit.reordered or fit.no_better or fit.hardly_better):
        return
    what = _complaint(fit, data, checkpoint.model.config.num_labels)
    if fit.bad and not allowed:
        raise AnatomyError(
            f"{what}; next step: check --label-column, --text-column and the order of the classes, or go on with "
            "--allow-bad-labels"
        )
    too_few = "" if fit.bad or fit.hardly_better or fit.related else ": too few texts to tell"
    progress.note(f"note: {what}{too_few}")


def _sample(data: Dataset) -> Examples:
    """Train and validation texts in seeded order; where there are none those of test."""
    texts, labels = data.train.texts + data.validation.texts, data.train.labels + data.validation.labels
    known = Examples(texts, labels) if texts else data.test
    order = list(range(len(known)))
    random.Random(SPLIT_SEED).shuffle(order)
    return known.take(order[:MOST_TEXTS])


def label_fit(predicted: Sequence[int], labels: Sequence[int], num_labels: int) -> LabelFit:
    """Another order of the classes is found on every other text and judged on the rest, so that it fits no chance.

    Args:
        predicted, labels: (texts,) class numbers, at least one.
    """
    guesses, truth = np.array(predicted), np.array(labels)
    counts = np.bincount(truth, minlength=num_labels)
    majority, right = int(counts.argmax()), guesses == truth
    accuracy, share = float(right.mean()), float(counts.max() / len(truth))
    above_chance = _above_chance(np.bincount(guesses, minlength=num_labels), counts, accuracy)
    order = best_order(guesses[::2], truth[::2], num_labels)
    gained = (order[guesses[1::2]] == truth[1::2]).astype(int) - right[1::2]
    changed = np.abs(gained).sum()
    if not changed or gained.mean() <= BETTER_BY or gained.sum() <= STANDARD_ERRORS * sqrt(changed):
        order = np.arange(num_labels)
    else:
        order = best_order(guesses, truth, num_labels)
    reordered = float((order[guesses] == truth).mean())
    return LabelFit(len(truth), accuracy, above_chance, majority, share, tuple(order.tolist()), reordered)


def _above_chance(predicted: np.ndarray, labels: np.ndarray, accuracy: float) -> float:
    """`accuracy` above that of shuffled predictions, in standard errors, by how often each class is predicted and is
    right, both (num_labels,) (Hoeffding, A Combinatorial Central Limit Theorem, 1951)."""
    count = labels.sum()
    chance = predicted @ labels / count**2
    centred = np.eye(len(labels)) - labels[:, None] / count - predicted / count + chance
    squares = predicted @ centred**2 @ labels
    return (accuracy - chance) / sqrt(squares / count**2 / max(count - 1, 1)) if squares > 1e-9 else 0.0


def best_order(predicted: np.ndarray, labels: np.ndarray, num_labels: int) -> np.ndarray:
    """(num_labels,) the class to take each output for so that most of (texts,) `predicted` are right; outputs that no
    text tells of stay."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingExtraError("scipy", "cpu") from error
    counts = np.eye(num_labels) / (2 * num_labels)  # less than one text in all
    np.add.at(counts, (predicted, labels), 1)
    return linear_sum_assignment(counts, maximize=True)[1]


def _complaint(fit: LabelFit, data: Dataset, num_labels: int) -> str:
    names = data.label_names if len(data.label_names) == num_labels else [str(index) for index in range(num_labels)]
    if is_generic(names):
        names = [str(index) for index in range(num_labels)]
    right = f"the dense model is right on {fit.accuracy:.1%} of {fit.texts:,} texts"
    if not fit.reordered:
        more = "hardly more" if fit.hardly_better else "no more"
        majority = f"class {names[fit.majority]} ({fit.majority_share:.1%})"
        return f"data {data.name}: {right}, {more} than by always naming {majority}"
    moved = [(names[index], names[other]) for index, other in enumerate(fit.order) if index != other]
    shown = first_names([f"label {label} is its {output}" for output, label in moved], CLASSES_SHOWN)
    return f"data {data.name}: {right}, and on {fit.order_accuracy:.1%} with the classes in another order: {shown}"
