"""Probe sentences: short reviews that a model's anatomy is read from."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.names import first_names
from anatomy_export.data.builtin import sentiment_classes
from anatomy_export.data.labels import is_generic
from anatomy_export.data.loading import Dataset, Examples

FROM_FILE, BUILT_IN, FROM_DATA = "file", "built-in", "data"
COUNT_FROM_DATA = 10
NAMES_SHOWN = 4

# Two for each of the paper's sub-tasks: emotional tone (positive, negative), subjective and objective, acting and plot
# (positive, negative), extremes (negative, positive), sarcasm and irony.
BUILT_IN_PROBES = (
    "I walked out of the cinema smiling and kept humming the score all evening.",
    "Two hours of gloom left me tired, sad and a little angry at everyone involved.",
    "To my taste the second half is warmer and far more personal than the first.",
    "The film runs for 112 minutes, is set in Lisbon and was shot in black and white.",
    "Her quiet, precise performance carries a plot that never wastes a scene.",
    "The leads mumble through a story whose ending anyone can guess by minute ten.",
    "This is without a doubt the worst thing I have ever paid money to see.",
    "A flawless masterpiece, the single best film of the decade.",
    "Oh great, another car chase, because the first nine were clearly not enough.",
    "A comedy about joy that made the whole audience sit there in mournful silence.",
)

BUILT_IN_TASKS = (
    "emotional tone, positive",
    "emotional tone, negative",
    "statement, subjective",
    "statement, objective",
    "acting, positive",
    "plot, negative",
    "extreme, negative",
    "extreme, positive",
    "sarcasm",
    "irony",
)


@dataclass(frozen=True)
class Probes:
    """The sentences and where they come from: a file, the built-in ones, or the model's own data.

    `note` is what the user is to be told of the choice, empty where there was none.
    """

    texts: tuple[str, ...]
    origin: str
    note: str = ""

    @property
    def cut_off(self) -> bool:
        """Are those that are too long for the model cut off, as other texts of the data are? Else they are refused."""
        return self.origin == FROM_DATA


def choose_probes(given: tuple[str, ...] | None, class_names: Sequence[str], data: Dataset | None) -> Probes:
    """Those that were given, else the built-in film reviews, or texts of the data for a model of other classes."""
    if given is not None:
        return Probes(given, FROM_FILE)
    if judges_sentiment(class_names):
        return Probes(BUILT_IN_PROBES, BUILT_IN)
    shown = first_names(class_names, NAMES_SHOWN)
    texts = _spread(data.train) if data is not None else ()
    if texts:
        return Probes(
            texts,
            FROM_DATA,
            f"note: the model's classes ({shown}) are not of film reviews, as the built-in probes are: its anatomy is "
            f"read from {len(texts)} train texts of --data",
        )
    return Probes(
        BUILT_IN_PROBES,
        BUILT_IN,
        f"note: the built-in probes are film reviews, the model's classes are others ({shown}); "
        "next step: pass some of its own texts as --probes",
    )


def judges_sentiment(class_names: Sequence[str]) -> bool:
    """Are the classes negative and positive, or named so that they may be?"""
    return is_generic(class_names) or sentiment_classes(class_names) is not None


def _spread(train: Examples) -> tuple[str, ...]:
    """The first texts of each class in turn, no text twice."""
    by_class: dict[int, list[str]] = {}
    for text, label in zip(train.texts, train.labels or [0] * len(train), strict=True):
        by_class.setdefault(label, []).append(text)
    rounds = zip_longest(*(by_class[label] for label in sorted(by_class)))
    texts = dict.fromkeys(text for one_each in rounds for text in one_each if text is not None)
    return tuple(texts)[:COUNT_FROM_DATA]


def probe_tasks(probes: Sequence[str], class_names: Sequence[str] = ()) -> list[str | None]:
    """The sub-task of each built-in probe; None for other texts, and for a model of other classes."""
    known = dict(zip(BUILT_IN_PROBES, BUILT_IN_TASKS, strict=True)) if judges_sentiment(class_names) else {}
    return [known.get(probe) for probe in probes]


def load_probes(path: str | None) -> tuple[str, ...] | None:
    """One probe a line of a text file; None for no file.

    Raises:
        AnatomyError: the file is missing or holds no text.
    """
    if path is None:
        return None
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnatomyError(f"probes {path}: cannot be read ({error}); next step: pass a UTF-8 text file") from error
    probes = tuple(line.strip() for line in lines if line.strip())
    if not probes:
        raise AnatomyError(f"probes {path}: no sentence in it, expected one a line; next step: write some")
    return probes
