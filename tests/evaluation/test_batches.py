"""Batches of texts of like length, whatever runs them: no more in one than memory takes."""

import numpy as np
from conftest import WORDS, tiny_tokenizer

from anatomy_export.evaluation.batches import MOST_BATCH_TOKENS
from anatomy_export.evaluation.onnx_classifier import OnnxClassifier

GENERATOR = np.random.default_rng(0)
TEXTS = [" ".join(GENERATOR.choice(WORDS, count)) for count in (*GENERATOR.integers(1, 30, 70), *[1100] * 40)]


class Recorder(OnnxClassifier):
    """Gives each text's number of tokens as its logits."""

    def __init__(self):
        self.tokenizer, self.max_length = tiny_tokenizer("bert"), 1024
        self.shapes: list[tuple[int, int]] = []

    def run(self, inputs):
        self.shapes.append(inputs["input_ids"].shape)
        return inputs["attention_mask"].sum(axis=1, keepdims=True)


def test_long_texts_share_a_batch_with_fewer_others():
    recorder = Recorder()
    lengths = recorder.logits(TEXTS, 32)[:, 0].tolist()
    assert lengths == [min(1024, len(text.split()) + 2) for text in TEXTS]
    assert max(texts * tokens for texts, tokens in recorder.shapes) <= MOST_BATCH_TOKENS
    assert max(texts for texts, _ in recorder.shapes) == 32


def test_one_text_a_batch():
    recorder = Recorder()
    recorder.logits(TEXTS, 1)
    assert {texts for texts, _ in recorder.shapes} == {1}
