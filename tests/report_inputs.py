"""Seeded results as the commands write them: studies, scores, pareto and bench results, without running any."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np

from anatomy_export.data.probes import BUILT_IN_PROBES
from anatomy_export.paper.thresholds import layer_thresholds, preset_setup
from anatomy_export.plan_files.plan import LayerPlan, PrunePlan

TASKS = ("emotional tone, positive", "emotional tone, negative", None, None, "acting, positive", "plot, negative")
FINGERPRINT = "ab" * 32


def write_score(
    directory: Path, *, rule="bert", layers=12, width=256, probes=6, seed=0, strong=0.1, threshold=0.35
) -> Path:
    """`anatomy.json` and `anatomy.npz`; about a share `strong` of the first layer's neurons is strong, fewer below."""
    directory.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    depth = np.linspace(0, 1, layers + 1)
    rise = 0.38 + 0.1 * depth + 0.52 * depth**6 if rule == "bert" else -0.15 + 0.35 * depth + 0.8 * depth**12
    layer_similarity = np.clip(rise + generator.normal(0, 0.03, (probes, 1)) * (1 - depth), -1, 1)
    layer_similarity[:, -1] = 1
    neurons = [_similarity(generator, rule, layer / layers, probes, width, strong) for layer in range(layers)]
    buffer = io.BytesIO()
    arrays = {f"neuron_similarity.{layer}": one for layer, one in enumerate(neurons)}
    np.savez(buffer, layer_similarity=layer_similarity, **arrays)
    (directory / "anatomy.npz").write_bytes(buffer.getvalue())
    best = np.concatenate([one.max(axis=0) for one in neurons])
    body = {
        "format_version": 1,
        "kind": "anatomy",
        "model": f"{rule}-base",
        "family": rule,
        "fingerprint": FINGERPRINT,
        "rule": rule,
        "widths": [width] * layers,
        "hidden_size": 64,
        "probes": [
            {"text": text, "task": task}
            for text, task in zip(BUILT_IN_PROBES[:probes], (TASKS * 2)[:probes], strict=True)
        ],
        "strong_threshold": threshold,
        "arrays_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "summary": {
            "layer_similarity_mean": layer_similarity.mean(axis=0).tolist(),
            "jaccard_mean": 0.7,
            "jaccard_chance": 0.03,
            "quantile_threshold": float(np.quantile(best, 0.95)),
            "quantile_share": 0.05,
        },
    }
    (directory / "anatomy.json").write_text(json.dumps(body))
    return directory


def _similarity(generator, rule: str, depth: float, probes: int, width: int, strong: float) -> np.ndarray:
    """(P, n): the same neurons lead for every probe, fewer with depth (GPT-2: only at the end)."""
    share = strong * (1 - 0.75 * depth) * (0.35 if int(depth * 12) in (3, 5) else 1)
    if rule == "gpt2":
        share = strong if depth > 0.8 else 0.0
    leading = generator.permutation(width)[: round(share * width)]
    base = generator.normal(0, 0.08, width)
    base[leading] = generator.uniform(0.34, 0.6, len(leading))
    return np.clip(base + generator.normal(0, 0.015, (probes, width)), -1, 1)


def write_study(directory: Path, *, rule="bert", layers=12, width=256, seconds=True, partial=False, seed=0, **options):
    """A score and `study.json` with three presets, matched random draws of three seeds, and one setup refused."""
    write_score(directory, rule=rule, layers=layers, width=width, seed=seed, **options)
    generator = np.random.default_rng(seed + 1)
    similarity = np.linspace(0.4, 0.9, layers + 1)
    setups = {}
    for number in (1, 2, 3):
        name = f"{rule}-{number}"
        setup = preset_setup(name, rule, layers)
        share = 0.2 * number + 0.05
        per_layer = [int(width * share * generator.uniform(0.5, 1.3)) for _ in range(layers)]
        common = {"alpha": setup.alpha, "beta": setup.beta, "focus": list(setup.focus)}
        thresholds = [
            {"layer": layer, "value": one.value, "rule": one.rule}
            for layer, one in enumerate(layer_thresholds(rule, similarity, layers, setup))
        ]
        figures = _figures(per_layer, width, 0.86 - 0.06 * share**2, seconds)
        setups[name] = {**_asked("anatomy", name), **common, "thresholds": thresholds, **figures}
        for own in range(3):
            lost = 0.3 * share**1.5 + 0.02 * generator.random()
            figures = _figures(per_layer, width, 0.86 - lost, seconds)
            setups[f"random-{name}-{own}"] = {**_asked("random", None), "seed": own, "matches": name, **figures}
    setups[f"{rule}-5"] = {
        **_asked("anatomy", f"{rule}-5"),
        "refused": "layer 1 would be emptied; next step: lower --alpha",
    }
    dense = {"accuracy": 0.86, "interval": [0.845, 0.874], "examples": 2000}
    body = {
        "format_version": 1,
        "kind": "study",
        "partial": partial,
        "settings": {"version": "0.1.0", "model": f"{rule}-base", "fingerprint": FINGERPRINT, "seeds": [0, 1, 2]},
        "environment": {"cpu": "a CPU", "threads": 2, "versions": {"torch": "2.13.0"}},
        "dense": {**dense, "seconds": _seconds(1.0)} if seconds else dense,
        "setups": setups,
    }
    (directory / "study.json").write_text(json.dumps(body))
    return directory


