"""The closed-form repair: right where the answer is known, and never chosen where held-out text says otherwise."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from conftest import WORDS, tiny_checkpoint

from anatomy_export.calibration.batches import calibration_batches
from anatomy_export.calibration.gradients import run_dense
from anatomy_export.kernels.gram import GramAccumulator, Moments
from anatomy_export.models.fingerprint import model_fingerprint
from anatomy_export.models.prune import slice_neurons
from anatomy_export.models.supported_families import model_blocks
from anatomy_export.plan_files.plan import LayerPlan, PrunePlan
from anatomy_export.plan_files.repair_file import LayerRepair, Repair
from anatomy_export.repair.least_squares import (
    AUTO,
    BIAS,
    LEAST_SQUARES,
    NONE,
    RIDGES,
    correction_error,
    fit_correction,
)
from anatomy_export.repair.refit import refit

NEURONS, HIDDEN, KEEP = 12, 5, torch.tensor([0, 2, 3, 7, 8])
SHAPES = ((5, HIDDEN), (HIDDEN,), (HIDDEN, HIDDEN))
PRUNED = [index for index in range(NEURONS) if index not in KEEP.tolist()]


def data(seed: int = 0, rows: int = 400):
    generator = torch.Generator().manual_seed(seed)
    activation = torch.randn(rows, NEURONS, generator=generator, dtype=torch.float64) + 1
    weight = torch.randn(NEURONS, HIDDEN, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return activation, weight


def moments(activation: torch.Tensor, weight: torch.Tensor):
    sums = GramAccumulator()
    sums.add(torch.cat([activation[:, KEEP], activation[:, PRUNED] @ weight[PRUNED]], dim=1))
    return sums.moments()


def test_the_formula_is_affine_least_squares():
    activation, weight = data()
    found = fit_correction(moments(activation, weight), moments(*data(1)), 5, mode=LEAST_SQUARES, ridges=(1e-12,))
    design = np.hstack([activation[:, KEEP].numpy(), np.ones((400, 1))])
    expected = np.linalg.lstsq(design, (activation[:, PRUNED] @ weight[PRUNED]).numpy(), rcond=None)[0]
    np.testing.assert_allclose(found.weight, expected[:-1], atol=1e-8)
    np.testing.assert_allclose(found.bias, expected[-1], atol=1e-8)


def test_the_held_out_error_is_the_residuals_mean_square_in_the_metric():
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(50, 5 + HIDDEN, generator=generator, dtype=torch.float64) + 1
    weights = torch.rand(50, generator=generator, dtype=torch.float64)
    weight, bias, root = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in SHAPES)
    sums = GramAccumulator()
    sums.add(rows, weights)
    residual = rows[:, 5:] - rows[:, :5] @ weight - bias
    for metric, squares in ((None, residual.square().sum(1)), (root @ root.T, (residual @ root).square().sum(1))):
        expected = float((weights * squares).sum() / weights.sum())
        assert correction_error(sums.moments(), weight, bias, metric) == pytest.approx(expected, rel=1e-9)


def test_an_exact_dependence_is_repaired_exactly():
    parts = []
    for seed in (0, 1):
        activation, weight = data(seed)
        mix = torch.randn(5, len(PRUNED), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        activation[:, PRUNED] = activation[:, KEEP] @ mix + 3
        parts.append(moments(activation, weight))
    found = fit_correction(*parts, 5)
    assert found.mode == LEAST_SQUARES
    assert found.masked_error > 1
    assert found.error < 1e-6 * found.masked_error


def test_removing_neurons_that_send_nothing_changes_nothing():
    activation, weight = data()
    weight[PRUNED] = 0
    found = fit_correction(moments(activation, weight), moments(activation, weight), 5)
    assert found.masked_error == found.error == 0
    assert (found.weight == 0).all()
    assert (found.bias == 0).all()


def test_a_mean_that_one_token_makes_is_not_taken_for_a_bias():
    """A neuron that fires hugely on a single fitted token and nowhere else: the bias alone would be ruinous."""
    activation, weight = data()
    held_out = moments(*data(1))
    activation[0, PRUNED[0]] = 1e5
    fit = moments(activation, weight)
    second = held_out.covariance + torch.outer(held_out.mean, held_out.mean)
    assert fit_correction(fit, held_out, 5, mode=BIAS).error > 1e3 * second[5:, 5:].trace()
    found = fit_correction(fit, held_out, 5)
    assert found.mode != BIAS
    assert found.error <= found.masked_error


@pytest.mark.parametrize("seed", range(5))
def test_the_smallest_ridge_does_not_beat_the_chosen_one(seed):
    """Few fitted rows: λ → 0 overfits, and held-out rows find that out; a third sample agrees."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(NEURONS, NEURONS, generator=generator, dtype=torch.float64)
    weight = data()[1]
    parts = [
        moments(torch.randn(rows, NEURONS, generator=generator, dtype=torch.float64) @ mix, weight)
        for rows in (8, 200, 2000)
    ]
    chosen = fit_correction(*parts[:2], 5)
    bare = fit_correction(*parts[:2], 5, mode=LEAST_SQUARES, ridges=(1e-10,))
    errors = [correction_error(parts[2], one.weight, one.bias) for one in (chosen, bare)]
    assert errors[0] <= 1.05 * errors[1]


