"""Every criterion on every family, and how widths are shared out."""

from functools import cache

import numpy as np
import pytest
import torch
from conftest import tiny_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from anatomy_export.bench.measure_latency import latency_table
from anatomy_export.calibration.batches import calibration_batches
from anatomy_export.calibration.layer_statistics import dense_statistics
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.criteria import scoring_pass as measuring
from anatomy_export.criteria.obs import gradient_removal, removal_damage
from anatomy_export.criteria.registry import CRITERIA, Context, find_criterion
from anatomy_export.criteria.scoring_pass import measure
from anatomy_export.data.loading import Dataset, Examples
from anatomy_export.data.probes import FROM_FILE, Probes
from anatomy_export.models.fingerprint import model_identity
from anatomy_export.models.supported_families import model_blocks
from anatomy_export.paper.scoring import score_anatomy
from anatomy_export.paper.thresholds import preset_setup
from anatomy_export.planning import plan_maker, sweep
from anatomy_export.planning.allocation import global_widths, marginal_widths, uniform_widths
from anatomy_export.planning.choose import PlanRequest, choose_plan
from anatomy_export.planning.options import ScoreOptions
from anatomy_export.planning.plan_maker import choose_widths, kept_neurons

TEXTS = ("the film is good", "awful", "a very bad story", "I walked out of cinema", "a great plot", "not good")
LABELS = (1, 0, 0, 0, 1, 0)


@cache
def measured(family: str):
    checkpoint = tiny_checkpoint(family)
    with torch.no_grad():
        for block in model_blocks(checkpoint.model):
            block.down_weight[4] = 0
    batches = calibration_batches(checkpoint, TEXTS, LABELS, max_length=64)
    rule = "gpt2" if family == "gpt2" else "bert"
    context = Context(
        anatomy=score_anatomy(checkpoint, TEXTS[:2], strong_threshold=0.9, max_length=64),
        rule=rule,
        setup=preset_setup(f"{rule}-1", rule, 3),
    )
    return list(dense_statistics(checkpoint.model, batches, fisher=True, plain=True)[1]), context


@pytest.mark.parametrize("name", CRITERIA)
def test_a_neuron_that_sends_nothing_ranks_last(family_name, name):
    layers, context = measured(family_name)
    for layer in layers:
        scores = find_criterion(name).score(layer, context)
        assert scores.shape == (24,)
        assert not np.isnan(scores).any()
        np.testing.assert_array_equal(scores, find_criterion(name).score(layer, context))
        one_sided = name == "anatomy" and context.similarity(layer.layer)[1].rule == "one-sided"
        if name != "random" and not one_sided:
            assert scores[4] <= np.sort(scores)[1]


def test_known_values():
    layers, context = measured("bert")
    layer = layers[0]
    rms, norms = layer.mean_square.sqrt(), layer.down_weight.norm(dim=1)
    np.testing.assert_allclose(CRITERIA["activation"].score(layer, context), rms * norms)
    np.testing.assert_allclose(CRITERIA["fluctuation"].score(layer, context), layer.variance * norms**2)
    weighted = CRITERIA["anatomy-activation"].score(layer, context)
    np.testing.assert_allclose(weighted, rms * norms * np.abs(context.similarity(0)[0]), rtol=1e-6)


def test_strong_neurons_stay():
    layers, context = measured("bert")
    strict = Context(
        **{
            **vars(context),
            "anatomy": score_anatomy(tiny_checkpoint("bert"), TEXTS, strong_threshold=0.1, max_length=64),
        }
    )
    for name in ("anatomy", "anatomy-activation"):
        scores = CRITERIA[name].score(layers[0], strict)
        strong = strict.similarity(0)[2]
        assert len(strong) > 0
        assert np.isinf(scores[strong]).all()


def test_greedy_scores_follow_the_order_of_removal():
    layers, context = measured("bert")
    scores = CRITERIA["obs-gradient"].score(layers[0], context)
    assert len(np.unique(scores)) == 24
    curve = removal_damage(gradient_removal(layers[0], context))
    assert curve.shape == (25,)
    assert curve[0] == 0
    assert (np.diff(curve) > -1e-15).all()


