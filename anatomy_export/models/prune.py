"""Apply a plan to a torch model: zero the pruned neurons (the paper's way), or cut them out."""

import copy

import torch

from anatomy_export.core.errors import AnatomyError
from anatomy_export.kernels.gather import gather_neurons
from anatomy_export.models.fingerprint import model_fingerprint, model_logits
from anatomy_export.models.supported_families import FfnBlock, model_blocks
from anatomy_export.plan_files.plan import PrunePlan
from anatomy_export.plan_files.repair_file import LayerRepair, Repair, check_repair


def mask_neurons_(model, plan: PrunePlan, repair: Repair | None = None) -> None:
    """Multiply the pruned rows of W2 by zero, in place, and write the repaired rows and b2. Nothing shrinks.

    Raises:
        AnatomyError: the plan is not for this model, or the repair is not the one that the plan names.
    """
    _check(model, plan, repair)
    with torch.no_grad():
        for index, (block, layer) in enumerate(zip(model_blocks(model), plan.layers, strict=True)):
            keep = torch.tensor(layer.keep)
            mask = torch.zeros(layer.width, 1)
            mask[keep] = 1
            block.down_weight.mul_(mask)
            if repair is not None:
                _write_repair_(block, repair.layers[index], keep)


def slice_neurons(model, plan: PrunePlan, repair: Repair | None = None):
    """A new model without the pruned neurons: row j of W2, column j of W1 and element j of b1 are gone; b2 stays.

    With a repair the kept rows of W2, and b2, are the repaired ones.

    Raises:
        AnatomyError: the plan is not for this model, the repair is not the one that the plan names, or a layer was not
            fully cut.
    """
    _check(model, plan, repair)
    sliced = copy.deepcopy(model)
    before = sum(parameter.numel() for parameter in sliced.parameters())
    blocks = model_blocks(sliced)
    for index, (block, layer) in enumerate(zip(blocks, plan.layers, strict=True)):
        keep = torch.tensor(layer.keep)
        with torch.no_grad():
            block.resize_(*gather_neurons(block.up_weight, block.up_bias, block.down_weight, keep))
            if repair is not None:
                _write_repair_(block, repair.layers[index], torch.arange(len(keep)))
    hidden = blocks[0].up_weight.shape[1]
    removed = before - sum(parameter.numel() for parameter in sliced.parameters())
    if removed != plan.removed * (2 * hidden + 1):
        raise AnatomyError(
            f"slicing removed {removed} parameters, expected {plan.removed * (2 * hidden + 1)}: not every FFN was cut"
        )
    return sliced


def _write_repair_(block: FfnBlock, repair: LayerRepair, rows: torch.Tensor) -> None:
    block.down_weight[rows] = torch.from_numpy(repair.down_weight).to(block.down_weight)
    block.down_bias.copy_(torch.from_numpy(repair.down_bias))


def check_plan_fits(model, plan: PrunePlan) -> None:
    """Raise AnatomyError unless the plan was made for this torch model: its FFN weights, and the logits it records."""
    plan.check_model(model_fingerprint(model), [block.width for block in model_blocks(model)])
    if plan.recorded_logits is not None:
        plan.recorded_logits.check(model_logits(model, plan.recorded_logits.input_ids))


def _check(model, plan: PrunePlan, repair: Repair | None) -> None:
    check_plan_fits(model, plan)
    check_repair(plan, repair)
