"""What a criterion may use beside the statistics of a layer."""

from dataclasses import dataclass

import numpy as np

from anatomy_export.core.arguments import check_choice, check_finite, check_whole
from anatomy_export.core.errors import AnatomyError
from anatomy_export.paper.anatomy import REDUCTIONS, Anatomy
from anatomy_export.paper.thresholds import LayerThreshold, ThresholdSetup, layer_thresholds


@dataclass(frozen=True)
class Context:
    """`seed` for random; the anatomy with its rule and setup for the anatomy criteria; `ridge` of the OBS ones,
    relative to the mean diagonal of the Gram matrix."""

    seed: int = 0
    ridge: float = 1e-4
    anatomy: Anatomy | None = None
    rule: str = "bert"
    setup: ThresholdSetup | None = None
    probe_reduction: str = "mean"

    def __post_init__(self) -> None:
        check_whole("seed", self.seed, 0)
        check_finite("ridge", self.ridge)
        check_choice("probe_reduction", self.probe_reduction, REDUCTIONS)

    def similarity(self, layer: int) -> tuple[np.ndarray, LayerThreshold, np.ndarray]:
        """A layer's neuron similarity (n,), its threshold, and the indices of its strong neurons.

        Raises:
            AnatomyError: no anatomy was measured.
        """
        if self.anatomy is None or self.setup is None:
            raise AnatomyError("the anatomy criteria need the model's anatomy; next step: score it on probes first")
        layer_similarity, similarity = self.anatomy.reduced(self.probe_reduction)
        thresholds = layer_thresholds(self.rule, layer_similarity, self.anatomy.num_layers, self.setup)
        return similarity[layer], thresholds[layer], self.anatomy.strong(layer)
