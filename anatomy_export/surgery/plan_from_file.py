"""A plan from an ONNX file alone, for where there is neither torch nor data: from its weights, or from probes."""

from collections.abc import Sequence

import numpy as np

from anatomy_export.core.arguments import check_whole
from anatomy_export.core.errors import AnatomyError
from anatomy_export.evaluation.text_reader import TextReader
from anatomy_export.paper.rule import ratio_plan
from anatomy_export.paper.thresholds import preset_setup
from anatomy_export.plan_files.plan import LayerPlan, PrunePlan
from anatomy_export.planning.allocation import UNIFORM, uniform_widths
from anatomy_export.surgery.model import OnnxModel, damage_is_refused
from anatomy_export.surgery.probes import anatomy_of_graph

WEIGHT_CRITERIA = ("magnitude", "random")


def probes_plan(
    model: OnnxModel,
    reader: TextReader,
    probes: Sequence[str],
    *,
    keep_ratio: float,
    align: int,
    strong_threshold: float,
) -> PrunePlan:
    """Keep the same share of every layer by the paper's ranking, strong neurons first: as `ratio_plan` in torch.

    Raises:
        AnatomyError: see `anatomy_of_graph` and `ratio_plan`.
    """
    anatomy, rule = anatomy_of_graph(model, reader, probes, strong_threshold=strong_threshold)
    setup = preset_setup(f"{rule}-1", rule, anatomy.num_layers)
    return ratio_plan(anatomy, rule=rule, setup=setup, keep_ratio=keep_ratio, align=align)


def weights_plan(model: OnnxModel, *, criterion: str, keep_ratio: float, align: int, seed: int) -> PrunePlan:
    """Keep the same share of every layer: the rows of W2 with the largest norm, or seeded random ones.

    Raises:
        AnatomyError: a criterion that needs more than weights, or an argument that means nothing.
    """
    check_whole("seed", seed, 0)
    if criterion not in WEIGHT_CRITERIA:
        raise AnatomyError(
            f"criterion '{criterion}' needs the torch model, an ONNX file allows anatomy, magnitude, random; "
            "next step: make a plan with anatomy-export and pass it as --plan"
        )
    layers = []
    with damage_is_refused(model.path):
        for index, (ffn, count) in enumerate(
            zip(model.ffns, uniform_widths(model.widths, keep_ratio, align), strict=True)
        ):
            scores = _scores(ffn.down_weight(), criterion, seed, index)
            order = np.lexsort((np.arange(ffn.width), -scores))
            layers.append(LayerPlan(index, ffn.width, tuple(int(neuron) for neuron in np.sort(order[:count]))))
    parameters = {"budget": "keep-ratio", "keep_ratio": keep_ratio, "align": align, "allocate": UNIFORM}
    if criterion == "random":
        parameters["seed"] = seed
    return PrunePlan(model.fingerprint(), tuple(layers), criterion, parameters)


def _scores(down_weight: np.ndarray, criterion: str, seed: int, layer: int) -> np.ndarray:
    """(n,), higher = keep: the formulas of the criteria of the same names."""
    if criterion == "random":
        return np.random.default_rng([seed, layer]).random(len(down_weight))
    return np.linalg.norm(down_weight.astype(np.float32), axis=1)