def _asked(kind: str, preset: str | None) -> dict:
    nothing = dict.fromkeys(("alpha", "beta", "seed", "matches", "share", "thresholds"))
    return {"kind": kind, "preset": preset, **nothing, "focus": []}


def _figures(per_layer: list[int], width: int, accuracy: float, seconds: bool) -> dict:
    removed = sum(per_layer)
    return {
        "removed_per_layer": per_layer,
        "removed": removed,
        "removed_share": removed / (width * len(per_layer)),
        "accuracy": accuracy,
        "interval": [accuracy - 0.016, accuracy + 0.015],
        "agreement": accuracy + 0.08,
        "mean_abs_delta": 0.05,
        "seconds": _seconds(0.98 + 0.03 * accuracy) if seconds else None,
    }


def _seconds(ratio: float) -> dict:
    return {
        "median_s": 13.2 / ratio,
        "interval_s": [13.0 / ratio, 13.5 / ratio],
        "examples": 1000,
        "engine": "torch",
        "device": "a CPU, 2 threads",
        "dense_ratio": ratio,
        "dense_ratio_interval": [ratio - 0.01, ratio + 0.01],
    }


def write_pareto(directory: Path) -> Path:
    """`pareto.json` with two criteria."""
    directory.mkdir(parents=True, exist_ok=True)
    results = {"dense": {"removed": 0.0, "speedup": 1.0, "accuracy": 0.86}}
    for criterion, loss in (("fisher", 0.02), ("random", 0.2)):
        for how in ("none", "auto"):
            for removed in (0.3, 0.5, 0.7):
                lost = loss * removed / (2 if how == "auto" else 1)
                entry = {"criterion": criterion, "compensate": how, "removed": removed, "speedup": 1 + removed}
                results[f"{criterion}/sensitivity/{how}/{removed}"] = {**entry, "accuracy": 0.86 - lost}
    results["fisher/sensitivity/none/0.95"] = {"criterion": "fisher", "compensate": "none", "refused": "too few"}
    body = {
        "format_version": 1,
        "kind": "pareto",
        "partial": False,
        "settings": {"model": "bert"},
        "latency": {"batch": 1, "seq_len": 128},
        "results": results,
        "non_dominated": ["dense", *(f"fisher/sensitivity/auto/{removed}" for removed in (0.3, 0.5, 0.7))],
    }
    (directory / "pareto.json").write_text(json.dumps(body))
    return directory


def write_bench(directory: Path, kind: str = "bench") -> Path:
    """`bench.json` of two engines: dense, masked and sliced at two sizes."""
    directory.mkdir(parents=True, exist_ok=True)
    results = []
    for engine, dense in (("torch", 0.2), ("ort", 0.16)):
        for variant, keep in (("dense", 1.0), ("mask", 0.5), ("slice", 0.5), ("slice", 0.3)):
            time = dense * (0.4 + 0.6 * keep if variant == "slice" else 1)
            name = variant if variant == "dense" else f"{variant}-{keep}"
            one = {"engine": engine, "variant": variant, "name": name, "keep_ratio": keep, "median_s": time}
            one |= {
                "batch": 1,
                "seq_len": 128,
                "removed_share": 1 - keep,
                "speedup": dense / time,
                "total_s": 60 * time,
            }
            results.append({**one, "texts": "sentences", "layout": "padded"})
    body = {"format_version": 3, "kind": kind, "partial": False, "settings": {"model": "bert"}, "results": results}
    (directory / "bench.json").write_text(json.dumps({**body, "environment": {"cpu": "a CPU", "threads": 2}}))
    return directory


def write_bundle(directory: Path) -> Path:
    """What a report reads of a bundle: half of the neurons of three layers kept, and two comparisons."""
    directory.mkdir(parents=True, exist_ok=True)
    layers = tuple(LayerPlan(layer, 24, tuple(range(12 - layer))) for layer in range(3))
    (directory / "plan.json").write_text(PrunePlan(FINGERPRINT, layers, "fisher").to_json())
    result = {"neurons": {"dense": 72, "pruned": 33}, "accuracy": {"dense": 0.86, "pruned": 0.855}}
    manifest = {"format_version": 1, "name": "tiny", "mode": "slice", "result": result}
    (directory / "bundle.json").write_text(json.dumps(manifest))
    compared = [
        {"name": "torch masked vs onnx", "shape": shape, "max_abs_error": 2e-7, "tolerance": 1e-4}
        for shape in ([1, 6], [3, 37])
    ]
    (directory / "verify.json").write_text(json.dumps({"comparisons": compared}))
    return directory
