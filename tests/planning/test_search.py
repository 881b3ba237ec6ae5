"""The search finds what bisection would, in few calls where the guess is good; its guess grows with the damage."""

import math

import numpy as np
import pytest
import torch

from anatomy_export.planning.accuracy_budget import DAMAGE_SCALE, LastThatFits, predicted_drop, summed_damage


@pytest.mark.parametrize("count", [1, 2, 15])
def test_every_answer_is_found_from_every_guess(count):
    for answer in range(-1, count):
        for guess in range(-1, count + 1):
            called = []
            search = LastThatFits(count, guess)
            while search.unsettled:
                called.append(search.position)
                search.tell(search.position <= answer)
            assert search.last == answer
            assert len(called) == len(set(called)) <= 2 + 2 * math.log2(count)
            if guess == answer:
                assert len(called) <= 2


def test_the_predicted_drop_is_that_of_a_normal_deviation_of_the_margin():
    generator = np.random.default_rng(0)
    logits = torch.from_numpy(generator.normal(0, 2, (50, 2)))
    damage = 0.04
    deviations = generator.normal(0, DAMAGE_SCALE * 0.2, (20_000, 1))
    probabilities = logits.softmax(-1).numpy()
    margins = np.abs(logits[:, 0] - logits[:, 1]).numpy()
    gaps = np.abs(probabilities[:, 0] - probabilities[:, 1])
    simulated = 100 * (gaps * (margins + deviations < 0)).mean()
    assert predicted_drop([logits[:20], logits[20:]], damage) == pytest.approx(simulated, rel=0.05)
    assert predicted_drop([logits], 0.0) == 0
    assert predicted_drop([logits], 4 * damage) > predicted_drop([logits], damage)


def test_damage_is_that_of_what_goes():
    damage = [np.array([0.0, 1.0, 3.0]), np.array([0.0, 10.0, 20.0, 40.0])]
    assert summed_damage(damage, [2, 3]) == 0
    assert summed_damage(damage, [1, 1]) == 21