def test_what_a_criterion_needs():
    layers, context = measured("bert")
    with pytest.raises(AnatomyError, match="'wanda' does not exist; choose of anatomy, "):
        find_criterion("wanda")
    with pytest.raises(AnatomyError, match="need the model's anatomy"):
        CRITERIA["anatomy"].score(layers[0], Context())
    bare = type(layers[0])(**{**vars(layers[0]), "fisher": None})
    with pytest.raises(AnatomyError, match="fisher needs labelled"):
        CRITERIA["fisher"].score(bare, context)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), align=st.sampled_from([1, 3, 4]), seed=st.integers(0, 1000))
def test_marginal_widths_are_the_cheapest(data, align, seed):
    generator = np.random.default_rng(seed)
    widths = data.draw(st.lists(st.integers(4, 13), min_size=1, max_size=4))
    curves = [np.concatenate([[0], np.sort(generator.exponential(size=width)).cumsum()]) for width in widths]
    total = data.draw(st.integers(align * len(widths), sum(widths)))
    found = marginal_widths(curves, total, align)
    assert total <= sum(found) < total + align + max(width % align for width in widths) + 1
    assert all(1 <= kept <= width for kept, width in zip(found, widths, strict=True))
    assert all(kept % align == 0 or kept == width for kept, width in zip(found, widths, strict=True))
    if align == 1:
        costs = np.sort(np.concatenate([np.diff(curve)[:-1] for curve in curves]))
        gone = sum(widths) - total
        spent = sum(curve[width - kept] for curve, width, kept in zip(curves, widths, found, strict=True))
        np.testing.assert_allclose(spent, costs[:gone].sum())


def test_kept_neurons_are_the_best_and_all_the_protected():
    scores = (np.array([3.0, 1, 3, 2]), np.array([np.inf, 1, 2, np.inf]))
    assert [kept.tolist() for kept in kept_neurons(scores, [2, 2])] == [[0, 2], [0, 3]]
    with pytest.raises(AnatomyError, match="layer 1: 2 strong neurons are protected but the budget leaves room for 1"):
        kept_neurons(scores, [2, 1])


@pytest.mark.parametrize("allocate", ["uniform", "global", "sensitivity"])
def test_measure_and_choose(family_name, allocate):
    checkpoint = tiny_checkpoint(family_name)
    batches = calibration_batches(checkpoint, TEXTS, LABELS, max_length=64)
    names = ["obs", "fisher", "obs-gradient"]
    ticks: list[int] = []
    found = measure(checkpoint.model, batches, names, Context(), tick=lambda: ticks.append(1))
    assert len(ticks) == len(batches) + 3
    for name in names:
        widths = choose_widths(found, name, keep_ratio=0.5, allocate=allocate)
        assert sum(widths) == 36
        assert [len(kept) for kept in kept_neurons(found.scores[name], widths)] == widths
    assert choose_widths(found, "obs", keep_ratio=1, allocate=allocate) == [24] * 3
    with pytest.raises(AnatomyError, match="expected more than 0"):
        choose_widths(found, "obs", keep_ratio=0)
    with pytest.raises(AnatomyError, match="allocation is 'even', expected one of uniform, global, sensitivity"):
        choose_widths(found, "obs", keep_ratio=0.5, allocate="even")


def test_widths_without_room():
    with pytest.raises(AnatomyError, match="3 neurons are to be kept, but 4 layers need at least 4"):
        marginal_widths([np.arange(6.0)] * 4, 3)


def test_uniform_and_global_widths():
    assert uniform_widths([24, 10], 0.5) == [12, 5]
    assert uniform_widths([24, 10], 0.5, align=8) == [16, 8]
    scores = [np.array([9.0, 8, 7, 6]), np.array([1.0, 2, 3, 4])]
    assert global_widths(scores, 5, comparable=True) == [4, 1]
    assert global_widths(scores, 4, comparable=False) == [2, 2]
    assert global_widths([np.array([np.inf, 1, 2, 3]), np.array([4.0, 5, 6, 7])], 4, comparable=True) == [1, 3]