def sentences(seed: int, count: int) -> tuple[str, ...]:
    generator = np.random.default_rng(seed)
    return tuple(" ".join(generator.choice(WORDS, generator.integers(3, 12))) for _ in range(count))


@cache
def calibrated(family: str):
    checkpoint = tiny_checkpoint(family)
    batches = calibration_batches(checkpoint, sentences(0, 120), max_length=64, batch_tokens=400)
    return checkpoint, batches, run_dense(checkpoint.model, batches)


def repaired(checkpoint, keep, result):
    layers = tuple(LayerPlan(index, 24, tuple(kept.tolist())) for index, kept in enumerate(keep))
    plan = PrunePlan(model_fingerprint(checkpoint.model), layers, "obs", repair=result.repair.entry())
    return slice_neurons(checkpoint.model, plan, result.repair)


def drift(checkpoint, model) -> float:
    """Mean squared change of the logits on fresh text."""
    inputs = checkpoint.tokenizer(list(sentences(1, 40)), padding=True, return_tensors="pt")
    with torch.inference_mode():
        return float((checkpoint.model(**inputs).logits - model(**inputs).logits).square().mean())


def test_keeping_all_changes_nothing(family_name):
    checkpoint, batches, dense = calibrated(family_name)
    keep = [np.arange(24)] * 3
    result = refit(checkpoint.model, batches, dense, keep)
    assert drift(checkpoint, repaired(checkpoint, keep, result)) < 1e-9


def test_a_duplicated_neuron_is_made_up_for(family_name):
    checkpoint = tiny_checkpoint(family_name)
    with torch.no_grad():
        for block in model_blocks(checkpoint.model):
            block.up_weight[5], block.up_bias[5] = block.up_weight[9], block.up_bias[9]
    batches = calibration_batches(checkpoint, sentences(0, 120), max_length=64, batch_tokens=400)
    keep = [np.array([index for index in range(24) if index != 5])] * 3
    dense = run_dense(checkpoint.model, batches)
    bare = refit(checkpoint.model, batches, dense, keep, mode=NONE)
    result = refit(checkpoint.model, batches, dense, keep)
    assert all(outcome.mode == LEAST_SQUARES for outcome in result.outcomes)
    assert drift(checkpoint, repaired(checkpoint, keep, result)) < 1e-4 * drift(
        checkpoint, repaired(checkpoint, keep, bare)
    )


def test_padding_counts_in_no_repair(family_name):
    """Text by text there is none; the same split, ridge and mode must give the same model, but for rounding."""
    checkpoint, keep, found = tiny_checkpoint(family_name), [np.arange(0, 24, 2)] * 3, []
    for batch_tokens in (1, 1000):
        batches = calibration_batches(checkpoint, sentences(0, 120), max_length=64, batch_tokens=batch_tokens)
        dense = run_dense(checkpoint.model, batches)
        found.append(refit(checkpoint.model, batches, dense, keep, mode=LEAST_SQUARES, ridges=(1e-2,)))
    assert [one.tokens for one in found[0].outcomes] == [one.tokens for one in found[1].outcomes]
    alone, padded = (repaired(checkpoint, keep, one) for one in found)
    assert drift(replace(checkpoint, model=alone), padded) < 1e-4 * drift(checkpoint, padded)


def test_repair_brings_the_logits_closer(family_name):
    checkpoint, batches, dense = calibrated(family_name)
    keep = [np.arange(0, 24, 2)] * 3
    found = {
        mode: drift(checkpoint, repaired(checkpoint, keep, refit(checkpoint.model, batches, dense, keep, mode=mode)))
        for mode in (NONE, AUTO)
    }
    assert found[AUTO] < 0.7 * found[NONE]


