"""The smallest model within a budget of accuracy: a search over shares of the neurons, each tried with its repair."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.data.loading import Examples
from anatomy_export.evaluation.metrics import ValidationDrop, validation_drop
from anatomy_export.evaluation.torch_classifier import class_probabilities
from anatomy_export.models.prune import slice_neurons
from anatomy_export.planning.options import PruneMethod
from anatomy_export.planning.plan_maker import PlanMaker, PlanWithRepair

ROUNDING = 1e-9
SEARCHED_RATIOS = (0.95, *np.geomspace(0.9, 0.02, 14).tolist())
# Layers that are pruned together change the margin by about three times what their damages add up to (seen on the
# embedded BERT at 50 to 95 % removed). It decides where a search starts, not where it ends.
DAMAGE_SCALE = 3.0


@dataclass(frozen=True)
class Trial:
    """A plan that was tried, and what its model loses on validation text."""

    planned: PlanWithRepair
    drop: ValidationDrop


@dataclass(frozen=True)
class AccuracySearch:
    """Looks for the smallest model that loses at most `allowed` points of accuracy on `validation`.

    `max_length` is in tokens.
    """

    maker: PlanMaker
    method: PruneMethod
    validation: Examples
    allowed: float
    max_length: int

    def smallest(self, progress: Progress) -> PlanWithRepair:
        """The plan of the smallest share in `SEARCHED_RATIOS` that keeps within the budget.

        Each share that is tried is repaired, sliced and evaluated. Accuracy on a thousand texts is noisy, and a search
        finds the luckiest share: the expected drop must be within the budget too.

        Raises:
            AnatomyError: no share that was tried keeps within it; says the best.
        """
        best: Trial | None = None  # the only one held: repairs are large
        drops: list[ValidationDrop] = []
        with progress.bar("search on validation", None) as tick:
            dense = self._probabilities(self.maker.calibration.checkpoint.model)
            search = LastThatFits(len(SEARCHED_RATIOS), self._predicted_position())
            while search.unsettled:
                trial = self._try(search.position, dense)
                if trial is not None:
                    drops.append(trial.drop)
                    tick()
                fits = trial is not None and trial.drop.points <= self.allowed + ROUNDING
                best, trial = trial if fits else best, None
                search.tell(fits)
        if best is None:
            raise self._cannot_be_kept(min(drops, key=lambda drop: drop.points))
        plan, drop = best.planned.plan, best.drop
        progress.note(
            f"{sum(plan.kept_widths) / sum(plan.widths):.1%} of the neurons kept; on {len(self.validation):,} "
            f"validation texts {100 * drop.accuracy_dense:.2f} → {100 * drop.accuracy_pruned:.2f} %, "
            f"expected drop {100 * drop.expected_drop:.2f} points"
        )
        return best.planned.recording({f"validation_{name}": value for name, value in asdict(drop).items()})

    def _try(self, position: int, dense: np.ndarray) -> Trial | None:
        """What that share gives; None where it leaves no room for every layer or for the protected neurons."""
        share = SEARCHED_RATIOS[position]
        try:
            keep = self.maker.kept_neurons(self.method, share)
        except AnatomyError:
            if position == 0:
                raise
            return None
        budget = {"max_accuracy_drop": self.allowed, "validation_examples": len(self.validation), "keep_ratio": share}
        planned = self.maker.plan(self.method, keep, budget)
        model = slice_neurons(self.maker.calibration.checkpoint.model, planned.plan, planned.repair)
        labels = np.array(self.validation.labels)
        return Trial(planned, validation_drop(dense, self._probabilities(model), labels))

    def _probabilities(self, model) -> np.ndarray:
        """Of each class for the validation texts, (texts, classes)."""
        checkpoint = self.maker.calibration.checkpoint
        return class_probabilities(checkpoint, model, self.validation.texts, self.max_length)

    def _predicted_position(self) -> int:
        """Of the smallest share in `SEARCHED_RATIOS` whose predicted drop is within the budget."""
        measurement = self.maker.measurement
        assert measurement.damage is not None
        position = 0
        for position, share in enumerate(SEARCHED_RATIOS):
            try:
                widths = [len(kept) for kept in self.maker.kept_neurons(self.method, share)]
            except AnatomyError:
                return position - 1
            if predicted_drop(measurement.dense.logits, summed_damage(measurement.damage, widths)) > self.allowed:
                return position - 1
        return position

    def _cannot_be_kept(self, best: ValidationDrop) -> AnatomyError:
        return AnatomyError(
            f"--max-accuracy-drop {self.allowed:g} cannot be kept: of the models tried, the largest keeps "
            f"{SEARCHED_RATIOS[0]:.0%} of the neurons, and the best loses {best.measured_points:.2f} points on "
            f"{len(self.validation):,} validation texts (expected {100 * best.expected_drop:.2f}); next step: allow "
            "more, or pass more calibration text"
        )


class LastThatFits:
    """Finds the last of the positions 0 … `count` − 1 that fits; those that fit come first.

    Begins at `guess` and doubles its steps until one fits and one does not, then halves what lies between: two
    positions are tried where the guess is right.

    Attributes:
        position: to try next, while `unsettled`.
        last: the last that is known to fit, −1 where none is.
    """

    def __init__(self, count: int, guess: int) -> None:
        self.last, self.position = -1, min(max(guess, 0), count - 1)
        self._count, self._first_unfit, self._step = count, count, 1

    @property
    def unsettled(self) -> bool:
        """Is there a position between the last that fits and the first that does not?"""
        return self._first_unfit - self.last > 1

    def tell(self, fits: bool) -> None:
        """Whether `position` fits; moves it on."""
        if fits:
            self.last = self.position
        else:
            self._first_unfit = self.position
        if self._first_unfit == self._count:
            self.position = min(self.last + self._step, self._count - 1)
        elif self.last == -1:
            self.position = max(self._first_unfit - self._step, 0)
        else:
            self.position = (self.last + self._first_unfit) // 2
        self._step *= 2


def predicted_drop(logits: Sequence[torch.Tensor], damage: float) -> float:
    """Points of accuracy that the dense model's probabilities expect to be lost by a change of the margin.

    A text's class changes where a normal deviation of the margin passes it, Φ(−margin ∕ σ), and that costs the
    difference of the two largest probabilities.

    Args:
        logits: of the dense model, (texts, classes) in parts.
        damage: predicted squared change of the margin, as `Measurement.damage` has it, summed over the layers.
    """
    joined = torch.cat(list(logits)).double()
    best = joined.topk(2, dim=-1).values
    likely = joined.softmax(-1).topk(2, dim=-1).values
    deviation = max(DAMAGE_SCALE * math.sqrt(max(damage, 0.0)), 1e-12)
    changes = torch.special.ndtr(-(best[:, 0] - best[:, 1]) / deviation)
    return 100 * float(((likely[:, 0] - likely[:, 1]) * changes).mean())


def summed_damage(damage: Sequence[np.ndarray], widths: Sequence[int]) -> float:
    """Of keeping `widths[l]` neurons in each layer."""
    return float(sum(curve[len(curve) - 1 - width] for curve, width in zip(damage, widths, strict=True)))
