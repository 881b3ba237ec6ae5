"""How much of a text an ONNX file reads, what fills up a fixed shape, and where the files beside it are looked for."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import WORDS, run, tiny_tokenizer
from onnx import TensorProto, helper
from onnx_graphs import ffn_model
from test_onnx_masked import classifier
from test_onnx_surgery import quiet

from anatomy_export.core.errors import AnatomyError
from anatomy_export.evaluation.onnx_session import OnnxSession
from anatomy_export.evaluation.text_reader import DEFAULT_LENGTH, TextForm, TextReader, beside, text_form
from anatomy_export.jobs.slice_onnx import SliceRequest, run_slice

RATIO = ("--keep-ratio", "0.5", "--align", "1")
HUGE = int(1e30)


def graph(batch="batch", tokens="tokens", names=("input_ids", "attention_mask")) -> onnx.GraphProto:
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, [batch, tokens]) for name in names]
    return helper.make_graph([], "g", inputs, [])


def form_of(folder, *, config=None, settings=None, asked=None, **sizes) -> TextForm:
    for name, content in (("config.json", config), ("tokenizer_config.json", settings)):
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return text_form(graph(**sizes), folder / "config.json", folder / "tokenizer.json", asked)


LENGTHS = {
    "nothing says": ({}, DEFAULT_LENGTH),
    "the model": ({"config": {"max_position_embeddings": 40}}, 40),
    "gpt2": ({"config": {"n_positions": 1024}}, 1024),
    "roberta": ({"config": {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}}, 512),
    "the tokenizer": ({"settings": {"model_max_length": 256}, "config": {"max_position_embeddings": 512}}, 256),
    "an unlimited tokenizer": ({"settings": {"model_max_length": HUGE}, "config": {"n_positions": 99}}, 99),
    "no limit at all": ({"settings": {"model_max_length": HUGE}, "config": {"max_position_embeddings": -1}}, 512),
    "the graph": ({"tokens": 16, "settings": {"model_max_length": 512}}, 16),
    "asked for": ({"asked": 9, "config": {"max_position_embeddings": 512}}, 9),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_as_many_tokens_as_the_model_takes(case, tmp_path):
    options, expected = LENGTHS[case]
    assert form_of(tmp_path, **options).max_length == expected


def test_more_than_a_fixed_graph_takes_is_refused(tmp_path):
    with pytest.raises(AnatomyError, match="--max-length is 17, this graph takes 16 tokens; next step: ask for less"):
        form_of(tmp_path, tokens=16, asked=17)


def test_damaged_settings_are_refused(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": Infinity, "scale": NaN}')
    assert form_of(tmp_path).max_length == DEFAULT_LENGTH, "as Python's json writes them"
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(AnatomyError, match=r"tokenizer_config\.json is damaged \(no JSON object\)"):
        form_of(tmp_path)


@pytest.fixture
def tokenizer(tmp_path):
    tiny_tokenizer("bert").save_pretrained(tmp_path)
    return tmp_path / "tokenizer.json"


@pytest.mark.parametrize(("side", "kept"), [("right", WORDS[:3]), ("left", WORDS[2:5])])
def test_the_tokenizers_side_is_cut_off(side, kept, tokenizer):
    (tokenizer.parent / "tokenizer_config.json").write_text(json.dumps({"truncation_side": side}))
    form = text_form(graph(), tokenizer.parent / "config.json", tokenizer, 5)
    reader = TextReader(tokenizer, form)
    assert reader.tokenizer.decode(reader.inputs(" ".join(WORDS[:5]))["input_ids"][0]).split() == list(kept)
    assert reader.cut_off([" ".join(WORDS[:5]), WORDS[0]]) == 1


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_fixed_shape_is_filled_up(side, tokenizer):
    reader = TextReader(tokenizer, TextForm(8, padding=side, batch=2, tokens=8, pad_token="[UNK]"))
    alone, filled = TextReader(tokenizer).inputs("a good film"), reader.inputs("a good film")
    place = reader.place("a good film")
    assert place == (slice(3, 8) if side == "left" else slice(0, 5))
    for name, value in filled.items():
        assert value.shape == (2, 8)
        np.testing.assert_array_equal(value[:, place], np.repeat(alone[name], 2, axis=0))
    outside = np.ones(8, bool)
    outside[place] = False
    assert set(filled["input_ids"][0, outside]) == {3} and not filled["attention_mask"][:, outside].any()


def test_without_a_mask_nothing_is_filled_up(tokenizer):
    reader = TextReader(tokenizer, TextForm(5, tokens=5, pads=False))
    assert reader.inputs("a good film")["input_ids"].shape == (1, 5)
    with pytest.raises(AnatomyError, match="the graph takes 5 tokens, a text has 3, and without an input attention_m"):
        reader.inputs("film")


def test_the_hubs_layout(tmp_path):
    """onnx/model.onnx with everything else a directory up; no other directory's parent is looked into."""
    for folder in ("onnx", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "config.json").write_text("{}")
    assert beside(tmp_path / "onnx", "config.json") == tmp_path / "config.json"
    assert beside(tmp_path / "other", "config.json") == tmp_path / "other" / "config.json"
    (tmp_path / "onnx" / "config.json").write_text("{}")
    assert beside(tmp_path / "onnx", "config.json") == tmp_path / "onnx" / "config.json"


