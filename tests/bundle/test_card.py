"""The model card: metadata that the hub's own class gives back unchanged."""

import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from anatomy_export.bundle.card import card_metadata, model_card, source_card
from anatomy_export.bundle.facts import BundleFacts
from anatomy_export.core.errors import AnatomyError
from anatomy_export.models.flops import FlopModel


def facts(**changes) -> BundleFacts:
    both = {"dense": 4, "pruned": 2}
    plain = BundleFacts(
        name='a "name": with # signs',
        mode="slice",
        max_length=8,
        truncation_side="right",
        flops_tokens=20,
        labels=("no", "yes"),
        tolerance=1e-4,
        provenance={"data": {"name": "imdb", "sha256": "0" * 64}},
        result={
            "neurons": both,
            "parameters": both,
            "flops": both,
            "size_bytes": both,
            "accuracy": {"dense": 0.9, "pruned": 0.00004567891},
        },
        dense_flops=FlopModel(1, 1, 1, 1),
        planned_ffn_token=1,
        widths=(4,),
        kept_widths=(2,),
        criterion="random",
        reference_texts=("a",),
        reference_ids=((1,),),
        reference_logits=np.zeros((1, 2)),
    )
    return replace(plain, **changes)


HOSTILE = ("a|b", "<b>", "[/x]", "`code`", "**strong**", "---", "two\nlines", "[x](http://y)", "R&D", "&lt;", "_a_")


def shown(markdown: str) -> str:
    """The text that CommonMark shows, without tags."""
    page = MarkdownIt("commonmark").enable("table").render(markdown.split("---\n", 2)[2])
    assert "<b>" not in page and "<em>" not in page and "<strong>" not in page and "<a " not in page
    return html.unescape(re.sub(r"<[^>]+>", "", page))


def test_labels_and_names_of_any_kind_are_text():
    for name in ("a|b <script>", "x\n# other", "*a*_b_", "---"):
        card = model_card(facts(name=name, labels=HOSTILE, criterion="[/x] | <i>", provenance={"data": None}))
        text = shown(card)
        assert f"{' '.join(name.split())}, slice\n" in text
        assert f"11 classes ({', '.join(' '.join(label.split()) for label in HOSTILE)})" in " ".join(text.split())
        assert "Criterion: [/x] | <i>." in text
        assert text.count("\n0\n4\n2\n") == 1, "the table of layers"


def test_plain_labels_are_written_as_they_are():
    assert "2 classes (LABEL_0, not-good)" in model_card(facts(labels=("LABEL_0", "not-good")))


@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029", "\x7f", "\x9b", "\ufeff", "é", "🙂", "\n---\n"])
def test_a_name_of_any_character_round_trips(character):
    made = facts(name=f"a{character}b", provenance={"data": {"name": f"c{character}d"}})
    metadata = round_trip(made)
    [model] = metadata["model-index"]
    assert model["name"] == f"{' '.join(made.name.split())}, slice"


def round_trip(made: BundleFacts) -> dict:
    """The metadata of a card, which YAML and the hub's own class read from its text."""
    metadata, text = card_metadata(made).to_dict(), model_card(made)
    assert yaml.safe_load(text.split("---\n")[1]) == metadata
    assert ModelCard(text).data.to_dict() == metadata
    return metadata


def test_metadata_round_trips_through_the_hub_class():
    source = {"language": ["en", "no"], "license": "other", "license_name": "mine", "base_model": "some/model"}
    metadata = round_trip(facts(source_card=source, precision="int8", conversion={}))
    assert metadata["datasets"] == ["stanfordnlp/imdb"] and metadata["metrics"] == ["accuracy"]
    assert metadata["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 4.6e-05}]
    assert metadata["tags"] == ["onnx", "pruned", "anatomy-export", "int8"]
    assert metadata.items() >= source.items()


def test_nothing_is_said_that_is_not_known():
    result = {**facts().result, "accuracy": {"dense": None, "pruned": None}}
    own = round_trip(facts(provenance={"data": {"name": "/home/me/reviews.csv"}}, result=result))
    none = round_trip(facts(provenance={"data": None}, result=result))
    assert own == none
    assert not {"language", "license", "datasets", "metrics", "model-index", "model_name", "base_model"} & own.keys()


def test_a_file_of_ones_own_is_named_without_its_folder():
    metadata = round_trip(facts(provenance={"data": {"name": "/home/me/reviews.csv"}}))
    assert "datasets" not in metadata
    assert metadata["model-index"][0]["results"][0]["dataset"]["name"] == "reviews.csv"
    assert "/home/me" not in json.dumps(metadata)


def test_the_bundle_s_readme_is_a_card_that_loads(made_bundle):
    card = ModelCard.load(made_bundle / "README.md")
    written = yaml.safe_load((made_bundle / "README.md").read_text().split("---\n")[1])
    assert card.data.to_dict() == written
    assert (written["language"], written["license"], written["library_name"]) == ("en", "mit", "onnx")
    accuracy = json.loads((made_bundle / "bundle.json").read_text())["result"]["accuracy"]["pruned"]
    assert card.data.eval_results[0].metric_value == pytest.approx(accuracy, abs=1e-6)
    assert "python classify.py" in card.content


def test_a_source_card(tmp_path):
    assert source_card("some/hub-id") == {"base_model": "some/hub-id"}
    assert source_card(str(tmp_path)) == {}
    (tmp_path / "README.md").write_text("# no metadata")
    assert source_card(str(tmp_path)) == {}
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(AnatomyError, match="its metadata cannot be read"):
        source_card(str(tmp_path))
