"""BERT: post-norm encoder; the classifier reads the CLS token through the pooler."""

from anatomy_export.models.family import WITH_TOKEN_TYPES, Family
from anatomy_export.models.target_token import first_token

FAMILY = Family(
    model_type="bert",
    rule="bert",
    layers="bert.encoder.layer",
    up="intermediate.dense",
    down="output.dense",
    target=first_token,
    max_positions=lambda config: config.max_position_embeddings,
    inputs=WITH_TOKEN_TYPES,
)