def test_a_later_layer_makes_up_for_an_earlier_one(family_name):
    """Only the first layer loses neurons; the second, whole, is refitted to what the dense model has there."""
    checkpoint, batches, dense = calibrated(family_name)
    keep = [np.arange(2), np.arange(24), np.arange(24)]
    result = refit(checkpoint.model, batches, dense, keep)
    first = result.outcomes[1]
    assert first.mode == LEAST_SQUARES
    assert first.error < 0.9 * first.masked_error
    alone = Repair(result.repair.layers[:1] + untouched(checkpoint, keep)[1:])
    assert drift(checkpoint, repaired(checkpoint, keep, result)) < drift(
        checkpoint, repaired(checkpoint, keep, replace(result, repair=alone))
    )


def untouched(checkpoint, keep) -> tuple[LayerRepair, ...]:
    blocks = model_blocks(checkpoint.model)
    return tuple(
        LayerRepair(block.down_weight[kept].detach().numpy(), block.down_bias.detach().numpy())
        for block, kept in zip(blocks, keep, strict=True)
    )


def test_a_repair_that_leads_away_is_left_out(monkeypatch):
    """Local optima that make the whole model worse on held-out text: none of them is taken."""
    checkpoint, batches, dense = calibrated("bert")
    keep = [np.arange(6)] * 3
    helped = refit(checkpoint.model, batches, dense, keep)
    assert {one.mode for one in helped.outcomes} != {NONE}
    losses = iter([np.zeros(9), np.eye(9)[0], np.zeros(9), np.ones(9)])
    monkeypatch.setattr("anatomy_export.repair.refit.expected_losses", lambda *_: next(losses))
    assert {one.mode for one in refit(checkpoint.model, batches, dense, keep).outcomes} != {NONE}, "within the noise"
    left_out = refit(checkpoint.model, batches, dense, keep)
    assert {one.mode for one in left_out.outcomes} == {NONE}
    assert refit(checkpoint.model, batches, dense, keep, mode=LEAST_SQUARES).outcomes[0].mode == LEAST_SQUARES
    for block, layer in zip(model_blocks(checkpoint.model), left_out.repair.layers, strict=True):
        np.testing.assert_array_equal(layer.down_weight, block.down_weight[:6].detach())
        np.testing.assert_array_equal(layer.down_bias, block.down_bias.detach())


@pytest.mark.parametrize(("noise", "rows"), [(1e-9, 400), (0.3, 40), (30.0, 12)])
def test_the_chosen_ridge_has_no_better_neighbour(noise, rows):
    """From nothing to be smoothed, through some, to hardly anything but noise."""
    ridges = (1e-8, *RIDGES, 10.0, 100.0)
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(9, 3, generator=generator)

    def sample() -> Moments:
        activation = torch.randn(rows, 9, generator=generator)
        sums = GramAccumulator()
        lacking = activation @ truth + noise * torch.randn(rows, 3, generator=generator)
        sums.add(torch.cat([activation, lacking], dim=1))
        return sums.moments()

    fit, held_out = sample(), sample()
    errors = [fit_correction(fit, held_out, 9, mode=LEAST_SQUARES, ridges=(one,)).error for one in ridges]
    found = fit_correction(fit, held_out, 9, mode=LEAST_SQUARES, ridges=ridges)
    place = ridges.index(found.ridge)
    assert found.error == errors[place]
    assert found.error <= min(errors[max(0, place - 1) : place + 2])
    assert found.error < errors[len(ridges) // 2] or place == len(ridges) // 2


def test_the_model_that_is_repaired_is_left_as_it_was(family_name):
    checkpoint, batches, dense = calibrated(family_name)
    before = {name: values.clone() for name, values in checkpoint.model.state_dict().items()}
    for mode in (NONE, LEAST_SQUARES, AUTO):
        refit(checkpoint.model, batches, dense, [np.arange(1, 24, 3)] * 3, mode=mode)
    after = checkpoint.model.state_dict()
    assert before.keys() == after.keys()
    for name, values in before.items():
        torch.testing.assert_close(after[name], values, rtol=0, atol=0)


def test_activations_beyond_what_is_held_are_computed_again(monkeypatch, family_name):
    checkpoint, batches, dense = calibrated(family_name)
    keep = [np.arange(0, 24, 2)] * 3
    found = []
    for held in (2**28, 0, batches[0].inputs["input_ids"].numel() * 12 * 4):
        monkeypatch.setattr("anatomy_export.repair.refit.HELD_BYTES", held)
        found.append(refit(checkpoint.model, batches, dense, keep).repair.layers[-1].down_weight)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-4, atol=1e-5)
