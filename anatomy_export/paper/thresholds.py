"""The paper's thresholds (Chen & Liu, "Anatomy and Structured Pruning of Large Language Models", figures 4a, 5a)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from anatomy_export.core.arguments import check_finite, check_whole
from anatomy_export.core.errors import AnatomyError

ABSOLUTE, ONE_SIDED = "absolute", "one-sided"


@dataclass(frozen=True)
class ThresholdSetup:
    """alpha, beta and the layers in focus; `beta` is unused by the gpt2 rule."""

    alpha: float
    beta: float
    focus: tuple[int, ...]


@dataclass(frozen=True)
class LayerThreshold:
    """A neuron is pruned when |s| (rule "absolute") or s (rule "one-sided") is below `value`."""

    value: float
    rule: str

    def prunes(self, similarity: np.ndarray) -> np.ndarray:
        """Boolean (n,) for the neuron similarities (n,)."""
        return self.measure(similarity) < self.value

    def measure(self, similarity: np.ndarray) -> np.ndarray:
        """What is compared with the threshold, (n,); also what a ranking goes by."""
        return np.abs(similarity) if self.rule == ABSOLUTE else similarity


_BERT_PRESETS = (
    (0.01, 0.001),
    (0.025, 0.001),
    (0.05, 0.001),
    (0.05, 0.005),
    (0.05, 0.01),
    (0.01, 0.002),
    (0.01, 0.005),
    (0.02, 0.005),
    (0.08, 0.005),
)
_GPT2_PRESETS = ((0.05, 1), (0.075, 1), (0.1, 1), (0.125, 1), (0.15, 1), (0.15, 2), (0.15, 4))
PRESETS = tuple(
    f"{rule}-{number + 1}"
    for rule, presets in (("bert", _BERT_PRESETS), ("gpt2", _GPT2_PRESETS))
    for number in range(len(presets))
)


def early_layers(num_layers: int) -> int:
    """How many first layers get no beta: 3 of 12."""
    return ceil(num_layers / 4)


def default_focus(rule: str, num_layers: int) -> tuple[int, ...]:
    """BERT: every second layer after the early ones, and the last. GPT-2: the last."""
    last = num_layers - 1
    if rule == "gpt2":
        return (last,)
    return tuple(sorted({*range(early_layers(num_layers) + 1, num_layers, 2), last}))


def preset_setup(name: str, rule: str, num_layers: int) -> ThresholdSetup:
    """A preset by name at this depth. GPT-2's "the last k of 12 layers" becomes the last ceil(k·L/12).

    Raises:
        AnatomyError: no such preset, or one of the other rule.
    """
    if name not in PRESETS or not name.startswith(f"{rule}-"):
        known = ", ".join(preset for preset in PRESETS if preset.startswith(f"{rule}-"))
        raise AnatomyError(f"preset '{name}' is not one for the {rule} rule; choose of {known}")
    number = int(name.split("-")[1]) - 1
    if rule == "bert":
        alpha, beta = _BERT_PRESETS[number]
        return ThresholdSetup(alpha, beta, default_focus(rule, num_layers))
    alpha, last_of_12 = _GPT2_PRESETS[number]
    return ThresholdSetup(alpha, 0.0, tuple(range(num_layers - ceil(last_of_12 * num_layers / 12), num_layers)))


def chosen_setup(
    rule: str,
    num_layers: int,
    *,
    preset: str | None,
    alpha: float | None,
    beta: float | None,
    focus: Sequence[int] | None,
) -> ThresholdSetup:
    """A preset, the rule's first by default, with its values overridden by those that were given.

    Raises:
        AnatomyError: see `preset_setup`.
    """
    base = preset_setup(preset or f"{rule}-1", rule, num_layers)
    return ThresholdSetup(
        alpha=base.alpha if alpha is None else alpha,
        beta=base.beta if beta is None else beta,
        focus=base.focus if focus is None else tuple(focus),
    )


def layer_thresholds(
    rule: str, layer_similarity: Sequence[float] | np.ndarray, num_layers: int, setup: ThresholdSetup
) -> list[LayerThreshold]:
    """One threshold a layer from c (at least `num_layers` values; c[l] is that of block l's input).

    Raises:
        AnatomyError: a focus layer that the model does not have, or alpha or beta is no finite number.
    """
    for name in ("alpha", "beta"):
        check_finite(name, getattr(setup, name))
    for layer in setup.focus:
        check_whole("focus layer", layer, 0)
    beyond = [layer for layer in setup.focus if layer >= num_layers]
    if beyond:
        raise AnatomyError(f"focus layer {beyond[0]} does not exist: this model has layers 0–{num_layers - 1}")
    threshold = _bert_threshold if rule == "bert" else _gpt2_threshold
    return [threshold(layer, float(layer_similarity[layer]), num_layers, setup) for layer in range(num_layers)]


def _bert_threshold(layer: int, similarity: float, num_layers: int, setup: ThresholdSetup) -> LayerThreshold:
    base = setup.alpha * similarity
    if layer == num_layers - 1 and layer in setup.focus:
        return LayerThreshold(3 * base, ONE_SIDED)
    if layer < early_layers(num_layers):
        return LayerThreshold(base, ABSOLUTE)
    return LayerThreshold(base + (3 if layer in setup.focus else 1) * setup.beta * layer, ABSOLUTE)


def _gpt2_threshold(layer: int, similarity: float, num_layers: int, setup: ThresholdSetup) -> LayerThreshold:
    if layer in setup.focus:
        return LayerThreshold(3 * setup.alpha * similarity, ONE_SIDED)
    return LayerThreshold(setup.alpha * similarity, ABSOLUTE)
