"""What verification looks at."""

import numpy as np
import pytest
from conftest import WORDS, tiny_tokenizer

from anatomy_export.evaluation.comparison import compare_logits, verification_batches
from anatomy_export.evaluation.tolerance import scaled_tolerance


def pair(batch):
    return batch["input_ids"], batch["attention_mask"]


@pytest.mark.parametrize("count", [1, 5, 12, 13, 32, 45])
def test_every_text_is_in_a_batch_and_shapes_differ(count):
    tokenizer = tiny_tokenizer("bert")
    texts = [" ".join([WORDS[index % 20], WORDS[index // 20], *["film"] * (index % 5)]) for index in range(count)]
    batches = verification_batches(tokenizer, texts, 24)
    rows = {tuple(row[mask == 1]) for one in batches for row, mask in zip(*pair(one), strict=True)}
    assert {tuple(tokenizer(text)["input_ids"]) for text in texts} <= rows
    assert batches[-1]["input_ids"].shape == (2, 24)
    assert len({batch["input_ids"].shape for batch in batches}) >= 4


@pytest.mark.parametrize(
    ("logits", "off", "passes"),
    [
        ([5000.0, -5000.0], np.spacing(np.float32(5000)), True),
        ([5000.0, -5000.0], 1.0, False),
        ([1.0, -1.0], 9e-5, True),
        ([1.0, -1.0], 2e-4, False),
        ([0.001, -0.001], 2e-4, False),
    ],
)
def test_tolerance_is_absolute_or_by_the_scale_of_the_logits(logits, off, passes):
    expected = np.array([logits], np.float32)
    comparison = compare_logits("a vs b", expected, expected + np.float32(off), (1, 3), 1e-4)
    assert comparison.passed is passes
    assert comparison.tolerance == scaled_tolerance(expected) == pytest.approx(1e-4 * max(1, logits[0]))


def test_logits_that_are_not_finite_never_pass():
    expected = np.array([[np.inf, 0.0]])
    assert not compare_logits("a vs b", expected, expected, (1, 3), 1e-4).passed
