"""Gram, ridge solve and optimal brain surgeon: equal to their references, and right where the answer is known."""

import kernel_reference as reference
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anatomy_export.core.errors import AnatomyError
from anatomy_export.kernels import gram as gram_module
from anatomy_export.kernels.gram import GramAccumulator
from anatomy_export.kernels.obs import obs_removal, obs_scores
from anatomy_export.kernels.solve import ridge_factor, ridge_inverse, ridge_solve

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


def accumulate(rows: torch.Tensor, weights: torch.Tensor | None = None, parts: int = 3, block_rows: int = 7):
    accumulator = GramAccumulator(block_rows)
    for index, part in enumerate(rows.tensor_split(parts)):
        accumulator.add(part, None if weights is None else weights.tensor_split(parts)[index])
    return accumulator.moments()


def problem(seed: int = 0, rows: int = 60, neurons: int = 11, hidden: int = 5):
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randn(rows, neurons, generator=generator, dtype=torch.float64)
    weight = torch.randn(neurons, hidden, generator=generator, dtype=torch.float64)
    root = torch.randn(hidden, hidden, generator=generator, dtype=torch.float64)
    return activations, weight, root @ root.T


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@settings(max_examples=20, deadline=None)
@given(rows=st.integers(3, 41), neurons=st.integers(1, 13), seed=st.integers(0, 2**16))
def test_gram_moments(dtype, rows, neurons, seed):
    generator = np.random.default_rng(seed)
    values = generator.normal(5, 1, size=(rows, neurons))
    values[0] = 0
    weights = generator.uniform(0.1, 2, size=rows)
    found = accumulate(torch.tensor(values, dtype=dtype), torch.tensor(weights))
    mean, covariance = reference.gram_moments(values, weights)
    second = found.covariance + torch.outer(found.mean, found.mean)
    np.testing.assert_allclose(second, covariance + np.outer(mean, mean), atol=50 * TOLERANCE[dtype])
    np.testing.assert_allclose(found.mean, mean, atol=TOLERANCE[dtype])
    np.testing.assert_allclose(found.covariance, covariance, atol=5 * TOLERANCE[dtype])
    np.testing.assert_allclose(
        found.covariance + torch.outer(found.mean, found.mean),
        covariance + np.outer(mean, mean),
        atol=50 * TOLERANCE[dtype],
    )
    assert found.count == rows
    assert found.weight == pytest.approx(weights.sum())


def test_gram_of_a_large_mean_keeps_a_small_variance():
    values = 1000 + torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) / 100
    np.testing.assert_allclose(accumulate(values).covariance, np.cov(values.double().T, bias=True), atol=1e-8)


def test_gram_blocks_do_not_matter(monkeypatch):
    values = torch.randn(50, 7, dtype=torch.float64)
    whole = accumulate(values, parts=1)
    monkeypatch.setattr(gram_module, "BLOCK_ROWS", 9)
    monkeypatch.setattr(gram_module, "PANEL_COLUMNS", 3)
    torch.testing.assert_close(accumulate(values, parts=1).covariance, whole.covariance)


def test_gram_of_nothing():
    with pytest.raises(ValueError, match="no rows"):
        GramAccumulator().moments()


@settings(max_examples=20, deadline=None)
@given(neurons=st.integers(1, 13), hidden=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_ridge_solve(neurons, hidden, seed):
    activations, weight, _ = problem(seed, 30, neurons, hidden)
    gram = activations.T @ activations
    expected = reference.ridge_solve(gram.numpy(), weight.numpy(), 1e-3)
    np.testing.assert_allclose(ridge_solve(gram, weight, 1e-3)[0], expected, atol=1e-9)
    np.testing.assert_allclose(ridge_inverse(gram, 1e-3) @ weight, expected, atol=1e-9)


def test_ridge_grows_until_a_singular_gram_is_positive_definite():
    activations, weight, _ = problem(rows=4, neurons=9)
    gram = activations.T @ activations - 1e-6 * torch.eye(9, dtype=torch.float64)
    _, used = ridge_factor(gram, 0.0)
    assert 0 < used <= 1e-2
    assert torch.isfinite(ridge_solve(gram, weight, 0.0)[0]).all()
    assert (ridge_solve(torch.zeros_like(gram), 0 * weight, 1e-3)[0] == 0).all()


def test_a_gram_with_nan_is_refused():
    with pytest.raises(AnatomyError, match="NaN or infinity"):
        ridge_factor(torch.full((2, 2), torch.nan, dtype=torch.float64), 1e-3)


@pytest.mark.parametrize("plain", [True, False])
@settings(max_examples=15, deadline=None)
@given(neurons=st.integers(2, 9), hidden=st.integers(1, 5), block=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_obs_agrees_with_refitting_every_trial(plain, neurons, hidden, block, seed):
    activations, weight, metric = problem(seed, 30, neurons, hidden)
    metric = torch.eye(hidden, dtype=torch.float64) if plain else metric
    gram = activations.T @ activations / 30
    given_metric = None if plain else metric
    arrays = (gram.numpy(), weight.numpy(), metric.numpy(), 1e-4)
    np.testing.assert_allclose(obs_scores(gram, weight, given_metric), reference.obs_scores(*arrays), rtol=1e-6)
    found = obs_removal(gram, weight, given_metric, block=8)
    order, errors = reference.obs_removal(*arrays)
    np.testing.assert_array_equal(found.order, order)
    np.testing.assert_allclose(found.error, errors, rtol=1e-6)
    blocked = obs_removal(gram, weight, given_metric, block=block)
    assert sorted(blocked.order.tolist()) == list(range(neurons))
    for removed in range(1, neurons + 1):
        direct = reference.refit_error(*arrays, blocked.order[:removed].tolist())
        np.testing.assert_allclose(blocked.error[removed - 1], direct, rtol=1e-6, atol=1e-9)


def test_a_duplicate_goes_first_and_free_but_not_both():
    activations, weight, _ = problem()
    activations[:, 4] = activations[:, 7]
    removal = obs_removal(activations.T @ activations / 60, weight, ridge=1e-9)
    assert int(removal.order[0]) in (4, 7)
    assert removal.error[0] < 1e-6
    assert removal.error[1] > 1e-3
    assert {4, 7} != set(removal.order[:2].tolist())


def test_a_neuron_that_never_fires_goes_free():
    activations, weight, _ = problem()
    activations[:, 3] = 0
    removal = obs_removal(activations.T @ activations / 60, weight, count=2)
    assert removal.order[0] == 3
    assert removal.error[0] < 1e-2 * removal.error[1]
    assert len(removal.order) == 2


def test_a_gram_of_fewer_rows_than_neurons():
    activations, weight, metric = problem(rows=6, neurons=20)
    removal = obs_removal(activations.T @ activations / 6, weight, metric, block=3)
    assert torch.isfinite(removal.error).all()
    assert removal.error[13] < 1e-2 * removal.error[-1], "20 neurons span 6 dimensions, so 14 are nearly free"


def test_removing_none():
    activations, weight, _ = problem()
    removal = obs_removal(activations.T @ activations, weight, count=0)
    assert len(removal.order) == len(removal.error) == 0
