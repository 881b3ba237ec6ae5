"""The anatomy of a model: how its layers and its FFN neurons point towards the token that the classifier reads."""

from dataclasses import dataclass

import numpy as np

from anatomy_export.core.arguments import check_choice
from anatomy_export.plan_files.model_identity import RecordedLogits

REDUCTIONS = ("mean", "first")
STRONG_THRESHOLD = 0.35


@dataclass(frozen=True)
class Anatomy:
    """Similarities for `P` probes and `L` layers (the paper, figures 1 and 2).

    Attributes:
        layer_similarity: c, (P, L + 1): cosine of the target token in hidden state l with itself after the last block.
        neuron_similarity: s, one (P, n) array a layer: cosine of each row of W2 with the target token.
        strong_threshold: a neuron is strong where s exceeds it for any probe.
        probes: the P texts.
        fingerprint, recorded_logits: of the model scored; no logits where only an ONNX file or `anatomy.json` is there.
    """

    layer_similarity: np.ndarray
    neuron_similarity: tuple[np.ndarray, ...]
    strong_threshold: float
    probes: tuple[str, ...]
    fingerprint: str
    recorded_logits: RecordedLogits | None = None

    @property
    def num_layers(self) -> int:
        return len(self.neuron_similarity)

    @property
    def widths(self) -> list[int]:
        """Neurons of each layer."""
        return [similarity.shape[1] for similarity in self.neuron_similarity]

    def strong_mask(self, layer: int) -> np.ndarray:
        """(P, n): is a neuron of a layer strong for a probe?"""
        return self.neuron_similarity[layer] > self.strong_threshold

    def strong(self, layer: int) -> np.ndarray:
        """Sorted indices of the neurons of a layer that are strong for any probe."""
        return np.flatnonzero(self.strong_mask(layer).any(axis=0))

    def reduced(self, how: str) -> tuple[np.ndarray, list[np.ndarray]]:
        """One c, (L + 1,), and one s, (n,) a layer: of the "first" probe, or the "mean" over the probes.

        Raises:
            AnatomyError: another reduction is asked for.
        """
        check_choice("probe_reduction", how, REDUCTIONS)
        if how == "first":
            return self.layer_similarity[0], [similarity[0] for similarity in self.neuron_similarity]
        return self.layer_similarity.mean(axis=0), [similarity.mean(axis=0) for similarity in self.neuron_similarity]