def labelled(path, *, count=40, words=6) -> None:
    generator = np.random.default_rng(0)
    rows = [f"{' '.join(generator.choice(WORDS, words))},{'bad' if index % 2 else 'good'}" for index in range(count)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")


def hub_snapshot(cache) -> Path:
    """A repository in the hub's cache: the snapshot's files are links to blobs, in onnx/ and above it."""
    blobs, snapshot = cache / "models--org--name" / "blobs", cache / "models--org--name" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    made = cache / "made"
    made.mkdir()
    tiny_tokenizer("bert").save_pretrained(made)
    (made / "config.json").write_text(json.dumps({"label2id": {"bad": 0, "good": 1}, "max_position_embeddings": 4}))
    (made / "onnx").mkdir()
    onnx.save(classifier(), made / "onnx" / "model.onnx", save_as_external_data=True, location="model.onnx_data",
              size_threshold=100)  # fmt: skip
    for index, file in enumerate(sorted(one for one in made.rglob("*") if one.is_file())):
        blob, link = blobs / f"{index:040x}", snapshot / file.relative_to(made)
        file.rename(blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def test_a_snapshot_of_the_hubs_cache(tmp_path):
    snapshot = hub_snapshot(tmp_path)
    labelled(tmp_path / "data.csv")
    result = run("slice-onnx", snapshot / "onnx" / "model.onnx", *RATIO, "-o", tmp_path / "o.onnx", "--data",
                 tmp_path / "data.csv", "--json")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    body = json.loads(result.stdout)
    assert body["accuracy"]["dense"] is not None and body["max_abs_error"] is not None
    assert "12 of 12 texts (100.0%) are longer than the 4 tokens" in " ".join(result.stderr.split())


@pytest.mark.parametrize("place", ["another repository", "beside the cache"])
def test_links_out_of_the_repository_are_refused(place, tmp_path):
    snapshot = hub_snapshot(tmp_path)
    link = snapshot / "onnx" / "model.onnx_data"
    outside = tmp_path / ("models--org--other/blobs/1" if place == "another repository" else "secret")
    outside.parent.mkdir(parents=True, exist_ok=True)
    link.resolve().rename(outside)
    link.unlink()
    link.symlink_to(outside)
    result = run("slice-onnx", snapshot / "onnx" / "model.onnx", *RATIO, "-o", tmp_path / "o.onnx")
    assert result.exit_code == 1
    assert "external data 'model.onnx_data' goes through a link, expected a file" in result.stderr


def fixed(model: onnx.ModelProto, batch: int, tokens: int) -> onnx.ModelProto:
    for value in (*model.graph.input, *model.graph.output):
        for dim, size in zip(value.type.tensor_type.shape.dim, (batch, tokens), strict=True):
            if dim.dim_param in ("batch", "tokens"):
                dim.dim_value = size
    return model


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_graph_is_judged_as_the_free_one(batch, tmp_path, tokenizer):
    reader, logits = TextReader(tokenizer), OnnxSession(classifier().SerializeToString(), "free")
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, generator.integers(1, 10))) for _ in range(60)]
    output = classifier().graph.output[0].name
    labels = [logits.run([output], reader.inputs(text))[0].argmax() for text in texts]
    assert len(set(labels)) > 1
    rows = "".join(f"{text},{label}\n" for text, label in zip(texts, labels, strict=True))
    (tmp_path / "data.csv").write_text(f"text,label\n{rows}")
    found = []
    for name, model in (("free", classifier()), ("fixed", fixed(classifier(), batch, 12))):
        onnx.save(model, tmp_path / f"{name}.onnx")
        arguments = (*RATIO, "--data", tmp_path / "data.csv", "-o", tmp_path / f"{name}-cut.onnx", "--json")
        result = run("slice-onnx", tmp_path / f"{name}.onnx", *arguments)
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["max_abs_error"] is not None
        found.append(json.loads(result.stdout)["accuracy"])
    assert found[0] == found[1] and found[0]["dense"] == 1.0


def test_a_graph_of_no_text_is_still_cut(tmp_path):
    onnx.save(ffn_model(), tmp_path / "m.onnx")
    assert run_slice(SliceRequest(tmp_path / "m.onnx", tmp_path / "o.onnx", keep_ratio=0.5), quiet()).output


def test_weights_are_ranked_whatever_the_config_says_of_classes(tmp_path):
    onnx.save(ffn_model(), tmp_path / "m.onnx")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"5": "a"}}))
    assert run_slice(SliceRequest(tmp_path / "m.onnx", tmp_path / "o.onnx", keep_ratio=0.5), quiet()).output
