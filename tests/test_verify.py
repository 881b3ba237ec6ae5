"""What verification looks at."""

import pytest
from conftest import WORDS, tiny_tokenizer

from anatomy_export.exporter.verify import verification_batches


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
