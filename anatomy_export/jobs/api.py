"""What the functions at the top of the package do: the stages on a model and tokenizer that are in memory already."""

from collections.abc import Sequence

import torch

from anatomy_export.core.arguments import check_whole
from anatomy_export.core.errors import AnatomyError
from anatomy_export.data.probes import BUILT_IN_PROBES
from anatomy_export.models.checkpoint import Checkpoint, text_limit
from anatomy_export.models.recognise import require_classifier
from anatomy_export.models.supported_families import family_of
from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.paper.scoring import score_anatomy


def score_model(
    model, tokenizer, probes: Sequence[str] | None, *, strong_threshold: float, max_length: int | None
) -> Anatomy:
    """`score_anatomy` of a model in any mode, which it is left in; see `anatomy_export.score`."""
    if isinstance(probes, str):
        raise AnatomyError("probes is one string, expected a sequence of sentences; next step: pass [probes]")
    family_of(model.config)
    require_classifier(model)
    for name, parameter in model.named_parameters():
        if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
            kind = str(parameter.dtype).removeprefix("torch.")
            raise AnatomyError(
                f"parameter {name} is {kind} on {parameter.device.type}, expected float32 on cpu; "
                "next step: pass model.float().cpu()"
            )
    if max_length is not None:
        check_whole("max_length", max_length, 1)
    checkpoint = Checkpoint(model, tokenizer)
    training = model.training
    model.eval()
    try:
        return score_anatomy(
            checkpoint,
            BUILT_IN_PROBES if probes is None else probes,
            strong_threshold=strong_threshold,
            max_length=text_limit(checkpoint, max_length, "max_length"),
        )
    finally:
        model.train(training)