def test_neurons_are_removed_greedily_only_where_it_is_asked_for(monkeypatch):
    checkpoint = tiny_checkpoint("bert")
    batches = calibration_batches(checkpoint, TEXTS, LABELS, max_length=64)
    greedy: list[int] = []
    real = measuring.gradient_removal
    monkeypatch.setattr(
        measuring, "gradient_removal", lambda layer, context: greedy.append(layer.layer) or real(layer, context)
    )
    names = ["magnitude", "fisher", "obs"]
    whole = measure(checkpoint.model, batches, names, Context())
    assert greedy == [0, 1, 2] and len(whole.damage) == 3
    plain = measure(checkpoint.model, batches, names, Context(), damage=False)
    assert greedy == [0, 1, 2] and plain.damage is None
    for name in names:
        for one, other in zip(plain.scores[name], whole.scores[name], strict=True):
            np.testing.assert_array_equal(one, other)
        for allocate in ("uniform", "global"):
            widths = [choose_widths(each, name, keep_ratio=0.5, allocate=allocate) for each in (plain, whole)]
            assert widths[0] == widths[1]
    shared = measure(checkpoint.model, batches, ["obs-gradient"], Context(), damage=False)
    assert greedy == [0, 1, 2] * 2 and len(shared.damage) == 3


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (ScoreOptions(criterion="magnitude", keep_ratio=0.5), False),
        (ScoreOptions(criterion="fisher", keep_ratio=0.5, allocate="global"), False),
        (ScoreOptions(criterion="magnitude", keep_ratio=0.5, allocate="sensitivity"), True),
        (ScoreOptions(criterion="magnitude", max_accuracy_drop=100), True),
    ],
)
def test_a_plan_asks_for_the_damage_that_it_needs(options, asked, monkeypatch):
    given: list[bool] = []
    real = plan_maker.measure
    monkeypatch.setattr(
        plan_maker, "measure", lambda *arguments, **named: given.append(named["damage"]) or real(*arguments, **named)
    )
    choose_plan(request_of(options))
    assert given == [asked]


def request_of(options: ScoreOptions) -> PlanRequest:
    """Of probes that are longer than the model takes."""
    checkpoint, examples = tiny_checkpoint("bert"), Examples(tuple(TEXTS) * 4, tuple(LABELS) * 4)
    data = Dataset("data", examples, examples, examples, ("no", "yes"))
    probes = Probes(("a " * 200,), FROM_FILE)
    return PlanRequest(
        checkpoint=checkpoint,
        data=data,
        probes=probes,
        options=options,
        max_length=32,
        examples=None,
        identity=model_identity(checkpoint.model),
        measure_latency=latency_table,
        progress=Progress(),
    )


def test_probes_are_read_only_where_the_criterion_is_of_the_anatomy():
    plain = choose_plan(request_of(ScoreOptions(criterion="magnitude", keep_ratio=0.5)))
    assert plain.plan.kept_widths == [12, 12, 12]
    for criterion in ("anatomy", "anatomy-activation"):
        with pytest.raises(AnatomyError, match="has 202 tokens, this model takes at most 66"):
            choose_plan(request_of(ScoreOptions(criterion=criterion, keep_ratio=0.5)))


@pytest.mark.parametrize("criterion", ["magnitude", "anatomy"])
def test_ways_of_a_frontier_read_probes_only_where_one_is_of_the_anatomy(criterion, monkeypatch):
    scored: list[int] = []
    real = sweep.score_anatomy
    monkeypatch.setattr(
        sweep, "score_anatomy", lambda *arguments, **named: scored.append(1) or real(*arguments, **named)
    )
    examples = Examples(tuple(TEXTS) * 4, tuple(LABELS) * 4)
    spec = sweep.PruneSpec(criterion, "uniform", "none", 0.5)
    [pruned] = sweep.prune_each(tiny_checkpoint("bert"), examples, [spec], seed=0, examples=8, max_length=32)
    assert pruned.widths == [12, 12, 12] and len(scored) == (criterion == "anatomy")
