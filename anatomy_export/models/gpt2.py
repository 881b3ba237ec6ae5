"""GPT-2: causal decoder, `Conv1D` weights; the classifier reads the last token that is not padding."""

from anatomy_export.models.family import Family
from anatomy_export.models.target_token import last_real_token


def absorb_token_types_(model) -> None:
    """Add the embedding of token type 0, which is that of token 0, to every position's embedding."""
    body = model.transformer
    body.wpe.weight.data += body.wte.weight.data[0]


FAMILY = Family(
    model_type="gpt2",
    rule="gpt2",
    layers="transformer.h",
    up="mlp.c_fc",
    down="mlp.c_proj",
    target=last_real_token,
    max_positions=lambda config: config.n_positions,
    absorb_token_types_=absorb_token_types_,
)
