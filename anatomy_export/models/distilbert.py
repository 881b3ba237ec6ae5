"""DistilBERT: half of BERT's layers; the classifier reads the CLS token."""

from anatomy_export.models.family import Family
from anatomy_export.models.target_token import first_token

FAMILY = Family(
    model_type="distilbert",
    rule="bert",
    layers="distilbert.transformer.layer",
    up="ffn.lin1",
    down="ffn.lin2",
    target=first_token,
    max_positions=lambda config: config.max_position_embeddings,
)
