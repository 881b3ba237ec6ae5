"""The layer-by-layer runner is the model, for every family; padding and unread tokens count nowhere."""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from conftest import tiny_checkpoint

from anatomy_export.calibration.batches import calibration_batches, calibration_sample
from anatomy_export.calibration.gradients import loss, margin, run_dense
from anatomy_export.calibration.layer_statistics import dense_statistics, token_weights
from anatomy_export.calibration.replay import first_calls, run_ffn, run_head, run_layer
from anatomy_export.core.errors import AnatomyError
from anatomy_export.data.loading import Examples
from anatomy_export.models.supported_families import model_blocks, model_layers

TEXTS = (
    "the film is good",
    "awful",
    "a very bad story and awful acting but never a plot",
    "I walked out of cinema",
    "a great film and a great plot",
    "not very good",
)
LABELS = (1, 0, 0, 0, 1, 0)


@cache
def calibrated(family: str):
    """A model and its batches; tests leave the model as it was."""
    checkpoint = tiny_checkpoint(family)
    return checkpoint.model, calibration_batches(
        checkpoint, TEXTS, LABELS, max_length=64, batch_tokens=20, held_out=0.34
    )


def test_batches_hold_every_text_once(family_name):
    _, batches = calibrated(family_name)
    assert len(batches) > 1
    assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == list(range(6))
    assert sum(int(batch.held_out.sum()) for batch in batches) == 2
    assert [LABELS[index] for batch in batches for index in batch.index] == [
        int(label) for batch in batches for label in batch.labels
    ]


def test_layer_by_layer_is_the_model(family_name):
    model, batches = calibrated(family_name)
    blocks, seen = model_blocks(model), []
    for batch, call in zip(batches, first_calls(model, batches), strict=True):
        with torch.inference_mode():
            states = model(**batch.inputs, output_hidden_states=True).hidden_states
        real = batch.counts(False)
        for layer, block in enumerate(blocks):
            seen.clear()
            handle = block.down.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
            run, half_way = run_ffn(model, layer, call)
            call = run_layer(model, layer, call)
            handle.remove()
            assert half_way.attention is not None and half_way.activation is not None
            torch.testing.assert_close(run_layer(model, layer, half_way).hidden, call.hidden)
            torch.testing.assert_close(run.activation, seen[0][0])
            torch.testing.assert_close(run.activation @ block.down_weight + block.down_bias, seen[0][1])
            if layer + 1 < len(blocks):
                torch.testing.assert_close(call.hidden[real], states[layer + 1][real])
        last = model.transformer.ln_f(call.hidden) if family_name == "gpt2" else call.hidden
        torch.testing.assert_close(last[real], states[-1][real])
        with torch.inference_mode():
            torch.testing.assert_close(run_head(model, batch.inputs, call), model(**batch.inputs).logits)


def test_the_head_reads_what_the_layers_gave(family_name):
    model, batches = calibrated(family_name)
    call = first_calls(model, batches)[0]
    for layer in range(len(model_blocks(model))):
        call = run_layer(model, layer, call)
    logits = run_head(model, batches[0].inputs, call)
    other = run_head(model, batches[0].inputs, replace(call, hidden=call.hidden.flip(-1)))
    assert not torch.allclose(logits, other)
    with torch.inference_mode():
        torch.testing.assert_close(model(**batches[0].inputs).logits, logits)


def test_attention_is_not_run_again():
    """What the call brings of it is taken: another output of it gives another output of the layer."""
    model, batches = calibrated("bert")
    _, half_way = run_ffn(model, 0, first_calls(model, batches)[0])
    other = tuple(None if one is None else one.flip(-1) for one in half_way.attention)
    right = run_layer(model, 0, half_way).hidden
    assert not torch.allclose(run_layer(model, 0, replace(half_way, attention=other)).hidden, right)
    torch.testing.assert_close(run_layer(model, 0, replace(half_way, attention=None)).hidden, right)


def test_the_up_projection_is_not_run_again(family_name):
    """The activation that the call brings is taken, with the down-projection as it is now."""
    shared, batches = calibrated(family_name)
    model = copy.deepcopy(shared)
    _, half_way = run_ffn(model, 0, first_calls(model, batches)[0])
    right = run_layer(model, 0, half_way).hidden
    other = replace(half_way, activation=half_way.activation + 1)
    assert not torch.allclose(run_layer(model, 0, other).hidden, right)
    with torch.no_grad():
        model_blocks(model)[0].down_bias.add_(torch.linspace(0, 1, right.shape[-1]))
    changed = run_layer(model, 0, half_way).hidden
    assert not torch.allclose(changed, right)
    torch.testing.assert_close(run_layer(model, 0, replace(half_way, activation=None)).hidden, changed)


def slopes(model, batches, objective, parameter: torch.Tensor, change: torch.Tensor, step: float = 1e-2):
    """Central differences of the objective of every fitted sentence along `change` of a parameter."""
    before, found = parameter.detach().clone(), []
    with torch.no_grad():
        for batch in batches:
            values = []
            for signed in (step, -step):
                parameter.copy_(before + signed * change)
                values.append(objective(model(**batch.inputs).logits, batch)[~batch.held_out])
            found.append((values[0] - values[1]) / (2 * step))
        parameter.copy_(before)
    return torch.cat(found)


