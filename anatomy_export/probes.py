"""Probe sentences: short reviews that a model's anatomy is read from."""

from collections.abc import Sequence
from pathlib import Path

from anatomy_export.errors import AnatomyError

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


def probe_tasks(probes: Sequence[str]) -> list[str | None]:
    """The sub-task of each built-in probe; None for other texts."""
    known = dict(zip(BUILT_IN_PROBES, BUILT_IN_TASKS, strict=True))
    return [known.get(probe) for probe in probes]


def load_probes(path: str | None) -> tuple[str, ...]:
    """The built-in probes, or one probe a line of a text file.

    Raises:
        AnatomyError: the file is missing or holds no text.
    """
    if path is None:
        return BUILT_IN_PROBES
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnatomyError(f"probes {path}: cannot be read ({error}); next step: pass a UTF-8 text file") from error
    probes = tuple(line.strip() for line in lines if line.strip())
    if not probes:
        raise AnatomyError(f"probes {path}: no sentence in it, expected one a line; next step: write some")
    return probes
