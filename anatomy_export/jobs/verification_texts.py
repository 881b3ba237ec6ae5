"""The texts that an export is verified on: some that ship with it, and some of the user's."""

from anatomy_export.data.loading import Dataset
from anatomy_export.data.probes import BUILT_IN_PROBES
from anatomy_export.evaluation.batches import single_batches
from anatomy_export.evaluation.comparison import VerificationInputs, verification_batches

# None of the user's texts: these ship. The last is repeated until it is cut off, where that is not too much to run.
REFERENCE_TEXTS = (*BUILT_IN_PROBES, "Fine.", " ".join(BUILT_IN_PROBES))
MOST_REFERENCE_TOKENS = 1024
VERIFICATION_TEXTS = 32
MOST_VERIFICATION_TEXTS = 256


def reference_texts(tokenizer, max_length: int) -> tuple[str, ...]:
    """Twelve built-in texts; the last has more than `max_length` tokens, up to `MOST_REFERENCE_TOKENS`."""
    *texts, last = REFERENCE_TEXTS
    times = min(max_length, MOST_REFERENCE_TOKENS) // len(tokenizer(last)["input_ids"]) + 1
    return (*texts, " ".join([last] * times))


def verification_texts(data: Dataset | None, probes: tuple[str, ...], count: int | None) -> tuple[str, ...]:
    """Train texts, at most `MOST_VERIFICATION_TEXTS` of those that calibration may use; without data the probes."""
    most = min(VERIFICATION_TEXTS if count is None else count, MOST_VERIFICATION_TEXTS)
    return (data.train.texts[:most] if data else ()) or probes


def verification_inputs(tokenizer, texts: tuple[str, ...], max_length: int) -> VerificationInputs:
    """The texts in batches, and each of the reference texts alone, tokenized."""
    return VerificationInputs(
        tuple(verification_batches(tokenizer, texts, max_length)),
        tuple(single_batches(tokenizer, reference_texts(tokenizer, max_length), max_length)),
    )
