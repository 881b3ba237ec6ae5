"""GPT-2: causal decoder, `Conv1D` weights; the classifier reads the last token that is not padding."""

from anatomy_export.models.family import WITH_TOKEN_TYPES, Family, last_real_token

FAMILY = Family(
    model_type="gpt2",
    rule="gpt2",
    layers="transformer.h",
    up="mlp.c_fc",
    down="mlp.c_proj",
    target=last_real_token,
    max_positions=lambda config: config.n_positions,
    inputs=WITH_TOKEN_TYPES,
)
