"""Does what was exported compute what was planned? Every comparison is made; then all that failed are named at once."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from anatomy_export.core.errors import VerifyError
from anatomy_export.evaluation.classifier_inputs import Forward, Inputs, as_inputs
from anatomy_export.evaluation.precision_gate import PrecisionReport
from anatomy_export.evaluation.tolerance import TOLERANCE, scaled_tolerance

MOST_PADDED = 1024


@dataclass(frozen=True)
class Comparison:
    """Two computations of the same logits on one padded batch.

    `tolerance` is absolute, of these logits (see `scaled_tolerance`). `argmax_agreement` is the share of rows with the
    same class, among those whose margin exceeds twice the tolerance (1.0 where there are none).
    """

    name: str
    shape: tuple[int, int]
    max_abs_error: float
    max_rel_error: float
    tolerance: float
    argmax_agreement: float
    finite: bool

    @property
    def passed(self) -> bool:
        return self.finite and self.max_abs_error <= self.tolerance and self.argmax_agreement == 1.0

    def __str__(self) -> str:
        return (
            f"{self.name} at {self.shape[0]}×{self.shape[1]}: max abs error {self.max_abs_error:.3g} "
            f"(tolerance {self.tolerance:g}), argmax agreement {self.argmax_agreement:.3f}, finite: {self.finite}"
        )


@dataclass(frozen=True)
class VerifyReport:
    """All comparisons, and accuracy (fractions; None where it was not measured), both of the fp32 files.

    `precision`, where another file ships, is how that was judged.
    """

    comparisons: tuple[Comparison, ...]
    accuracy_dense: float | None = None
    accuracy_pruned: float | None = None
    precision: PrecisionReport | None = None

    @property
    def max_abs_error(self) -> float:
        return max(comparison.max_abs_error for comparison in self.comparisons)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    def raise_for_failures(self) -> None:
        """Raise VerifyError that lists every comparison out of tolerance."""
        failed = [comparison for comparison in self.comparisons if not comparison.passed]
        if failed:
            listed = "; ".join(map(str, failed))
            raise VerifyError(f"verification failed in {len(failed)} of {len(self.comparisons)} comparisons: {listed}")


def verification_batches(tokenizer, texts: Sequence[str], max_length: int) -> list[Inputs]:
    """Padded batches of several shapes that hold every text: one alone, a few, more, and one padded to `max_length`
    tokens, or to `MOST_PADDED` where that is less."""
    texts = list(itertools.islice(itertools.cycle(texts), max(12, len(texts))))
    longest = min(max_length, MOST_PADDED)
    long_text = " ".join(texts)
    rest = [texts[start : start + 16] for start in range(12, len(texts), 16)]
    groups = [texts[:1], texts[1:4], texts[4:12], *rest, [texts[0], long_text]]
    batches = []
    for position, group in enumerate(groups):
        padded = position == len(groups) - 1
        encoded = tokenizer(
            group,
            padding="max_length" if padded else True,
            truncation=True,
            max_length=longest if padded else max_length,
        )
        batches.append(as_inputs(encoded))
    return batches


@dataclass(frozen=True)
class VerificationInputs:
    """What every computation is compared on: padded `batches`, and texts `alone`, run one a call without padding."""

    batches: tuple[Inputs, ...]
    alone: tuple[Inputs, ...] = ()

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Texts and tokens of every batch, then of those alone, as `logits` has them."""
        shapes = [batch["input_ids"].shape for batch in self.batches]
        longest = max((text["input_ids"].shape[1] for text in self.alone), default=0)
        return [*shapes, (len(self.alone), longest)] if self.alone else shapes

    def logits(self, forward: Forward) -> list[np.ndarray]:
        """Logits (batch, classes) of every batch, then of those alone together."""
        logits = [forward(batch) for batch in self.batches]
        return [*logits, np.concatenate([forward(text) for text in self.alone])] if self.alone else logits


def compare_all(
    reference_name: str,
    reference: Sequence[np.ndarray],
    others: Mapping[str, Sequence[np.ndarray]],
    shapes: Sequence[tuple[int, int]],
    tolerance: float = TOLERANCE,
) -> tuple[Comparison, ...]:
    """Compare each of `others` with the reference: logits (batch, classes), one array for each of `shapes`."""
    return tuple(
        compare_logits(f"{reference_name} vs {name}", expected, computed, shape, tolerance)
        for name, logits in others.items()
        for shape, expected, computed in zip(shapes, reference, logits, strict=True)
    )


def compare_logits(
    name: str, expected: np.ndarray, computed: np.ndarray, shape: tuple[int, ...], tolerance: float
) -> Comparison:
    """Compare logits (batch, classes) computed for inputs of `shape` (batch, sequence), by `scaled_tolerance`."""
    tolerance = scaled_tolerance(expected, tolerance)
    with np.errstate(invalid="ignore"):
        error = np.abs(expected - computed)
    finite = bool(np.isfinite(expected).all() and np.isfinite(computed).all())
    ranked = np.sort(expected, axis=-1)
    clear = ranked[:, -1] - ranked[:, -2] > 2 * tolerance if expected.shape[-1] > 1 else np.zeros(len(expected), bool)
    same = expected.argmax(-1) == computed.argmax(-1)
    return Comparison(
        name=name,
        shape=(int(shape[0]), int(shape[1])),
        max_abs_error=float(error.max()) if finite else float("inf"),
        max_rel_error=float((error / np.maximum(np.abs(expected), 1e-6)).max()) if finite else float("inf"),
        tolerance=tolerance,
        argmax_agreement=float(same[clear].mean()) if clear.any() else 1.0,
        finite=finite,
    )
