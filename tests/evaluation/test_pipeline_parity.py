"""Every route gives what transformers' own pipeline gives to one text alone, unpadded and cut off by the pipeline."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from conftest import FAMILY_NAMES, WORDS, refused, run, saved_dense, tiny_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from anatomy_export.calibration.batches import calibration_batches
from anatomy_export.calibration.gradients import gradient_passes
from anatomy_export.calibration.replay import first_calls, run_head, run_layer
from anatomy_export.evaluation.onnx_classifier import OnnxClassifier
from anatomy_export.evaluation.torch_classifier import class_probabilities
from anatomy_export.exporter.torch_to_onnx import export_onnx
from anatomy_export.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, text_limit
from anatomy_export.models.supported_families import model_layers

LIMIT = 20  # what these tokenizers say that their models take; the models take more
SIDES = ("right", "left")
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """What a user has (`pipe`), and what it became here."""

    pipe: transformers.Pipeline
    checkpoint: Checkpoint
    onnx: OnnxClassifier

    def alone(self, texts) -> np.ndarray:
        """Logits (texts, classes) by transformers' pipeline, text by text."""
        names = list(self.checkpoint.model.config.label2id)
        rows = []
        for text in texts:
            scores = self.pipe(text, truncation=True, top_k=None, function_to_apply="none")
            rows.append([next(score["score"] for score in scores if score["label"] == name) for name in names])
        return np.array(rows)


def saved_as_users_have_it(
    directory: Path, family: str, padding_side: str, truncation_side: str, special: bool
) -> Path:
    checkpoint = tiny_checkpoint(family)
    tokenizer = checkpoint.tokenizer
    if not special:
        tokenizer.backend_tokenizer.post_processor = None
    saved_dense(checkpoint, directory)
    file = directory / "tokenizer_config.json"
    sides = {"padding_side": padding_side, "truncation_side": truncation_side, "model_max_length": LIMIT}
    file.write_text(json.dumps({**json.loads(file.read_text()), **sides}))
    return directory


@pytest.fixture(scope="session")
def cases(tmp_path_factory):
    """Cases by family, sides and special tokens, each made once; a family's graph is exported once."""
    made: dict = {}
    graphs: dict[str, Path] = {}

    def case(family: str, padding_side: str, truncation_side: str, special: bool) -> Case:
        key = (family, padding_side, truncation_side, special)
        if key not in made:
            folder = saved_as_users_have_it(tmp_path_factory.mktemp("user"), *key)
            pipe = transformers.pipeline("text-classification", str(folder), device="cpu")
            assert (pipe.tokenizer.padding_side, pipe.tokenizer.truncation_side) == (padding_side, truncation_side)
            checkpoint = load_checkpoint(str(folder))
            if family not in graphs:
                graphs[family] = folder / "model.onnx"
                export_onnx(checkpoint, graphs[family], metadata={})
            onnx = OnnxClassifier(graphs[family], checkpoint.tokenizer, text_limit(checkpoint, None))
            made[key] = Case(pipe, checkpoint, onnx)
        return made[key]

    return case


LENGTHS = (1, LIMIT - 3, LIMIT - 2, LIMIT - 1, LIMIT, LIMIT + 1, 3 * LIMIT)


@st.composite
def text_lists(draw):
    """Texts of lengths at, about and past the limit, in one batch."""
    lengths = draw(st.lists(st.sampled_from(LENGTHS) | st.integers(1, LIMIT), min_size=2, max_size=6))
    word = st.sampled_from([*WORDS, "unknownword"])
    return [" ".join(draw(st.lists(word, min_size=count, max_size=count))) for count in lengths]


@pytest.mark.parametrize("family", FAMILY_NAMES)
@settings(max_examples=12, deadline=None)
@given(sides=st.tuples(st.sampled_from(SIDES), st.sampled_from(SIDES)), special=st.booleans(), texts=text_lists())
def test_batched_is_the_pipeline_alone(cases, family, sides, special, texts):
    case = cases(family, *sides, special)
    if special:
        texts = ["", *texts]
    expected = case.alone(texts)
    limit = text_limit(case.checkpoint, None)
    probabilities = class_probabilities(case.checkpoint, case.checkpoint.model, tuple(texts), limit)
    np.testing.assert_allclose(probabilities, torch.tensor(expected).softmax(-1), atol=TOLERANCE)
    np.testing.assert_allclose(case.onnx.logits(texts), expected, atol=TOLERANCE)
    np.testing.assert_allclose(calibrated_logits(case.checkpoint, texts, limit), expected, atol=TOLERANCE)


def calibrated_logits(checkpoint: Checkpoint, texts, limit: int) -> np.ndarray:
    """Logits (texts, classes) as calibration, repair and gradients see them: whole, and layer by layer, the same."""
    batches = calibration_batches(checkpoint, texts, max_length=limit)
    logits = np.zeros((len(texts), checkpoint.model.config.num_labels))
    calls = first_calls(checkpoint.model, batches)
    for batch, call, whole in zip(batches, calls, gradient_passes(checkpoint.model, batches), strict=True):
        for layer in range(len(model_layers(checkpoint.model))):
            call = run_layer(checkpoint.model, layer, call)
        replayed = run_head(checkpoint.model, batch.inputs, call)
        torch.testing.assert_close(replayed, whole.logits, atol=TOLERANCE, rtol=0)
        logits[batch.index] = whole.logits.numpy()
    return logits


