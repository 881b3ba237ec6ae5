"""What an anatomy says in a few numbers: strong neurons, how far probes agree on them, what dangles or is offset."""

from itertools import combinations

import numpy as np

from anatomy_export.paper.anatomy import Anatomy

QUANTILE_SHARE = 0.05


def summarize_anatomy(anatomy: Anatomy) -> dict:
    """Plain values for `anatomy.json`; lists hold one value a layer, shares and similarities are fractions.

    `strong` counts neurons that are strong for any probe. `dangling` and `offset`: see `dangling_neurons`,
    `offset_neurons`. `quantile_threshold` is the similarity above which the top `quantile_share` of all neurons lie,
    each by the probe that it suits best: the share that the paper speaks of ("less than five percent").
    """
    layers = range(anatomy.num_layers)
    best = np.concatenate([similarity.max(axis=0) for similarity in anatomy.neuron_similarity])
    mean, chance = strong_agreement(anatomy)
    return {
        "layer_similarity_mean": anatomy.layer_similarity.mean(axis=0).tolist(),
        "strong": [len(anatomy.strong(layer)) for layer in layers],
        "strong_share": float((best > anatomy.strong_threshold).mean()),
        "jaccard_mean": mean,
        "jaccard_chance": chance,
        "jaccard_by_layer": [strong_agreement(anatomy, [layer])[0] for layer in layers],
        "dangling": [int(dangling_neurons(anatomy, layer).sum()) for layer in layers],
        "offset": [int(offset_neurons(anatomy, layer).sum()) for layer in layers],
        "opposed": [int(opposed_neurons(anatomy, layer).any(axis=0).sum()) for layer in layers],
        "highest": [float(similarity.max()) for similarity in anatomy.neuron_similarity],
        "quantile_threshold": float(np.quantile(best, 1 - QUANTILE_SHARE)),
        "quantile_share": QUANTILE_SHARE,
    }


def strong_agreement(anatomy: Anatomy, layers: list[int] | None = None) -> tuple[float | None, float | None]:
    """Mean Jaccard index of two probes' strong sets (the paper, figures 2a and 3a), and about what chance would give.

    A probe's set holds its strong neurons of all `layers` (None: every layer). Chance: sets with as many neurons in
    each layer, drawn at random; the expected common neurons over the expected union. Pairs of empty sets say nothing
    and are left out; None where no pair is left, as with a single probe.
    """
    masks = [anatomy.strong_mask(layer) for layer in (range(anatomy.num_layers) if layers is None else layers)]
    agreements, by_chance = [], []
    for first, second in combinations(range(len(anatomy.probes)), 2):
        total = sum(int(mask[first].sum() + mask[second].sum()) for mask in masks)
        if not total:
            continue
        common = sum(int((mask[first] & mask[second]).sum()) for mask in masks)
        expected = sum(mask[first].sum() * mask[second].sum() / mask.shape[1] for mask in masks)
        agreements.append(common / (total - common))
        by_chance.append(float(expected / (total - expected)))
    return (float(np.mean(agreements)), float(np.mean(by_chance))) if agreements else (None, None)


def opposed_neurons(anatomy: Anatomy, layer: int) -> np.ndarray:
    """(P, n): neurons that point away from a probe's target as far as strong ones point to it (s below −threshold)."""
    return anatomy.neuron_similarity[layer] < -anatomy.strong_threshold


def dangling_neurons(anatomy: Anatomy, layer: int) -> np.ndarray:
    """(n,): strong neurons of a layer that have no strong neuron below them, for one of the probes at least.

    Below is the next layer, as the paper draws its graph (figures 2 and 3), in which strong neurons of neighbouring
    layers are connected all with all: "information is gathered to this node but somehow it doesn't pass down". The last
    layer hands its token to the classifier, so nothing dangles there.
    """
    strong = anatomy.strong_mask(layer)
    if layer == anatomy.num_layers - 1:
        return np.zeros(strong.shape[1], dtype=bool)
    ends = ~anatomy.strong_mask(layer + 1).any(axis=1, keepdims=True)
    return np.any(strong & ends, axis=0)


def offset_neurons(anatomy: Anatomy, layer: int) -> np.ndarray:
    """(n,): strong neurons of a layer that the next layer works against, for one of the probes at least.

    It does where a neuron of it is opposed (`opposed_neurons`) for the same probe: with neighbours connected all with
    all, that is the paper's "one neuron is offset by another neuron in the following layer" ("negative cosine
    similarities").
    """
    strong = anatomy.strong_mask(layer)
    if layer == anatomy.num_layers - 1:
        return np.zeros(strong.shape[1], dtype=bool)
    against = opposed_neurons(anatomy, layer + 1).any(axis=1, keepdims=True)
    return np.any(strong & against, axis=0)
