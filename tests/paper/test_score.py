"""The anatomy: what the target token is, and what its similarities are."""

import kernel_reference as reference
import numpy as np
import pytest
import torch
from conftest import tiny_checkpoint

from anatomy_export.core.errors import AnatomyError
from anatomy_export.models.supported_families import family_of, model_blocks
from anatomy_export.paper.scoring import score_anatomy

PROBES = ("the film is good", "a very bad story and awful acting")


def test_shapes_and_the_last_state_is_the_target(family_name):
    checkpoint = tiny_checkpoint(family_name)
    anatomy = score_anatomy(checkpoint, PROBES, max_length=64)
    assert anatomy.layer_similarity.shape == (2, 4)
    np.testing.assert_allclose(anatomy.layer_similarity[:, -1], 1, atol=1e-6)
    assert [one.shape for one in anatomy.neuron_similarity] == [(2, 24)] * 3


def test_neuron_similarity_is_that_of_the_token_the_classifier_reads(family_name):
    checkpoint = tiny_checkpoint(family_name)
    inputs = checkpoint.tokenizer(PROBES[0], return_tensors="pt")
    with torch.inference_mode():
        last = checkpoint.model(**inputs, output_hidden_states=True).hidden_states[-1][0]
    target = last[-1 if family_name == "gpt2" else 0].numpy()[None]
    weight = model_blocks(checkpoint.model)[1].down_weight.detach().numpy()
    found = score_anatomy(checkpoint, PROBES[:1], max_length=64).neuron_similarity[1]
    np.testing.assert_allclose(found, reference.cosine_similarity(weight, target), atol=1e-5)


@pytest.mark.parametrize(("ids", "position"), [([5, 6, 7, 0, 0], 2), ([0, 0, 5, 6, 7], 4)])
def test_gpt2_target_is_the_token_that_decides_the_logits(ids, position):
    checkpoint = tiny_checkpoint("gpt2")
    inputs = torch.tensor([ids])
    assert family_of(checkpoint.model.config).target(inputs, 0).tolist() == [position]
    with torch.inference_mode():
        output = checkpoint.model(input_ids=inputs, output_hidden_states=True)
        expected = checkpoint.model.score(output.hidden_states[-1][0, position])
    torch.testing.assert_close(output.logits[0], expected)


def test_strong_for_any_probe():
    anatomy = score_anatomy(tiny_checkpoint("bert"), PROBES, strong_threshold=0.3, max_length=64)
    expected = np.flatnonzero(np.max(anatomy.neuron_similarity[0], axis=0) > 0.3)
    assert len(expected) > 0
    np.testing.assert_array_equal(anatomy.strong(0), expected)


def test_probe_longer_than_the_model_takes():
    with pytest.raises(AnatomyError, match="has 82 tokens, this model takes at most 66"):
        score_anatomy(tiny_checkpoint("bert"), ["good " * 80], max_length=64)


def test_probe_longer_than_asked_for_is_cut_off():
    found = score_anatomy(tiny_checkpoint("bert"), ["good film " * 20], max_length=16)
    short = score_anatomy(tiny_checkpoint("bert"), ["good film " * 7], max_length=64)
    np.testing.assert_allclose(found.layer_similarity, short.layer_similarity, atol=1e-6)
