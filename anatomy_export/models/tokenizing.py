"""What a tokenizer must agree on with its model: vocabulary, inputs, padding."""

from pathlib import Path

import transformers

from anatomy_export.core.errors import AnatomyError
from anatomy_export.models.family import IDS_AND_MASK, Family

PADDING_SIDE = "right"
TOKEN_TYPES = "token_type_ids"
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
    """Make the tokenizer give inputs that the family takes, padded on the right, now and when it is loaded again.

    Positions count from the first column, and an encoder's classifier reads it: padding there would give a text other
    logits in a batch than alone.
    """
    given = [name for name in family.inputs if name in (*IDS_AND_MASK, *tokenizer.model_input_names)]
    tokenizer.model_input_names, tokenizer.padding_side = given, PADDING_SIDE
    tokenizer.init_kwargs.update(model_input_names=given, padding_side=PADDING_SIDE)


def settle_token_types_(model, tokenizer: transformers.PreTrainedTokenizerBase, family: Family, source: str) -> None:
    """Let a model that adds token types' embeddings have them where its tokenizer gives the ids, as transformers'
    pipeline hands them over; both then do without the ids.

    Raises:
        AnatomyError: the ids of one text are not all 0.
    """
    if family.absorb_token_types_ is None or TOKEN_TYPES not in tokenizer.model_input_names:
        return
    if any(tokenizer("a")[TOKEN_TYPES]):
        raise AnatomyError(
            f"model {source}: its tokenizer gives a text token type ids other than 0, which {family.model_type} "
            "adds as tokens; next step: save the tokenizer that the model was trained with"
        )
    family.absorb_token_types_(model)


def forget_last_call(tokenizer: transformers.PreTrainedTokenizerBase) -> None:
    """Drop the length and padding of the last call, which would be saved in tokenizer.json."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()


def settle_padding(model, tokenizer: transformers.PreTrainedTokenizerBase, source: str) -> None:
    """A decoder's classifier finds its token by the padding id, so tokenizer and config must agree on one.

    Without one, transformers reads a text's last token: none that the tokenizer itself puts there may become padding.
    """
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = _unused_token(tokenizer, source)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    if model.config.pad_token_id != tokenizer.pad_token_id:
        raise AnatomyError(
            f"model {source}: config pads with id {model.config.pad_token_id}, its tokenizer with "
            f"{tokenizer.pad_token_id}; next step: save both with the same pad_token_id"
        )
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False


def _unused_token(tokenizer: transformers.PreTrainedTokenizerBase, source: str) -> str:
    """A special token that the tokenizer adds to no text, the end of text before others."""
    added = tokenizer("")["input_ids"]
    for token in (tokenizer.eos_token, tokenizer.unk_token, tokenizer.bos_token):
        if token is not None and tokenizer.convert_tokens_to_ids(token) not in added:
            return token
    raise AnatomyError(f"model {source}: its tokenizer has no padding token; next step: set one and save it")
