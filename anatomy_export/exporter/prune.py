"""Apply a plan to a torch model: zero the pruned neurons (the paper's way), or cut them out."""

import copy

import torch

from anatomy_export.errors import AnatomyError
from anatomy_export.exporter.plan import PrunePlan
from anatomy_export.exporter.score import model_fingerprint
from anatomy_export.kernels.gather import gather_neurons
from anatomy_export.models import model_blocks


def mask_neurons_(model, plan: PrunePlan) -> None:
    """Multiply the pruned rows of W2 by zero, in place. Nothing shrinks.

    Raises:
        AnatomyError: the plan is not for this model.
    """
    _check(model, plan)
    with torch.no_grad():
        for block, layer in zip(model_blocks(model), plan.layers, strict=True):
            mask = torch.zeros(layer.width, 1)
            mask[list(layer.keep)] = 1
            block.down_weight.mul_(mask)


def slice_neurons(model, plan: PrunePlan):
    """A new model without the pruned neurons: row j of W2, column j of W1 and element j of b1 are gone; b2 stays.

    Raises:
        AnatomyError: the plan is not for this model, or a layer was not fully cut.
    """
    _check(model, plan)
    sliced = copy.deepcopy(model)
    before = sum(parameter.numel() for parameter in sliced.parameters())
    blocks = model_blocks(sliced)
    for block, layer in zip(blocks, plan.layers, strict=True):
        keep = torch.tensor(layer.keep)
        with torch.no_grad():
            block.resize_(*gather_neurons(block.up_weight, block.up_bias, block.down_weight, keep))
    hidden = blocks[0].up_weight.shape[1]
    removed = before - sum(parameter.numel() for parameter in sliced.parameters())
    if removed != plan.removed * (2 * hidden + 1):
        raise AnatomyError(
            f"slicing removed {removed} parameters, expected {plan.removed * (2 * hidden + 1)}: not every FFN was cut"
        )
    return sliced


def _check(model, plan: PrunePlan) -> None:
    plan.check_model(model_fingerprint(model), [block.width for block in model_blocks(model)])
    if plan.repair is not None:
        raise AnatomyError("plan needs the weight repair of a newer release; next step: use the release that made it")
