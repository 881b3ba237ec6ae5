"""Which labelled text a command was asked to read, and how much of it; no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataOptions:
    """Which labelled text, and how much of it. Lengths are in tokens, counts in examples.

    `calibration_examples` None: 1,024, of at most 65,536 tokens in all, where neurons are measured or repaired on them,
    else 32 to verify on. `unlabelled` text is calibrated on, and nothing else. `allow_bad_labels` goes on with labels
    that the dense model's classes do not fit.
    """

    data: str | None = None
    text_column: str = "text"
    label_column: str = "label"
    split_column: str | None = None
    max_length: int | None = None
    eval_examples: int | None = None
    calibration_examples: int | None = None
    unlabelled: bool = False
    allow_bad_labels: bool = False
