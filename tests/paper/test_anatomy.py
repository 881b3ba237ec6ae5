"""`anatomy score`: the numbers of an anatomy, its two files, and what a wrong or damaged one is answered with."""

import json
import os

import numpy as np
import pytest
from conftest import refused, run, saved_dense, tiny_checkpoint, tiny_config, tiny_tokenizer

from anatomy_export.core.errors import AnatomyError
from anatomy_export.data.probes import BUILT_IN_PROBES, BUILT_IN_TASKS, probe_tasks
from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.paper.anatomy_file import read_anatomy
from anatomy_export.paper.anatomy_summary import (
    dangling_neurons,
    offset_neurons,
    strong_agreement,
    summarize_anatomy,
)
from anatomy_export.paper.scoring import score_anatomy

HIGH, LOW, NO = 0.9, -0.9, 0.0


def by_hand() -> Anatomy:
    """Two probes, three layers of four neurons."""
    layers = (
        [[HIGH, HIGH, NO, NO], [HIGH, NO, HIGH, NO]],  # probe 0 goes on below, for probe 1 it ends here
        [[HIGH, NO, NO, LOW], [NO, NO, NO, NO]],
        [[NO, NO, NO, LOW], [HIGH, NO, NO, NO]],
    )
    similarity = tuple(np.array(layer) for layer in layers)
    return Anatomy(np.array([[0.2, 0.4, 0.6, 1.0], [0.0, 0.2, 0.4, 1.0]]), similarity, 0.35, ("a", "b"), "f" * 64)


def test_dangling_and_offset_neurons():
    anatomy = by_hand()
    assert dangling_neurons(anatomy, 0).tolist() == [True, False, True, False]
    assert dangling_neurons(anatomy, 1).tolist() == [True, False, False, False]
    assert not dangling_neurons(anatomy, 2).any(), "the last layer's neurons reach the classifier"
    assert offset_neurons(anatomy, 0).tolist() == [True, True, False, False]
    assert offset_neurons(anatomy, 1).tolist() == [True, False, False, False]
    assert not offset_neurons(anatomy, 2).any()


def test_agreement_of_strong_sets():
    mean, chance = strong_agreement(by_hand())
    assert mean == pytest.approx(1 / 5), "one in common of three and three"
    expected = 2 * 2 / 4
    assert chance == pytest.approx(expected / (6 - expected))
    assert strong_agreement(by_hand(), [1]) == (0, 0)
    one = by_hand()
    alone = Anatomy(one.layer_similarity[:1], tuple(s[:1] for s in one.neuron_similarity), 0.35, ("a",), "f")
    assert strong_agreement(alone) == (None, None)


def test_chance_is_what_random_sets_give():
    generator = np.random.default_rng(0)
    scores = tuple(generator.random((40, 200)) for _ in range(2))
    mean, chance = strong_agreement(Anatomy(np.ones((40, 3)), scores, 0.7, tuple(map(str, range(40))), "f"))
    assert mean is not None and mean == pytest.approx(chance, abs=0.01)


def test_summary():
    found = summarize_anatomy(by_hand())
    assert found["strong"] == [3, 1, 1] and found["dangling"] == [2, 1, 0] and found["offset"] == [2, 1, 0]
    assert found["opposed"] == [0, 1, 1] and found["strong_share"] == pytest.approx(5 / 12)
    assert found["layer_similarity_mean"] == pytest.approx([0.1, 0.3, 0.5, 1.0])


def test_the_quantile_threshold_makes_that_share_strong():
    anatomy = score_anatomy(
        tiny_checkpoint("bert", width=400), ("the film is good", "awful"), strong_threshold=2, max_length=64
    )
    found = summarize_anatomy(anatomy)
    assert (sum(found["strong"]), found["jaccard_mean"]) == (0, None)
    best = np.concatenate([one.max(axis=0) for one in anatomy.neuron_similarity])
    assert (best > found["quantile_threshold"]).mean() == pytest.approx(found["quantile_share"], abs=0.001)


def test_every_built_in_probe_has_a_task():
    assert probe_tasks([*BUILT_IN_PROBES, "mine"]) == [*BUILT_IN_TASKS, None]
    assert len(set(BUILT_IN_TASKS)) == 10


