"""Token ids to time a model on where no text is given."""

import numpy as np

SEED = 0


def random_inputs(
    vocabulary: int, batch: int, length: int, generator: np.random.Generator | None = None
) -> dict[str, np.ndarray]:
    """Unpadded inputs (batch, length) by name, from the second quarter of a vocabulary: no padding id is there."""
    generator = generator or np.random.default_rng(SEED)
    ids = generator.integers(vocabulary // 4, vocabulary // 2, size=(batch, length), dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
