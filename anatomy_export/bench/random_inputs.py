"""Token ids to time models on where no text is given, and whether the models take that many."""

from collections.abc import Sequence
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np

from anatomy_export.bench.variants import Variant
from anatomy_export.core.errors import AnatomyError
from anatomy_export.evaluation.classifier_inputs import Inputs

SEED = 0
UNKNOWN_VOCABULARY = 4000


def random_inputs(vocabulary: int, batch: int, length: int, generator: np.random.Generator | None = None) -> Inputs:
    """Unpadded inputs (batch, length) by name, from the second quarter of a vocabulary: no padding id is there."""
    generator = generator or np.random.default_rng(SEED)
    ids = generator.integers(vocabulary // 4, vocabulary // 2, size=(batch, length), dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def inputs_by_shape(variants: Sequence[Variant], shapes: Sequence[tuple[int, int]]) -> dict[str, Inputs]:
    """Random tokens of the smallest vocabulary for each (batch, tokens), by `shape_key`.

    Raises:
        AnatomyError: see `require_length`.
    """
    vocabulary = min(variant.config().get("vocab_size", UNKNOWN_VOCABULARY) for variant in variants)
    require_length(variants, max(length for _, length in shapes))
    generator = np.random.default_rng(SEED)
    return {shape_key(batch, length): random_inputs(vocabulary, batch, length, generator) for batch, length in shapes}


def shape_key(batch: int, length: int) -> str:
    """What inputs of a shape are called, as in "1x128"."""
    return f"{batch}x{length}"


def require_length(variants: Sequence[Variant], length: int) -> None:
    """Raise AnatomyError where `length` tokens are more than one of the models takes."""
    for variant in variants:
        limit = _max_positions(variant.config())
        if limit and length > limit:
            raise AnatomyError(f"--seq-len {length}: this model takes at most {limit} tokens; next step: ask for fewer")


def _max_positions(config: dict) -> int | None:
    """How many tokens a model of this config takes; None where that is not known."""
    if not find_spec("torch"):
        return None
    from anatomy_export.models.supported_families import FAMILIES

    family = FAMILIES.get(config.get("model_type", ""))
    try:
        return family.max_positions(SimpleNamespace(**config)) if family else None
    except AttributeError:
        return None
