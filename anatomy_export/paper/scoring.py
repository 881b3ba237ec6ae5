"""Read a model's anatomy off the probes (the paper, section on methods, and its figures 1 and 2)."""

from collections.abc import Sequence

import numpy as np
import torch

from anatomy_export.core.arguments import check_finite, check_whole
from anatomy_export.core.errors import AnatomyError
from anatomy_export.kernels.cosine import cosine_similarity
from anatomy_export.models.checkpoint import Checkpoint
from anatomy_export.models.fingerprint import model_identity
from anatomy_export.models.supported_families import family_of, model_blocks
from anatomy_export.paper.anatomy import STRONG_THRESHOLD, Anatomy
from anatomy_export.plan_files.model_identity import ModelIdentity


def score_anatomy(
    checkpoint: Checkpoint,
    probes: Sequence[str],
    *,
    max_length: int,
    strong_threshold: float = STRONG_THRESHOLD,
    cut_off: bool = False,
    identity: ModelIdentity | None = None,
) -> Anatomy:
    """Cosine similarity of every hidden state and every FFN neuron with the token that the classifier reads.

    The target token of a probe is that token's hidden state after the last block (GPT-2: after the final layer norm).

    A probe is cut off at `max_length` tokens; where it has more than the model takes, only if `cut_off` says so.
    `identity` is the model's where it is known already.

    Raises:
        AnatomyError: no probes, one of more tokens than the model takes, or a threshold that is no finite number.
    """
    check_finite("strong_threshold", strong_threshold)
    check_whole("max_length", max_length, 1)
    if not probes:
        raise AnatomyError("no probes, expected at least one sentence")
    if not cut_off:
        _check_lengths(checkpoint, probes)
    states = torch.stack([_target_states(checkpoint, probe, max_length) for probe in probes])  # (P, L + 1, d)
    targets = states[:, -1]
    layer_similarity = torch.stack([cosine_similarity(row, row[-1:])[0] for row in states])
    with torch.inference_mode():
        neurons = [cosine_similarity(block.down_weight, targets) for block in model_blocks(checkpoint.model)]
    identity = identity or model_identity(checkpoint.model)
    return Anatomy(
        layer_similarity=layer_similarity.numpy().astype(np.float64),
        neuron_similarity=tuple(similarity.numpy().astype(np.float64) for similarity in neurons),
        strong_threshold=strong_threshold,
        probes=tuple(probes),
        fingerprint=identity.fingerprint,
        recorded_logits=identity.recorded_logits,
    )


def _check_lengths(checkpoint: Checkpoint, probes: Sequence[str]) -> None:
    limit = family_of(checkpoint.model.config).max_positions(checkpoint.model.config)
    for probe in probes:
        length = len(checkpoint.tokenizer(probe)["input_ids"])
        if length > limit:
            raise AnatomyError(
                f"probe '{probe[:40]}…' has {length} tokens, this model takes at most {limit}; next step: shorten it"
            )


def _target_states(checkpoint: Checkpoint, probe: str, max_length: int) -> torch.Tensor:
    """Hidden states of the target token, (L + 1, d)."""
    family = family_of(checkpoint.model.config)
    inputs = checkpoint.tokenizer(probe, truncation=True, max_length=max_length, return_tensors="pt")
    position = family.target(inputs["input_ids"], checkpoint.model.config.pad_token_id)[0]
    with torch.inference_mode():
        taken = {name: inputs[name] for name in family.inputs if name in inputs}
        output = checkpoint.model(**taken, output_hidden_states=True)
    return torch.stack([state[0, position] for state in output.hidden_states])
