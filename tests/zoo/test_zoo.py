"""The cache of embedded models: used when it is what would be made today, made anew otherwise."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import tiny_checkpoint

from anatomy_export.core.progress import Progress
from anatomy_export.data.loading import Dataset, Examples
from anatomy_export.zoo import embedded as zoo
from anatomy_export.zoo.embedded import EMBEDDED_MODELS, RECORD, resolve_model


@pytest.fixture
def trained(tmp_path: Path, monkeypatch) -> list:
    """An empty cache, tiny data and a training that only counts; the list has one entry a training."""
    monkeypatch.setenv("ANATOMY_CACHE", str(tmp_path / "cache"))
    few = Examples(("the film is good", "awful"), (1, 0))
    monkeypatch.setattr(zoo, "movie_reviews", lambda: Dataset("movie-reviews", few, few, few, ("negative", "positive")))
    monkeypatch.setattr(zoo, "minilm_directory", lambda: tmp_path)
    for name, family in (("bert", "bert"), ("gpt2", "gpt2")):
        build = replace(EMBEDDED_MODELS[name], build=lambda minilm, family=family: tiny_checkpoint(family), floor=0)
        monkeypatch.setitem(EMBEDDED_MODELS, name, build)
    calls: list = []
    monkeypatch.setattr(zoo, "finetune_", lambda *args, **kwargs: calls.append(args))
    return calls


def record_of(name: str) -> Path:
    return Path(resolve_model(name, Progress()).checkpoint) / RECORD


def test_trained_once_then_found(trained):
    first = resolve_model("bert", Progress())
    again = Progress()
    assert resolve_model("bert", again) == first
    assert len(trained) == 1
    assert "found in the cache" in again.notes[0]
    assert first.provenance["data_sha256"] == zoo.movie_reviews().fingerprint


@pytest.mark.parametrize("damage", ["not json", "[]", '{"source": "embedded:bert"}', None])
def test_damaged_provenance_is_trained_anew(trained, damage):
    record = record_of("bert")
    record.write_text(damage) if damage else record.unlink()
    assert json.loads(record_of("bert").read_text())["source"] == "embedded:bert"
    assert len(trained) == 2


def test_damaged_weights_are_trained_anew(trained):
    (record_of("bert").parent / "model.safetensors").write_bytes(b"damaged")
    resolve_model("bert", Progress())
    assert len(trained) == 2


def test_another_recipe_base_or_data_is_trained_anew(trained, monkeypatch):
    resolve_model("bert", Progress())
    spec = EMBEDDED_MODELS["bert"]
    monkeypatch.setitem(EMBEDDED_MODELS, "bert", replace(spec, recipe=replace(spec.recipe, epochs=3)))
    resolve_model("bert", Progress())
    assert len(trained) == 2
    monkeypatch.setitem(zoo.PACKAGES, zoo.MINILM, replace(zoo.PACKAGES[zoo.MINILM], sha256="0" * 64))
    resolve_model("bert", Progress())
    assert len(trained) == 3
    other = Examples(("never",), (0,))
    monkeypatch.setattr(zoo, "movie_reviews", lambda: Dataset("movie-reviews", other, other, other, ()))
    resolve_model("bert", Progress())
    assert len(trained) == 4


def test_two_at_once_train_once(trained, monkeypatch):
    both = threading.Barrier(2, timeout=30)
    look = zoo._valid_record

    def wait_once(directory, expected):
        found = look(directory, expected)
        if not getattr(threading.current_thread(), "waited", False):
            threading.current_thread().waited = True
            both.wait()
        return found

    monkeypatch.setattr(zoo, "_valid_record", wait_once)
    threads = [threading.Thread(target=resolve_model, args=("bert", Progress())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(trained) == 1


def test_random_shape_is_made_once(trained, monkeypatch):
    checkpoint = tiny_checkpoint("gpt2")
    monkeypatch.setattr(zoo, "_minilm_tokenizer", lambda directory: checkpoint.tokenizer)
    made: list = []
    monkeypatch.setitem(zoo.RANDOM_MODELS, "gpt2-base", lambda tokenizer: made.append(1) or checkpoint.model)
    source = resolve_model("gpt2-base", Progress())
    assert resolve_model("gpt2-base", Progress()) == source
    assert len(made) == 1
    assert source.random_weights
    assert len(source.provenance["weights_sha256"]) == 64


def test_the_published_gpt2_shape_gets_no_token_types():
    tokenizer = tiny_checkpoint("bert").tokenizer
    zoo._new_gpt2(tokenizer)
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]
