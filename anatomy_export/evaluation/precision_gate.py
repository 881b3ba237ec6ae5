"""Another precision than fp32: what is asked for, what it costs, and whether it may ship."""

from dataclasses import dataclass

import numpy as np

from anatomy_export.core.errors import VerifyError
from anatomy_export.core.target_cpu import PORTABLE

DEFAULT_CALIBRATION = "percentile"

DEFAULT_MAX_DROP = 1.0

RANGE_TEXTS = 8


@dataclass(frozen=True)
class Precision:
    """What the weights of the file that ships are. `int8`, `calibration` and `target_cpu` say how; None where they mean
    nothing.

    `max_drop` is in points of accuracy below the fp32 file. `target_cpu` "portable": int8 weights that are right on
    every CPU; "native": on CPUs like this one.
    """

    name: str = "fp32"
    int8: str | None = None
    calibration: str | None = None
    max_drop: float = DEFAULT_MAX_DROP
    target_cpu: str | None = None

    @property
    def converts(self) -> bool:
        """Is the file that ships another than the fp32 one?"""
        return self.name != "fp32"

    @property
    def calibrated(self) -> bool:
        """Is calibration text needed?"""
        return self.int8 == "static"

    @property
    def by_batch(self) -> bool:
        """Do a text's logits depend on the texts that share its batch? Then it is judged one text a call."""
        return self.int8 == "dynamic"


FP32 = Precision()


@dataclass(frozen=True)
class PrecisionGate:
    """What decides whether a conversion ships: accuracies on `texts` validation texts, as fractions.

    `max_drop` is in points below the fp32 file.
    """

    texts: int
    accuracy: float
    accuracy_fp32: float
    max_drop: float

    def raise_for_drop(self, name: str) -> None:
        """Raise VerifyError where the precision `name` is more than `max_drop` points below the fp32 file."""
        drop = 100 * (self.accuracy_fp32 - self.accuracy)
        if drop > self.max_drop + 1e-9:
            raise VerifyError(
                f"{name} loses {drop:.2f} points of accuracy against the fp32 file ({100 * self.accuracy:.2f} % "
                f"against {100 * self.accuracy_fp32:.2f} % on {self.texts} validation texts), at most "
                f"{self.max_drop:g} are allowed; next step: raise --max-precision-drop, or choose another --precision "
                "or --int8"
            )


def precision_gate(
    wanted: Precision, *, classes: np.ndarray, expected: np.ndarray, labels: np.ndarray
) -> PrecisionGate:
    """By the `classes` that the converted file gives to validation texts, and those `expected` of the fp32 file, each
    (texts,)."""
    accuracy, accuracy_fp32 = (float((predicted == labels).mean()) for predicted in (classes, expected))
    return PrecisionGate(len(labels), accuracy, accuracy_fp32, wanted.max_drop)


@dataclass(frozen=True)
class PrecisionReport:
    """The file that ships against the fp32 file that it was made from. Accuracies are fractions, None if not measured.

    `agreement` is the share of `texts` texts, of the test split where there is one, of the same class. `gate` is what
    decided; None where there was no validation text. The fp32 file was compared with torch before.
    """

    name: str
    conversion: dict
    texts: int
    agreement: float
    accuracy: float | None
    accuracy_fp32: float | None
    max_drop: float
    size_bytes: int
    size_bytes_fp32: int
    gate: PrecisionGate | None = None
    judged_by: str = "accuracy, not equality; the comparisons are those of the fp32 file, before conversion"

    def raise_for_drop(self) -> None:
        """Raise VerifyError where the gate does not let it ship."""
        if self.gate is not None:
            self.gate.raise_for_drop(self.name)


def precision_report(
    wanted: Precision,
    conversion: dict,
    *,
    classes: np.ndarray,
    expected: np.ndarray,
    labels: np.ndarray | None,
    size_bytes: int,
    size_bytes_fp32: int,
    gate: PrecisionGate | None = None,
) -> PrecisionReport:
    """What a conversion costs, by the `classes` that the converted file gives to texts, each (texts,).

    Args:
        expected: the classes by the fp32 file. labels: the right ones, None where they are not known.
        gate: what decided whether it ships.
    """
    return PrecisionReport(
        name=wanted.name,
        conversion=conversion,
        texts=len(classes),
        agreement=float((classes == expected).mean()),
        accuracy=None if labels is None else float((classes == labels).mean()),
        accuracy_fp32=None if labels is None else float((expected == labels).mean()),
        max_drop=wanted.max_drop,
        size_bytes=size_bytes,
        size_bytes_fp32=size_bytes_fp32,
        gate=gate,
    )


def chosen_precision(
    name: str = "fp32",
    *,
    int8: str | None = None,
    calibration: str | None = None,
    max_drop: float | None = None,
    target_cpu: str | None = None,
) -> Precision:
    """A `Precision` from what was asked for, defaults filled in: dynamic int8 for any CPU, static by percentiles."""
    if name == "int8":
        int8, target_cpu = int8 or "dynamic", target_cpu or PORTABLE
        calibration = (calibration or DEFAULT_CALIBRATION) if int8 == "static" else None
    return Precision(name, int8, calibration, DEFAULT_MAX_DROP if max_drop is None else max_drop, target_cpu)
