"""Arguments of the Python functions that mean nothing are refused by name, never read as something else."""

import numpy as np
import pytest
from conftest import tiny_checkpoint

import anatomy_export
from anatomy_export.core.errors import AnatomyError
from anatomy_export.criteria.registry import Context
from anatomy_export.criteria.scoring_pass import Measurement
from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.paper.rule import ratio_plan, threshold_plan
from anatomy_export.paper.study_setups import random_plan
from anatomy_export.paper.thresholds import ThresholdSetup
from anatomy_export.planning.allocation import global_widths, marginal_widths, uniform_widths
from anatomy_export.planning.options import ScoreOptions
from anatomy_export.planning.plan_maker import choose_widths
from anatomy_export.surgery.plan_from_file import weights_plan

NAN, INFINITY = float("nan"), float("inf")
SETUP = ThresholdSetup(0.01, 0.001, (1,))
MEASUREMENT = Measurement(None, {"random": [np.arange(8.0)] * 2}, (np.arange(9.0),) * 2, (9, 9))


def anatomy() -> Anatomy:
    generator = np.random.default_rng(0)
    similarity = generator.uniform(-0.3, 0.3, (2, 2, 8))
    return Anatomy(np.ones((2, 3)), tuple(similarity), 0.35, ("a", "b"), "f" * 64)


@pytest.fixture(scope="module")
def scored():
    checkpoint = tiny_checkpoint("bert")
    return checkpoint, anatomy_export.score(checkpoint.model, checkpoint.tokenizer, ["the film is good"])


ALIGN = {
    "ratio_plan": lambda align: ratio_plan(anatomy(), rule="bert", setup=SETUP, keep_ratio=0.5, align=align),
    "threshold_plan": lambda align: threshold_plan(anatomy(), rule="bert", setup=SETUP, align=align),
    "uniform_widths": lambda align: uniform_widths([8, 8], 0.5, align),
    "global_widths": lambda align: global_widths([np.arange(8.0)] * 2, 8, comparable=True, align=align),
    "marginal_widths": lambda align: marginal_widths([np.arange(9.0)] * 2, 8, align),
    "choose_widths": lambda align: choose_widths(MEASUREMENT, "random", keep_ratio=0.5, align=align),
    "ScoreOptions": lambda align: ScoreOptions(align=align),
}


@pytest.mark.parametrize("align", [0, -16, 1.5, "16", True, NAN])
@pytest.mark.parametrize("function", ALIGN)
def test_widths_are_multiples_of_a_whole_number_from_one(function, align):
    with pytest.raises(AnatomyError, match=r"^align is .*, expected a whole number of at least 1; next step"):
        ALIGN[function](align)


@pytest.mark.parametrize("function", ALIGN)
def test_a_whole_number_of_numpy_is_one(function):
    ALIGN[function](np.int64(2))


REDUCTION = {
    "reduced": lambda how: anatomy().reduced(how),
    "ratio_plan": lambda how: ratio_plan(anatomy(), rule="bert", setup=SETUP, keep_ratio=0.5, probe_reduction=how),
    "threshold_plan": lambda how: threshold_plan(anatomy(), rule="bert", setup=SETUP, probe_reduction=how),
    "Context": lambda how: Context(probe_reduction=how),
    "ScoreOptions": lambda how: ScoreOptions(probe_reduction=how),
}


@pytest.mark.parametrize("how", ["max", "", "Mean", None])
@pytest.mark.parametrize("function", REDUCTION)
def test_an_unknown_reduction_of_probes_is_not_the_mean(function, how):
    with pytest.raises(AnatomyError, match=r"^probe_reduction is .*, expected one of mean, first; next step"):
        REDUCTION[function](how)


PLANNED = {
    "align": ({"align": 0}, "align is 0, expected a whole number of at least 1"),
    "reduction": ({"probe_reduction": "max"}, "probe_reduction is 'max', expected one of mean, first"),
    "ratio nan": ({"keep_ratio": NAN}, "keep_ratio is nan, expected more than 0 and at most 1"),
    "ratio 0": ({"keep_ratio": 0}, "keep_ratio is 0, expected more than 0 and at most 1"),
    "ratio text": ({"keep_ratio": "0.5"}, "keep_ratio is '0.5', expected more than 0 and at most 1"),
    "alpha": ({"alpha": NAN}, "alpha is nan, expected a finite number"),
    "beta": ({"beta": INFINITY}, "beta is inf, expected a finite number"),
    "focus negative": ({"focus": [-1]}, "focus layer is -1, expected a whole number of at least 0"),
    "focus half": ({"focus": [1.5]}, "focus layer is 1.5, expected a whole number of at least 0"),
    "focus beyond": ({"focus": [3]}, "focus layer 3 does not exist: this model has layers 0–2"),
    "preset": ({"preset": "bert-10"}, "preset 'bert-10' is not one for the bert rule"),
}


@pytest.mark.parametrize("case", PLANNED)
def test_plan_refuses(case, scored):
    checkpoint, found = scored
    given, message = PLANNED[case]
    with pytest.raises(AnatomyError, match=message):
        anatomy_export.plan(checkpoint.model, found, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strong_threshold": NAN}, "strong_threshold is nan, expected a finite number"),
        ({"strong_threshold": INFINITY}, "strong_threshold is inf, expected a finite number"),
        ({"max_length": 0}, "max_length is 0, expected a whole number of at least 1"),
        ({"max_length": -5}, "max_length is -5, expected a whole number of at least 1"),
    ],
)
def test_score_refuses(given, message, scored):
    checkpoint, _ = scored
    with pytest.raises(AnatomyError, match=message):
        anatomy_export.score(checkpoint.model, checkpoint.tokenizer, ["the film"], **given)


OPTIONS = {
    "allocate": ("even", "one of uniform, global, sensitivity"),
    "compensate": ("bias-only", "one of none, bias, least-squares, auto"),
    "strong_threshold": (NAN, "a finite number"),
    "alpha": (NAN, "a finite number"),
    "max_accuracy_drop": (NAN, "a finite number"),
    "target_speedup": (INFINITY, "a finite number"),
    "keep_ratio": (1.5, "more than 0 and at most 1"),
    "flops_ratio": (0, "more than 0 and at most 1"),
    "batch": (0, "a whole number of at least 1"),
    "seq_len": (1, "a whole number of at least 2"),
    "seed": (-1, "a whole number of at least 0"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_an_export_are_refused(name):
    value, expected = OPTIONS[name]
    with pytest.raises(AnatomyError, match=f"^{name} is .*, expected {expected}; next step"):
        ScoreOptions(**{name: value})


def test_negative_seeds_and_counts_are_refused():
    with pytest.raises(AnatomyError, match="seed is -1, expected a whole number of at least 0"):
        random_plan(anatomy(), 2, seed=-1)
    with pytest.raises(AnatomyError, match="removed is -2, expected a whole number of at least 0"):
        random_plan(anatomy(), -2, seed=0)
    with pytest.raises(AnatomyError, match="seed is -1, expected a whole number of at least 0"):
        Context(seed=-1)
    with pytest.raises(AnatomyError, match="seed is -1, expected a whole number of at least 0"):
        weights_plan(None, criterion="random", keep_ratio=0.5, align=1, seed=-1)
