"""The thresholds that the paper's authors printed (figure 4a) are the test vectors."""

import numpy as np
import pytest

from anatomy_export.core.errors import AnatomyError
from anatomy_export.paper.thresholds import (
    PRESETS,
    ThresholdSetup,
    default_focus,
    layer_thresholds,
    preset_setup,
)

BERT_C = [
    0.38625508546829223, 0.4827066957950592, 0.4570650458335877, 0.4254678189754486,
    0.4232426881790163, 0.4341769516468049, 0.449687480926514, 0.4727830588817597,
    0.4978512823581697, 0.5823191404342653, 0.750113844871521, 0.9035356044769287,
]  # fmt: skip
BERT_1 = [
    0.0038625508546829223, 0.004827066957950592, 0.004570650458335877, 0.007254678189754486,
    0.016232426881790163, 0.009341769516468049, 0.02249687480926514, 0.011727830588817597,
    0.028978512823581697, 0.014823191404342653, 0.03750113844871521, 3 * 0.009035356044769287,
]  # fmt: skip
BERT_2 = [
    0.009656377136707306, 0.012067667394876481, 0.011426626145839692, 0.013636695474386215,
    0.022581067204475405, 0.015854423791170122, 0.029242187023162843, 0.018819576472043992,
    0.03644628205895424, 0.023557978510856628, 0.04875284612178803, 3 * 0.02258839011192322,
]  # fmt: skip
GPT2_C = [
    -0.15285155177116394, 0.0398575887084007, 0.04156063124537468, 0.058554593473672872,
    0.07697033137083054, 0.08342868089675904, 0.09570317715406418, 0.12565302848815918,
    0.14758637547492982, 0.1325857490301132, 0.12264932692050935, 0.14829948544502258,
]  # fmt: skip
GPT2_1 = [
    -0.007642577588558197, 0.0019928794354200363, 0.002078031562268734, 0.0029277296736836436,
    0.003848516568541527, 0.004171434044837952, 0.004785158857703209, 0.0062826514244079595,
    0.007379318773746491, 0.006629287451505661, 0.0061324663460254674, 3 * 0.007414974272251129,
]  # fmt: skip


@pytest.mark.parametrize(
    ("preset", "rule", "similarity", "printed"),
    [
        ("bert-1", "bert", BERT_C, BERT_1),
        ("bert-2", "bert", BERT_C, BERT_2),
        ("gpt2-1", "gpt2", GPT2_C, GPT2_1),
    ],
)
def test_printed_thresholds(preset, rule, similarity, printed):
    found = layer_thresholds(rule, similarity, 12, preset_setup(preset, rule, 12))
    np.testing.assert_allclose([one.value for one in found], printed, rtol=1e-7)
    assert [one.rule for one in found] == ["absolute"] * 11 + ["one-sided"]


def test_focus_defaults_follow_depth():
    assert default_focus("bert", 12) == (4, 6, 8, 10, 11)
    assert default_focus("bert", 6) == (3, 5)
    assert default_focus("gpt2", 12) == (11,)
    assert preset_setup("gpt2-6", "gpt2", 12).focus == (10, 11)
    assert preset_setup("gpt2-7", "gpt2", 6).focus == (4, 5)


def test_last_layer_out_of_focus_is_absolute():
    found = layer_thresholds("bert", BERT_C, 12, ThresholdSetup(0.01, 0.001, (4,)))
    assert found[11].rule == "absolute"
    assert found[11].value == pytest.approx(0.01 * BERT_C[11] + 0.001 * 11)


def test_negative_absolute_threshold_prunes_nothing():
    first = layer_thresholds("gpt2", GPT2_C, 12, preset_setup("gpt2-1", "gpt2", 12))[0]
    assert first.value < 0
    assert not first.prunes(np.linspace(-1, 1, 101)).any()


def test_unknown_preset_lists_those_of_the_rule():
    assert len(PRESETS) == 16
    with pytest.raises(AnatomyError, match="bert-9"):
        preset_setup("gpt2-1", "bert", 12)


def test_focus_beyond_the_model():
    with pytest.raises(AnatomyError, match="focus layer 12 does not exist: this model has layers 0–11"):
        layer_thresholds("bert", BERT_C, 12, ThresholdSetup(0.01, 0.001, (12,)))