def test_score_writes_what_it_measured(family_name, tmp_path):
    checkpoint = tiny_checkpoint(family_name)
    saved_dense(checkpoint, tmp_path / "model")
    (tmp_path / "probes.txt").write_text("the film is good\n\nawful acting\n")
    command = ["score", "--model", tmp_path / "model", "--probes", tmp_path / "probes.txt", "--output"]
    done = run(*command, tmp_path / "a", "--strong-threshold", "0.3", "--json")
    assert done.exit_code == 0, done.stderr
    body = json.loads(done.stdout)
    assert body == {**json.loads((tmp_path / "a" / "anatomy.json").read_text()), "output": str(tmp_path / "a")}
    assert (body["format_version"], body["kind"], body["family"]) == (1, "anatomy", family_name)
    assert (body["widths"], body["hidden_size"]) == ([24] * 3, 16)
    assert [one["text"] for one in body["probes"]] == ["the film is good", "awful acting"]
    expected = score_anatomy(checkpoint, ("the film is good", "awful acting"), strong_threshold=0.3, max_length=64)
    read = read_anatomy(tmp_path / "a")
    np.testing.assert_array_equal(read.layer_similarity, expected.layer_similarity)
    for one, other in zip(read.neuron_similarity, expected.neuron_similarity, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (read.probes, read.fingerprint) == (expected.probes, expected.fingerprint)
    assert body["summary"] == summarize_anatomy(expected)


def test_score_says_it_where_no_neuron_is_strong(bert_directory, tmp_path):
    command = ["score", "--model", bert_directory, "--output", tmp_path / "a"]
    done = run(*command, "--strong-threshold", "0.99")
    assert done.exit_code == 0, done.stderr
    assert "no neuron is strong at 0.99" in done.stdout and "next step: --strong-threshold 0." in done.stdout
    assert "anatomy of" in done.stdout and f"wrote {tmp_path / 'a'}" in done.stdout
    again = run(*command, "--strong-threshold", "0.2")
    assert again.exit_code == 1 and "replace it with --force" in again.stderr
    again = run(*command, "--strong-threshold", "0.2", "--force")
    assert again.exit_code == 0 and "of their neurons on average (Jaccard)" in again.stdout, again.stderr


def test_a_headless_model_is_scored_when_asked_for(tmp_path):
    import transformers

    transformers.BertModel(tiny_config("bert")).save_pretrained(tmp_path / "m")
    tiny_tokenizer("bert").save_pretrained(tmp_path / "m")
    command = ["score", "--model", tmp_path / "m", "--output", tmp_path / "a"]
    refused(run(*command), tmp_path / "a", 1, "no classification head")
    assert run(*command, "--allow-random-head").exit_code == 0


BAD = {
    "no probe": ("\n \n", "no sentence in it, expected one a line; next step: "),
    "long probe": ("good " * 80, "has 82 tokens, this model takes at most 66; next step: shorten it"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_probes_are_one_line(case, bert_directory, data_file, tmp_path):
    text, message = BAD[case]
    (tmp_path / "probes.txt").write_text(text)
    common = ["--model", bert_directory, "--probes", tmp_path / "probes.txt", "--output", tmp_path / "a"]
    refused(run("score", *common), tmp_path / "a", 1, message)
    refused(run("study", *common, "--data", data_file), tmp_path / "a", 1, message)


def test_an_output_that_cannot_be_written_is_one_line(bert_directory, data_file, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    for command in (["score"], ["study", "--data", data_file]):
        common = [*command, "--model", bert_directory, "--output"]
        refused(run(*common, tmp_path / "file" / "a"), tmp_path / "file" / "a", 1, "cannot create", "--output")
        done = run(*common, tmp_path / "file")
        assert done.exit_code == 1 and "choose another --output" in done.stderr.splitlines()[-1]
    (tmp_path / "there").mkdir()
    monkeypatch.setattr("anatomy_export.core.files.os.access", lambda _, mode: not mode & os.W_OK)
    done = run("study", "--data", data_file, "--model", bert_directory, "--output", tmp_path / "there")
    assert done.exit_code == 1 and "Permission denied; next step: choose another --output" in done.stderr
    assert not list((tmp_path / "there").iterdir())


def damage(file, change):
    file.write_bytes(change(file.read_bytes()))


DAMAGE = {
    "arrays cut off": ("anatomy.npz", lambda content: content[:-9], "checksum"),
    "no JSON": ("anatomy.json", lambda content: content[:-9], "not valid JSON"),
    "another kind": ("anatomy.json", lambda content: content.replace(b'"anatomy"', b'"plan"'), "not an anatomy"),
    "another version": ("anatomy.json", lambda content: content.replace(b'version": 1', b'version": 9'), "version 9"),
    "no threshold": ("anatomy.json", lambda content: content.replace(b"0.35", b"true"), "threshold is True"),
    "another width": ("anatomy.json", lambda content: content.replace(b"  24,", b"  23,", 1), "has shape"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_anatomy_is_refused(case, bert_directory, tmp_path):
    name, change, message = DAMAGE[case]
    assert run("score", "--model", bert_directory, "--output", tmp_path / "a").exit_code == 0
    damage(tmp_path / "a" / name, change)
    with pytest.raises(AnatomyError, match=message):
        read_anatomy(tmp_path / "a")
    (tmp_path / "a" / name).unlink()
    with pytest.raises(AnatomyError, match="No such file"):
        read_anatomy(tmp_path / "a")