def test_token_type_ids_that_the_tokenizer_gives_reach_gpt2(tmp_path):
    """The pipeline hands them over, and GPT-2 adds their embedding to every token: here its positions have it."""
    folder = saved_as_users_have_it(tmp_path / "user", "gpt2", "left", "right", special=True)
    file = folder / "tokenizer_config.json"
    names = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    file.write_text(json.dumps({**json.loads(file.read_text()), **names}))
    pipe = transformers.pipeline("text-classification", str(folder), device="cpu")
    checkpoint = load_checkpoint(str(folder))
    export_onnx(checkpoint, tmp_path / "model.onnx", metadata={})
    case = Case(pipe, checkpoint, OnnxClassifier(tmp_path / "model.onnx", checkpoint.tokenizer, LIMIT))
    texts = ["the good film", "a very awful story and plot"]
    expected = case.alone(texts)
    np.testing.assert_allclose(case.onnx.logits(texts), expected, atol=TOLERANCE)
    save_checkpoint(checkpoint, tmp_path / "again")
    again = load_checkpoint(str(tmp_path / "again"))
    found = class_probabilities(again, again.model, tuple(texts), LIMIT)
    np.testing.assert_allclose(found, torch.tensor(expected).softmax(-1), atol=TOLERANCE)
    pipe.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    assert np.abs(case.alone(texts) - expected).max() > 20 * TOLERANCE


def test_a_decoder_without_padding_reads_the_end_that_its_tokenizer_adds(tmp_path):
    """transformers reads the last token where there is no padding: [SEP] here, which is the end of text too."""
    checkpoint = tiny_checkpoint("gpt2")
    checkpoint.model.config.pad_token_id = None
    checkpoint.tokenizer.pad_token = None
    checkpoint.tokenizer.eos_token = "[SEP]"
    folder = saved_dense(checkpoint, tmp_path / "user")
    pipe = transformers.pipeline("text-classification", str(folder), device="cpu")
    assert pipe.model.config.pad_token_id is None
    loaded = load_checkpoint(str(folder))
    texts = ("the good film", "a very awful story and plot")
    names = list(loaded.model.config.label2id)
    scores = [{score["label"]: score["score"] for score in pipe(text, top_k=None)} for text in texts]
    expected = [[row[name] for name in names] for row in scores]
    np.testing.assert_allclose(class_probabilities(loaded, loaded.model, texts, LIMIT), expected, atol=TOLERANCE)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_bundle_of_a_left_sided_tokenizer_is_the_pipeline(family, tmp_path):
    """Its own classify.py, past the limit too; the last gate has run `anatomy verify` on it."""
    folder = saved_as_users_have_it(tmp_path / "user", family, "left", "left", special=True)
    output = tmp_path / "bundle"
    result = run("export", "--model", folder, "--dense", "--output", output)
    assert result.exit_code == 0, result.stderr
    assert json.loads((output / "bundle.json").read_text())["truncation_side"] == "left"
    assert run("verify", output).exit_code == 0
    namespace: dict = {"__name__": "classify"}
    exec((output / "classify.py").read_text(), namespace)
    classify = namespace["Classifier"](output)
    pipe = transformers.pipeline("text-classification", str(folder), device="cpu")
    for text in ["the film", "a good " * 20 + "awful bad plot", "never " * 30]:
        best = pipe(text, truncation=True)[0]
        label, probability = classify(text)
        assert (label, pytest.approx(best["score"], abs=TOLERANCE)) == (best["label"], probability)


def test_long_texts_are_read_whole_and_those_cut_off_are_counted(tmp_path):
    """40 words, where 128 tokens were the limit whatever the model takes, and some that are past what it takes."""
    texts = [" ".join(random.Random(seed).choices(WORDS, k=40)) for seed in range(60)]
    texts[::10] = [f"{text} {text}" for text in texts[::10]]
    folder = saved_dense(with_both_classes(tiny_checkpoint("bert"), texts), tmp_path / "user")
    pipe = transformers.pipeline("text-classification", str(folder), device="cpu")
    labels = [int(pipe(text, truncation=True, max_length=66)[0]["label"][-1]) for text in texts]
    assert set(labels) == {0, 1}
    file = tmp_path / "data.csv"
    rows = "\n".join(f"{text},{label}" for text, label in zip(texts, labels, strict=True))
    file.write_text(f"text,label\n{rows}\n")
    result = run("export", "--model", folder, "--data", file, "--dense", "--json", "--output", tmp_path / "bundle")
    assert result.exit_code == 0, result.stderr
    body = json.loads(result.stdout)
    assert body["accuracy"]["dense"] == 1.0
    assert body["flops_tokens"] == round((54 * 42 + 6 * 66) / 60)
    assert "note: 10.0% of the texts (60 looked at) have more than 66 tokens" in result.stderr


def with_both_classes(checkpoint: Checkpoint, texts) -> Checkpoint:
    """Weights that hear every word, and the classifier moved so that it gives half of the texts each class."""
    torch.manual_seed(0)
    for parameter in checkpoint.model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, 0, 0.5)
    logits = torch.tensor(np.log(class_probabilities(checkpoint, checkpoint.model, tuple(texts), 66)))
    with torch.no_grad():
        checkpoint.model.classifier.bias[0] -= (logits[:, 0] - logits[:, 1]).quantile(0.5).float()
    return checkpoint


def test_max_length_past_the_model_is_refused(bert_directory, tmp_path):
    result = run("export", "--model", bert_directory, "--max-length", "67", "--output", tmp_path / "o" / "b")
    refused(result, tmp_path / "o" / "b", 1, "--max-length is 67, this model takes at most 66 tokens")
