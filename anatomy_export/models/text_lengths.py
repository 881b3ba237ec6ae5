"""How long a tokenizer makes texts, and how many of them the model does not take whole."""

from collections.abc import Sequence
from dataclasses import dataclass

import transformers

from anatomy_export.core.progress import Progress
from anatomy_export.data.loading import Examples

MEASURED_TEXTS = 1000


@dataclass(frozen=True)
class TextLengths:
    """Of `texts` texts: tokens of one on average, special tokens included and once cut off; the share cut off."""

    texts: int
    mean_tokens: float
    cut_share: float


def text_lengths(tokenizer: transformers.PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> TextLengths:
    """The lengths of at least one text that is cut off at `max_length` tokens."""
    lengths = [len(ids) for ids in tokenizer(list(texts), truncation=False)["input_ids"]]
    kept = [min(length, max_length) for length in lengths]
    return TextLengths(len(lengths), sum(kept) / len(kept), sum(length > max_length for length in lengths) / len(kept))


def data_lengths(
    tokenizer: transformers.PreTrainedTokenizerBase, splits: Sequence[Examples], max_length: int, progress: Progress
) -> TextLengths:
    """The lengths of some texts of each split, and a note where any is cut off."""
    total = sum(map(len, splits))
    texts = [text for split in splits for text in split.texts[: 1 + MEASURED_TEXTS * len(split) // total]]
    lengths = text_lengths(tokenizer, texts, max_length)
    if lengths.cut_share:
        progress.note(
            f"note: {lengths.cut_share:.1%} of the texts ({lengths.texts:,} looked at) have more than {max_length} "
            f"tokens and lose those on the {tokenizer.truncation_side}, as in transformers' pipeline with "
            "truncation=True and that length"
        )
    return lengths