def test_the_metric_predicts_the_margin(family_name):
    """In the last layer one token a sentence counts, so the metric is exact for a change of the bias."""
    model, batches = calibrated(family_name)
    metric = run_dense(model, batches).metric[-1]
    change = torch.randn(16, generator=torch.Generator().manual_seed(0))
    found = slopes(model, batches, margin, model_blocks(model)[-1].down_bias, change).square().mean()
    np.testing.assert_allclose(change.double() @ metric @ change.double(), found, rtol=0.02)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_fisher_is_the_squared_derivative_of_a_neurons_mask(family):
    model, batches = calibrated(family)
    found = list(dense_statistics(model, batches, fisher=True)[1])[1].fisher[3]
    weight = model_blocks(model)[1].down_weight
    change = torch.zeros_like(weight)
    change[3] = weight[3].detach()
    np.testing.assert_allclose(found, slopes(model, batches, loss, weight, change).square().mean(), rtol=0.05)


def test_padding_and_unread_tokens_have_no_gradient(family_name):
    model, batches = calibrated(family_name)
    for batch, sensitivity in zip(batches, run_dense(model, batches).sensitivity, strict=True):
        assert (sensitivity[:, ~batch.counts(False)] == 0).all()
        assert (sensitivity[-1][~batch.counts(True)] == 0).all()
        assert (sensitivity[-1][batch.counts(True)] > 0).all()


def test_gradients_leave_the_parameters_as_they_were(family_name):
    model, batches = tiny_checkpoint(family_name).model, calibrated(family_name)[1]
    next(model.parameters()).requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    run_dense(model, batches)
    assert [parameter.requires_grad for parameter in model.parameters()] == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_statistics_of_unpadded_and_padded_batches_agree(family_name):
    checkpoint = tiny_checkpoint(family_name)
    results = []
    for batch_tokens in (1, 1000):
        batches = calibration_batches(checkpoint, TEXTS, max_length=64, batch_tokens=batch_tokens)
        results.append(list(dense_statistics(checkpoint.model, batches)[1]))
    for alone, padded in zip(*results, strict=True):
        torch.testing.assert_close(alone.moments.covariance, padded.moments.covariance, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(alone.mean_square, padded.mean_square, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(alone.metric, padded.metric, atol=1e-7, rtol=1e-3)
    assert results[0][-1].moments.count == 4, "one token a fitted sentence in the last layer"


def test_tokens_weigh_by_their_gradient_and_only_where_they_count(family_name):
    _, batches = calibrated(family_name)
    batch = batches[0]
    sensitivity = torch.linspace(0, 4, batch.inputs["input_ids"].numel()).reshape(batch.inputs["input_ids"].shape)
    for last_layer in (False, True):
        counts = batch.counts(last_layer)
        weights = token_weights(batch, sensitivity, last_layer, 0.5)
        assert (weights[~counts] == 0).all() and (weights[counts] > 0).all()
        torch.testing.assert_close(weights[counts], sensitivity[counts].clamp_min(1e-30).sqrt())
    assert (token_weights(batch, sensitivity, False, 0.0)[batch.counts(False)] == 1).all()


def test_a_single_text_is_refused():
    with pytest.raises(AnatomyError, match="calibration needs at least 2 texts, got 1"):
        calibration_batches(tiny_checkpoint("bert"), TEXTS[:1], max_length=64)


def test_loss_needs_labels():
    checkpoint = tiny_checkpoint("bert")
    with pytest.raises(AnatomyError, match="fisher needs labelled"):
        dense_statistics(checkpoint.model, calibration_batches(checkpoint, TEXTS, max_length=64), fisher=True)


def test_the_dense_run_keeps_what_each_layer_sums(family_name):
    """FFN output and residual stream: before the norm that follows (BERT), or what the layer gives (GPT-2)."""
    model, batches = calibrated(family_name)
    run = run_dense(model, batches)
    blocks, layers = model_blocks(model), model_layers(model)
    for position, (batch, call) in enumerate(zip(batches, first_calls(model, batches), strict=True)):
        for layer in range(len(blocks)):
            after = run_layer(model, layer, call)
            own, layer_sum = run_ffn(model, layer, call)[0], run.layer_sum(position, layer)
            torch.testing.assert_close(own.layer_sum, layer_sum)
            if family_name == "gpt2":
                torch.testing.assert_close(layer_sum, after.hidden)
            else:
                norm = [one for one in layers[layer].modules() if isinstance(one, torch.nn.LayerNorm)][-1]
                torch.testing.assert_close(norm(layer_sum), after.hidden)
            ffn = own.activation @ blocks[layer].down_weight + blocks[layer].down_bias
            assert not torch.allclose(layer_sum, ffn), "the residual stream is in it"
            call = after
        assert run.layer_sum(position, 0).shape[:2] == batch.inputs["input_ids"].shape


def test_the_default_sample_holds_so_many_tokens_at_most(monkeypatch):
    checkpoint, train = tiny_checkpoint("bert"), Examples(TEXTS * 20, LABELS * 20)
    everything = calibration_sample(checkpoint, train, None, seed=3, max_length=64)
    assert len(everything) == 120
    lengths = [len(ids) for ids in checkpoint.tokenizer(list(everything.texts))["input_ids"]]
    monkeypatch.setattr("anatomy_export.calibration.batches.DEFAULT_TOKENS", sum(lengths[:31]))
    assert calibration_sample(checkpoint, train, None, seed=3, max_length=64) == everything.take(list(range(31)))
    assert len(calibration_sample(checkpoint, train, 50, seed=3, max_length=64)) == 50, "what was asked for is given"
    monkeypatch.setattr("anatomy_export.calibration.batches.DEFAULT_TOKENS", 1)
    assert len(calibration_sample(checkpoint, train, None, seed=3, max_length=64)) == 2
