"""The paper's claims about anatomy and pruning, checked on the two embedded models.

Run `.venv/bin/python benchmarks/paper_claims.py` after `anatomy study --model bert` and `--model gpt2`, summarized,
have given study-bert.json and study-gpt2.json. Writes paper-claims.json beside this file: of every claim and model a
verdict and the numbers that it rests on. docs/PAPER.md is rendered from it.
"""

import copy
from math import sqrt
from pathlib import Path

import numpy as np
from cells import load
from study_tables import presets
from summarize import NOISE_Z, paired, write_json

from anatomy_export.commands.terminal import quiet_libraries
from anatomy_export.core.progress import Progress
from anatomy_export.data.loading import Examples, movie_reviews
from anatomy_export.data.probes import BUILT_IN_PROBES
from anatomy_export.evaluation.torch_classifier import encode_texts, encoded_probabilities
from anatomy_export.models.checkpoint import Checkpoint, load_checkpoint
from anatomy_export.models.prune import mask_neurons_
from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.paper.anatomy_summary import summarize_anatomy
from anatomy_export.paper.rule import threshold_plan
from anatomy_export.paper.scoring import score_anatomy
from anatomy_export.paper.thresholds import ThresholdSetup, early_layers
from anatomy_export.zoo.embedded import EMBEDDED_MODELS, minilm_directory, resolve_model

HOLDS, FAILS, UNDECIDED, UNTESTABLE = "holds", "does not hold", "undecided", "not testable here"
NEARLY_THE_SAME = 0.8  # of a Jaccard index
UNDER = 0.05  # of all neurons
TENTH = 0.1  # point of accuracy
SENTENCES = 200
TOKENS = 128  # that texts are cut off at
DEEPER_ALPHA, DEEPER_LAYERS = 0.15, (1, 2, 3, 4)


def verdict(holds: bool, **numbers) -> dict:
    return {"verdict": HOLDS if holds else FAILS, "numbers": numbers}


def untestable(why: str) -> dict:
    return {"verdict": UNTESTABLE, "why": why}


def main() -> None:
    quiet_libraries()
    progress = Progress()
    names = ("bert", "gpt2")
    with progress.stage("score"):
        models = {name: load_checkpoint(resolve_model(name, progress).checkpoint) for name in names}
        anatomies = {name: score_anatomy(models[name], BUILT_IN_PROBES, max_length=TOKENS) for name in names}
        before = score_anatomy(EMBEDDED_MODELS["bert"].build(minilm_directory()), BUILT_IN_PROBES, max_length=TOKENS)
    studies = {name: load(f"study-{name}") for name in names}
    with progress.stage("early layers on labelled sentences"):
        sensitivity = negative_sensitivity(models["bert"], movie_reviews().test)
    with progress.stage("prune deeper layers"):
        deeper = moving_down(models["gpt2"], anatomies["gpt2"], movie_reviews().test)
    claims = {
        **bert_claims(anatomies["bert"], sensitivity),
        **gpt2_claims(anatomies["gpt2"], deeper),
        **shared_claims(anatomies, studies),
        "same-after-fine-tuning": {
            "bert": same_sets(before, anatomies["bert"]),
            "gpt2": untestable("its blocks are trained from nothing here: there is no model before fine-tuning"),
        },
    }
    body = {"sentences": SENTENCES, "settings": {name: studies[name]["settings"] for name in names}, "claims": claims}
    write_json(Path(__file__).with_name("paper-claims.json"), body)


def bert_claims(anatomy: Anatomy, sensitivity: dict) -> dict:
    similarity = anatomy.layer_similarity.mean(axis=0)
    layers = anatomy.num_layers
    late = round(layers * 8 / 12)
    before, after = similarity[late] - similarity[0], similarity[-1] - similarity[late]
    rises = np.diff(similarity)
    fewer: dict[str, dict] = {}
    funnels: dict[str, list[int]] = {}
    for name, threshold in thresholds(anatomy).items():
        counts = strong_counts(anatomy, threshold)
        fewer[name] = {"counts": counts, "correlation": float(correlation(counts))}
        funnels[name] = [
            layer for layer in range(1, layers - 1) if counts[layer] < min(counts[layer - 1 : layer + 2 : 2])
        ]
    return {
        "bert-surges-late": {
            "bert": verdict(
                after > before, late=late, before=before, after=after, last=rises[-1], similarity=similarity.tolist()
            )
        },
        "bert-negative-early": {"bert": sensitivity},
        "bert-fewer-with-depth": {
            "bert": verdict(all(trend["correlation"] < 0 for trend in fewer.values()), **fewer),
        },
        "bert-funnels": {"bert": verdict(all(funnels.values()), **funnels)},
    }


