"""RoBERTa: BERT's layers; the classifier reads the <s> token. Positions start after the padding index."""

from anatomy_export.models.family import Family
from anatomy_export.models.target_token import first_token

FAMILY = Family(
    model_type="roberta",
    rule="bert",
    layers="roberta.encoder.layer",
    up="intermediate.dense",
    down="output.dense",
    target=first_token,
    max_positions=lambda config: config.max_position_embeddings - config.pad_token_id - 1,
)
