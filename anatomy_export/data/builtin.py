"""The data that needs no file: movie reviews from a package, IMDB from the hub; both negative and positive."""

import io
import random
import tarfile
from collections.abc import Sequence
from dataclasses import replace

from anatomy_export.core.errors import AnatomyError, MissingExtraError, first_line
from anatomy_export.core.names import first_names
from anatomy_export.core.packages import fetch_package
from anatomy_export.data.examples import SPLIT_SEED, Dataset, Examples, examples_of
from anatomy_export.data.labels import describe_labels, is_generic

EMBEDDED, IMDB = "movie-reviews", "imdb"
NAMES_SHOWN = 8
CLASSES = ("negative", "positive")
SENTIMENT = {"negative": CLASSES[0], "neg": CLASSES[0], "positive": CLASSES[1], "pos": CLASSES[1]}


def movie_reviews() -> Dataset:
    """10,605 movie-review sentences with mean human ratings (Hutto & Gilbert, ICWSM 2014), from vaderSentiment's sdist.

    The label is the rating's sign; sentences rated within 0.5 of neutral are dropped. 2,000 test, 1,000 validation,
    the rest train, by a seeded shuffle.
    """
    with tarfile.open(fetch_package("vaderSentiment")) as sdist:
        inner = sdist.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as archive:
            member = archive.extractfile("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
            assert member is not None
            lines = member.read().decode("utf-8").splitlines()
    rows = []
    for line in lines:
        _, rating, text = line.split("\t", 2)
        if abs(float(rating)) >= 0.5:
            rows.append((text.strip(), int(float(rating) > 0)))
    random.Random(SPLIT_SEED).shuffle(rows)
    return Dataset(
        EMBEDDED,
        train=examples_of(rows[3000:]),
        validation=examples_of(rows[2000:3000]),
        test=examples_of(rows[:2000]),
        label_names=CLASSES,
    )


def imdb() -> Dataset:
    """IMDB from the hub: 22,500 train, 2,500 validation and 25,000 test reviews.

    Raises:
        AnatomyError: the hub does not answer. MissingExtraError: datasets is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "cpu") from error
    try:
        hub = datasets.load_dataset("stanfordnlp/imdb")
        splits = {part: list(zip(hub[part]["text"], hub[part]["label"], strict=True)) for part in ("train", "test")}
    except Exception as error:
        raise AnatomyError(
            f"data imdb: the hub did not answer ({type(error).__name__}: {first_line(error)}); "
            "next step: check the network, or pass a file to --data"
        ) from error
    train = splits["train"]
    random.Random(SPLIT_SEED).shuffle(train)
    test = splits["test"]
    random.Random(SPLIT_SEED).shuffle(test)
    return Dataset(IMDB, examples_of(train[2500:]), examples_of(train[:2500]), examples_of(test), CLASSES)


def sentiment_classes(names: Sequence[str]) -> dict[int, int] | None:
    """The model's class of negative (0) and positive (1) by its class names; None where they are other classes.

    Names that say nothing, as LABEL_0 and LABEL_1, are taken for these two in this order.
    """
    if is_generic(names):
        return {0: 0, 1: 1} if len(names) in (0, 2) else None
    meant = [SENTIMENT.get(name.lower()) for name in names]
    if any(meant.count(name) != 1 for name in CLASSES):
        return None
    return {index: meant.index(name) for index, name in enumerate(CLASSES)}


def of_classes(data: Dataset, names: Sequence[str]) -> Dataset:
    """Negative and positive texts with the classes of a model that has these class names.

    Raises:
        AnatomyError: its classes are not these.
    """
    classes = sentiment_classes(names)
    if classes is None:
        raise AnatomyError(
            f"data {data.name} has the classes negative and positive, the model has {len(names)}: "
            f"{first_names(names, NAMES_SHOWN)}; next step: pass the model's own text as --data"
        )
    moved = [Examples(part.texts, tuple(classes[label] for label in part.labels)) for part in data.splits]
    shown = CLASSES if is_generic(names) else tuple(names)
    train, validation, test = moved
    made = Dataset(data.name, train, validation, test, shown)
    return replace(made, notes=(describe_labels(made.labels, shown, "by name"),))
