"""The only door to a family's attribute names."""

from anatomy_export.errors import AnatomyError
from anatomy_export.models import bert, distilbert, electra, gpt2, roberta
from anatomy_export.models.family import Family, FfnBlock, ffn_blocks

FAMILIES: dict[str, Family] = {
    module.FAMILY.model_type: module.FAMILY for module in (bert, roberta, distilbert, electra, gpt2)
}

__all__ = ["FAMILIES", "Family", "FfnBlock", "family_of", "ffn_blocks", "model_blocks"]


def family_of(config) -> Family:
    """The family of a transformers config.

    Raises:
        AnatomyError: the family is not supported; lists those that are.
    """
    if config.model_type not in FAMILIES:
        raise AnatomyError(
            f"model family '{config.model_type}' is not supported; supported: {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[config.model_type]


def model_blocks(model) -> list[FfnBlock]:
    """Every layer's FFN of a supported model."""
    return ffn_blocks(model, family_of(model.config))
