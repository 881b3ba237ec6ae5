"""What a tokenizer must agree on with its model: vocabulary, inputs, padding."""

from pathlib import Path

import transformers

from anatomy_export.errors import AnatomyError
from anatomy_export.models.family import Family

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")


def require_tokenizer_files(source: str) -> None:
    """Raise AnatomyError for a checkpoint directory that holds no tokenizer."""
    path = Path(source)
    if path.is_dir() and not any((path / name).is_file() for name in TOKENIZER_FILES):
        raise _no_tokenizer(source)


def check_tokenizer(tokenizer: transformers.PreTrainedTokenizerBase, config, source: str) -> None:
    """Raise AnatomyError where no tokenizer.json can be made, there is no vocabulary, or an id of it has no embedding.

    transformers makes a tokenizer of special tokens alone where the files are missing.
    """
    if not tokenizer.is_fast:
        raise AnatomyError(
            f"model {source}: its tokenizer {type(tokenizer).__name__} is Python code, of which no tokenizer.json can "
            "be made, and an exported model needs one; next step: save a fast tokenizer beside the model, or pass a "
            "model that has one"
        )
    ids = set(tokenizer.get_vocab().values())
    if ids <= set(tokenizer.all_special_ids):
        raise _no_tokenizer(source)
    if max(ids) >= config.vocab_size:
        raise AnatomyError(
            f"model {source}: its tokenizer has ids up to {max(ids)}, the model embeds {config.vocab_size} "
            f"(valid 0–{config.vocab_size - 1}); next step: save the tokenizer that the model was trained with"
        )


def _no_tokenizer(source: str) -> AnatomyError:
    return AnatomyError(
        f"model {source}: no tokenizer in the checkpoint, expected one of {', '.join(TOKENIZER_FILES)}; "
        "next step: save the model's tokenizer beside it"
    )


def fit_tokenizer(tokenizer: transformers.PreTrainedTokenizerBase, family: Family) -> None:
    """Make the tokenizer give the inputs that the family takes, now and when it is saved and loaded again."""
    tokenizer.model_input_names = list(family.inputs)
    tokenizer.init_kwargs["model_input_names"] = list(family.inputs)


def settle_padding(model, tokenizer: transformers.PreTrainedTokenizerBase, source: str) -> None:
    """A decoder's classifier finds its token by the padding id, so tokenizer and config must agree on one."""
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise AnatomyError(f"model {source}: its tokenizer has no padding token; next step: set one and save it")
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    if model.config.pad_token_id != tokenizer.pad_token_id:
        raise AnatomyError(
            f"model {source}: config pads with id {model.config.pad_token_id}, its tokenizer with "
            f"{tokenizer.pad_token_id}; next step: save both with the same pad_token_id"
        )
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
