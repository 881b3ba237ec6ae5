"""The only door to a family's attribute names."""

from anatomy_export.core.errors import AnatomyError
from anatomy_export.models import bert, distilbert, electra, gpt2, roberta
from anatomy_export.models.family import Family, FfnBlock, family_layers, ffn_blocks

FAMILIES: dict[str, Family] = {
    module.FAMILY.model_type: module.FAMILY for module in (bert, roberta, distilbert, electra, gpt2)
}

__all__ = ["FAMILIES", "Family", "FfnBlock", "family_of", "ffn_blocks", "model_blocks", "model_layers"]


def family_of(config) -> Family:
    """The family of a transformers config.

    Raises:
        AnatomyError: the family is not supported; lists those that are.
    """
    if config.model_type not in FAMILIES:
        raise AnatomyError(
            f"model family '{config.model_type}' is not supported; supported: {', '.join(sorted(FAMILIES))}; "
            "next step: pass a model of one of these"
        )
    return FAMILIES[config.model_type]


def model_blocks(model) -> list[FfnBlock]:
    """Every layer's FFN of a supported model."""
    return ffn_blocks(model, family_of(model.config))


def model_layers(model):
    """Every layer of a supported model, in order."""
    return family_layers(model, family_of(model.config))