def gpt2_claims(anatomy: Anatomy, deeper: dict) -> dict:
    similarity = anatomy.layer_similarity.mean(axis=0)
    rises = np.diff(similarity)
    counts = strong_counts(anatomy, anatomy.strong_threshold)
    late = rises[anatomy.num_layers // 2 : -1]
    return {
        "gpt2-starts-negative": {"gpt2": verdict(similarity[0] < 0, first=float(similarity[0]))},
        "gpt2-dips": {"gpt2": verdict(late.min() < 0, least_rise=float(late.min()))},
        "gpt2-decides-last": {
            "gpt2": verdict(
                rises[-1] == rises.max(), last=float(rises[-1]), largest=float(rises.max()), at=int(rises.argmax())
            )
        },
        "gpt2-strong-last": {
            "gpt2": verdict(sum(counts[:-2]) == 0 and sum(counts) > 0, counts=counts, last_two=sum(counts[-2:]))
        },
        "gpt2-rises-when-moving-down": {"gpt2": deeper},
    }


def shared_claims(anatomies: dict[str, Anatomy], studies: dict[str, dict]) -> dict:
    claims: dict[str, dict] = {}
    for model, anatomy in anatomies.items():
        summary = summarize_anatomy(anatomy)
        jaccard = {name: summary[f"jaccard_{name}"] for name in ("mean", "chance")}
        verdicts = {
            "same-for-every-input": verdict((jaccard["mean"] or 0) >= NEARLY_THE_SAME, **jaccard),
            "dangling": verdict(
                sum(summary["dangling"]) > 0, count=sum(summary["dangling"]), of=sum(summary["strong"])
            ),
            "offset": verdict(sum(summary["offset"]) > 0, count=sum(summary["offset"]), of=sum(summary["strong"])),
            "under-five-percent": verdict(0 < summary["strong_share"] < UNDER, share=summary["strong_share"]),
            **pruning_claims(studies[model]),
            "masking-is-faster": masking(model, studies[model]),
        }
        for name, claim in verdicts.items():
            claims.setdefault(name, {})[model] = claim
    return claims


def pruning_claims(study: dict) -> dict:
    gains = {name: setup["gain_over_random"] for name, setup in presets(study).items()}
    better = [name for name, (gain, half) in gains.items() if gain - half > 0]
    worse = [name for name, (gain, half) in gains.items() if gain + half < 0]
    third = min(presets(study), key=lambda name: abs(study["setups"][name]["removed_share"] - 0.3))
    share = study["setups"][third]["removed_share"]
    drop, half = study["setups"][third]["drop"]
    small = verdict(drop <= TENTH, preset=third, removed_share=share, drop=drop, half_interval=half)
    if drop - half <= TENTH < drop:
        small["verdict"] = UNDECIDED
    return {
        "structured-beats-random": verdict(
            len(better) == len(gains),
            presets=len(gains),
            better=better,
            worse=worse,
            gains={name: gain for name, (gain, _) in gains.items()},
        ),
        "a-third-costs-a-tenth": small,
    }


def masking(model: str, study: dict) -> dict:
    """Dense time ÷ masked time, from the study where it was timed, else from the paper's job, paper-<model>.json."""
    seconds = [setup["seconds"] for setup in presets(study).values() if setup["seconds"]]
    ratios = [(timing["dense_ratio"], timing["dense_ratio_interval"]) for timing in seconds]
    job = Path(__file__).with_name(f"paper-{model}.json")
    if not ratios and job.exists():
        masked = [result for result in load(job.stem)["results"] if result["variant"] == "mask"]
        ratios = [(result["speedup"], result["speedup_interval"]) for result in masked]
    if not ratios:
        return untestable("it was not timed")
    return verdict(
        all(low > 1 for _, (low, _) in ratios),
        source=f"study-{model}.json" if seconds else job.name,
        setups=len(ratios),
        faster=sum(low > 1 for _, (low, _) in ratios),
        slower=sum(high < 1 for _, (_, high) in ratios),
        least=min(ratio for ratio, _ in ratios),
        most=max(ratio for ratio, _ in ratios),
    )


def negative_sensitivity(checkpoint: Checkpoint, texts: Examples) -> dict:
    """How much more the early layers turn negative sentences to the target than positive ones."""
    chosen = texts.head(SENTENCES)
    similarity = score_anatomy(checkpoint, chosen.texts, max_length=TOKENS).layer_similarity
    rise = similarity[:, early_layers(similarity.shape[1] - 1)] - similarity[:, 0]
    labels = np.array(chosen.labels)
    negative, positive = rise[labels == 0], rise[labels == 1]
    difference = float(negative.mean() - positive.mean())
    half = NOISE_Z * sqrt(negative.var(ddof=1) / len(negative) + positive.var(ddof=1) / len(positive))
    return verdict(
        difference - half > 0,
        negative=float(negative.mean()),
        positive=float(positive.mean()),
        difference=difference,
        half_interval=half,
        early=early_layers(similarity.shape[1] - 1),
    )


def moving_down(checkpoint: Checkpoint, anatomy: Anatomy, texts: Examples) -> dict:
    """The paper's last GPT-2 setups: alpha 0.15, the last k layers in focus, k rising."""
    encoded, labels = encode_texts(checkpoint, texts.texts, TOKENS), np.array(texts.labels)
    steps, answers = [], []
    for count in DEEPER_LAYERS:
        focus = tuple(range(anatomy.num_layers - count, anatomy.num_layers))
        plan = threshold_plan(anatomy, rule="gpt2", setup=ThresholdSetup(DEEPER_ALPHA, 0.0, focus))
        masked = copy.deepcopy(checkpoint.model)
        mask_neurons_(masked, plan)
        answers.append((encoded_probabilities(masked, encoded).argmax(1) == labels).astype(float))
        steps.append({"layers": count, "removed": plan.removed, "accuracy": float(answers[-1].mean())})
    gain, half = paired(answers[-1], answers[0])
    return verdict(gain - half > 0, alpha=DEEPER_ALPHA, steps=steps, gain=gain, half_interval=half)


def same_sets(before: Anatomy, after: Anatomy) -> dict:
    """The strong neurons of any probe before fine-tuning and after, at the paper's threshold and as the top 5 %."""
    comparisons = {}
    for name in thresholds(before):
        first, second = (strong_set(anatomy, thresholds(anatomy)[name]) for anatomy in (before, after))
        jaccard = len(first & second) / len(first | second) if first | second else None
        comparisons[name] = {"before": len(first), "after": len(second), "jaccard": jaccard}
    means = [
        np.concatenate([similarity.mean(axis=0) for similarity in anatomy.neuron_similarity])
        for anatomy in (before, after)
    ]
    values = [sets["jaccard"] for sets in comparisons.values() if sets["jaccard"] is not None]
    return verdict(
        bool(values) and min(values) >= NEARLY_THE_SAME,
        **comparisons,
        correlation=float(np.corrcoef(means[0], means[1])[0, 1]),
    )


def thresholds(anatomy: Anatomy) -> dict[str, float]:
    """The paper's, and the similarity above which the top 5 % of this model lie."""
    return {"paper": anatomy.strong_threshold, "top": summarize_anatomy(anatomy)["quantile_threshold"]}


def strong_set(anatomy: Anatomy, threshold: float) -> set[tuple[int, int]]:
    return {
        (layer, int(neuron))
        for layer, similarity in enumerate(anatomy.neuron_similarity)
        for neuron in np.flatnonzero((similarity > threshold).any(axis=0))
    }


def strong_counts(anatomy: Anatomy, threshold: float) -> list[int]:
    return [int((similarity > threshold).any(axis=0).sum()) for similarity in anatomy.neuron_similarity]


def correlation(counts: list[int]) -> float:
    """Of the counts with depth; 0 where they are all the same."""
    return float(np.corrcoef(range(len(counts)), counts)[0, 1]) if len(set(counts)) > 1 else 0.0


if __name__ == "__main__":
    main()
