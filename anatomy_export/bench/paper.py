"""The paper's job (1,000 reviews, batch 32, 100 tokens padded, at 0–70 % of neurons removed), and how it should be run.

Every batch is one round: all workers run it before the next batch starts, so that one pass over the texts is the whole
measurement. Each text runs twice a worker: padded to the fixed length in its own order as the paper did, and bucketed
(batches of texts of like length, padded to the longest of the batch only). Intervals of ratios resample the batches;
between layouts, whose batches hold different texts, that makes them wider than timing noise alone would.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anatomy_export.bench.engines import EngineSpec, fused_for, require_engines
from anatomy_export.bench.environment import describe_environment
from anatomy_export.bench.harness import Pool, Samples, measure, no_engine_left, require_provider
from anatomy_export.bench.results import BenchResult
from anatomy_export.bench.stats import Ratio, closure_of, total_ratio
from anatomy_export.bench.timing import (
    CLOSURE_VOID_WIDTH,
    SEED,
    Contestant,
    check_length,
    common_body,
    roofline_specs,
    settings_of,
)
from anatomy_export.bench.variants import MakeBundle, Variant, made_variants
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.data.loading import load_dataset, movie_reviews
from anatomy_export.evaluation.inputs import Inputs
from anatomy_export.planning.allocation import width_multiple

LAYOUTS = ("padded", "bucketed")
IMDB_MEAN_WORDS = 234.76
IMDB_DEVIATION_WORDS = 172.91


@dataclass(frozen=True)
class PaperRequest:
    """What `anatomy bench paper` was asked for; `removed` are shares of the neurons, `length` is in tokens."""

    model: str = "bert-base"
    engines: tuple[str, ...] = ("torch", "ort")
    provider: str = "cpu"
    removed: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7)
    modes: tuple[str, ...] = ("dense", "mask", "slice")
    texts: tuple[str, ...] = ("reviews", "imdb")
    examples: int = 1000
    batch: int = 32
    length: int = 100
    threads: int = 1
    timeout_s: float = 600.0


@dataclass(frozen=True)
class _Batches:
    """The batches of one layout: inputs of each, and which texts are its rows, as positions in the original order."""

    inputs: list[Inputs]
    rows: list[list[int]]


def run_paper(request: PaperRequest, progress: Progress, make_bundle: MakeBundle) -> BenchResult:
    """Run the paper's job on every engine and variant, interleaved batch by batch.

    Ctrl-C and SIGTERM end the run early: the result then holds the batches done so far and says `partial`.

    Raises:
        AnatomyError: bad input, or no engine worked. ProviderError: the provider is not really there.
    """
    require_engines(request.engines)
    require_provider(request.provider, request.engines)
    with progress.stage("texts"):
        texts, described = _texts(request)
    variants = made_variants(
        request.model,
        modes=list(request.modes),
        keep_ratios=[round(1 - removed, 6) for removed in request.removed if removed],
        plan=None,
        align=width_multiple("auto"),
        fuses={fused_for(engine, request.provider) for engine in request.engines},
        dense_fuses=set(),
        make_bundle=make_bundle,
        progress=progress,
    )
    check_length(variants, request.length)
    batches = {
        (name, layout): _make_batches(variants[0], own, layout, request)
        for name, own in texts.items()
        for layout in LAYOUTS
    }
    inputs = {_key(which, index): one for which, own in batches.items() for index, one in enumerate(own.inputs)}
    contestants = _contestants(request, variants)
    environment = describe_environment(request.threads)
    measured = measure(
        {one.name: one.spec for one in contestants}
        | roofline_specs(request.engines, request.threads, request.provider),
        lambda pool: _run_job(pool, contestants, batches, inputs, progress),
        call_timeout_s=request.timeout_s,
        progress=progress,
    )
    settings = {**settings_of(request), "model_fingerprint": variants[0].source}
    body = common_body("paper", settings, environment, inputs, measured)
    body["texts"] = described
    body["results"] = [
        entry
        for name in texts
        for layout in LAYOUTS
        for one in contestants
        if (entry := _entry(one, contestants, measured.samples, batches, name, layout))
    ]
    if not body["results"]:
        raise no_engine_left(measured.samples)
    return BenchResult(body, measured.interrupted)


def join_to_lengths(sentences: list[str], words: list[int], *, seed: int = SEED) -> list[str]:
    """One text for each wanted length: sentences drawn at random, joined until the text has that many words."""
    generator = np.random.default_rng(seed)
    texts = []
    for wanted in words:
        text: list[str] = []
        while len(text) < wanted:
            text += sentences[int(generator.integers(len(sentences)))].split()
        texts.append(" ".join(text[:wanted]))
    return texts


def imdb_lengths(count: int, *, seed: int = SEED) -> list[int]:
    """`count` review lengths in words, log-normal with IMDB's published mean and standard deviation.

    234.76 and 172.91 words: machinelearningmastery.com, "Predict Sentiment From Movie Reviews Using Deep Learning".
    """
    variance = np.log(1 + (IMDB_DEVIATION_WORDS / IMDB_MEAN_WORDS) ** 2)
    mean = np.log(IMDB_MEAN_WORDS) - variance / 2
    drawn = np.random.default_rng(seed).lognormal(mean, np.sqrt(variance), size=count)
    return [max(1, round(words)) for words in drawn]


def _texts(request: PaperRequest) -> tuple[dict[str, list[str]], dict[str, str]]:
    sentences = list(movie_reviews().test.texts)
    found: dict[str, list[str]] = {}
    described: dict[str, str] = {}
    for name in request.texts:
        if name == "reviews":
            own = sentences[: request.examples]
            described[name] = "The embedded movie-review sentences at their natural lengths"
        else:
            own, described[name] = _imdb_texts(request.examples, sentences)
        if len(own) < request.examples:
            raise AnatomyError(f"--examples {request.examples}: {name} has only {len(own)}; next step: ask for fewer")
        found[name] = own
        median = int(np.median([len(text.split()) for text in own]))
        described[name] += f" ({len(own):,} texts, median {median} words)."
    return found, described


def _imdb_texts(count: int, sentences: list[str]) -> tuple[list[str], str]:
    try:
        texts = list(load_dataset("imdb").test.texts[:count])
        return texts, "IMDB's own test reviews"
    except AnatomyError:
        joined = join_to_lengths(sentences, imdb_lengths(count))
        source = f"log-normal, mean {IMDB_MEAN_WORDS} and standard deviation {IMDB_DEVIATION_WORDS} words"
        return joined, f"The embedded sentences joined up to IMDB's published lengths ({source}), not IMDB itself"


def _make_batches(variant: Variant, texts: list[str], layout: str, request: PaperRequest) -> _Batches:
    import transformers

    bundle = Path(next(iter(variant.bundles.values())))
    tokenizer = transformers.AutoTokenizer.from_pretrained(bundle / "checkpoint")
    order = list(range(len(texts)))
    encoded = tokenizer(list(texts), truncation=True, max_length=request.length)["input_ids"]
    if layout == "bucketed":
        order.sort(key=lambda index: len(encoded[index]))
    rows = [order[start : start + request.batch] for start in range(0, len(order), request.batch)]
    if layout == "bucketed":  # short batches must not all come first: an interrupted job would look faster than it is
        np.random.default_rng(SEED).shuffle(rows)
    padding = "max_length" if layout == "padded" else True
    inputs = []
    for own in rows:
        options = {"truncation": True, "max_length": request.length, "padding": padding, "return_tensors": "np"}
        arrays = tokenizer([texts[index] for index in own], return_token_type_ids=True, **options)
        inputs.append({name: np.ascontiguousarray(array, dtype=np.int64) for name, array in arrays.items()})
    return _Batches(inputs, rows)


def _contestants(request: PaperRequest, variants: list[Variant]) -> list[Contestant]:
    return [
        Contestant(
            f"{engine} {variant.name}",
            variant,
            EngineSpec(engine, variant.bundles[fused_for(engine, request.provider)], request.provider, request.threads),
        )
        for engine in request.engines
        for variant in variants
    ]


def _key(which: tuple[str, str], index: int) -> str:
    return f"{'/'.join(which)}/{index}"


def _run_job(pool: Pool, contestants: list[Contestant], batches: dict, inputs: dict[str, Inputs], progress) -> None:
    pool.give_inputs(inputs)
    first = [_key(which, 0) for which in batches]
    compiled = [one.name for one in contestants if one.spec.engine == "torch-compile" or one.spec.provider != "cpu"]
    shapes = {one["input_ids"].shape: key for key, one in inputs.items()}
    with progress.bar("warm up", len(first) * len(pool.names) + len(shapes) * len(compiled)) as tick:
        pool.warm_up(first, maximum=4, tick=tick)
        pool.warm_up(list(shapes.values()), names=compiled, maximum=1, tick=tick)
    rounds = max(len(own.inputs) for own in batches.values())
    total = sum(len(own.inputs) for own in batches.values()) * len(pool.names)
    with progress.bar("the job, batch by batch", total) as tick:
        for index in range(rounds):
            for which, own in batches.items():
                if index < len(own.inputs):
                    pool.time_rounds(_key(which, index), repeats=1, seed=SEED, tick=tick, give_logits=True)


def _job_times(samples: Samples, worker: str, texts: str, layout: str, count: int) -> list[float]:
    """Seconds of each batch in order, as far as the run came."""
    times = [samples.times(worker, _key((texts, layout), index)) for index in range(count)]
    return [own[0] for own in times if own]


def _entry(one: Contestant, contestants, samples: Samples, batches: dict, texts: str, layout: str) -> dict | None:
    own = batches[texts, layout]
    count = len(own.inputs)
    times = _job_times(samples, one.name, texts, layout, count)
    if not times:
        return None
    dense = next((c for c in contestants if c.spec.engine == one.spec.engine and c.variant.mode == "dense"), None)
    torch_dense = next((c for c in contestants if c.spec.engine == "torch" and c.variant.mode == "dense"), None)

    def against(other: Contestant | None, other_layout: str) -> Ratio | None:
        if other is None:
            return None
        reference = _job_times(samples, other.name, texts, other_layout, count)
        whole = len(reference) == len(times) == count
        if not whole and other_layout != layout:
            return None  # the same texts are not done on both sides
        shared = min(len(reference), len(times))
        return total_ratio(reference[:shared], times[:shared]) if shared else None

    speedup, torch_speedup = against(dense, layout), against(torch_dense, "padded")
    share = _removed_share(one.variant, own)
    closure = closure_of(speedup, None if one.variant.mode == "dense" else share)
    same_classes, max_difference = (
        _same_outputs(samples, one.name, batches, texts) if layout == "bucketed" else (None,) * 2
    )
    done = sum(len(rows) for rows in own.rows[: len(times)])
    return {
        "worker": f"{one.name} {layout} {texts}",
        "engine": one.spec.engine,
        "variant": one.variant.mode,
        "name": one.variant.name,
        "layout": layout,
        "texts": texts,
        "keep_ratio": one.variant.keep_ratio,
        "batch": max(len(rows) for rows in own.rows),
        "seq_len": own.inputs[0]["input_ids"].shape[1] if layout == "padded" else None,
        "median_s": float(np.median(times)),
        "total_s": sum(times),
        "examples": done,
        "examples_per_s": done / sum(times),
        "speedup": speedup.median if speedup else None,
        "speedup_interval": speedup.bounds if speedup else None,
        "speedup_void": bool(speedup and speedup.void),
        "closure_void": bool(closure and closure.wider_than(CLOSURE_VOID_WIDTH)),
        "torch_speedup": torch_speedup.median if torch_speedup else None,
        "torch_speedup_interval": torch_speedup.bounds if torch_speedup else None,
        "removed_share": share,
        "closure": closure.median if closure else None,
        "closure_interval": closure.bounds if closure else None,
        "same_classes": same_classes,
        "max_abs_difference": max_difference,
        "peak_rss_bytes": samples.peak_rss_bytes.get(one.name),
        "times_s": times,
    }


def _removed_share(variant: Variant, batches: _Batches) -> float | None:
    if variant.flops is None or variant.planned_ffn_token is None:
        return None
    shapes = [one["input_ids"].shape for one in batches.inputs]
    removed = sum((variant.flops.ffn_token - variant.planned_ffn_token) * rows * length for rows, length in shapes)
    return removed / sum(variant.flops.total(rows, length) for rows, length in shapes)


def _same_outputs(samples: Samples, worker: str, batches: dict, texts: str) -> tuple[float | None, float | None]:
    """Share of texts that a worker gives the same class padded and bucketed, and the largest difference of its logits.

    Both are put back in the original order first.
    """
    logits: dict[str, dict[int, np.ndarray]] = {layout: {} for layout in LAYOUTS}
    for layout in LAYOUTS:
        for index, rows in enumerate(batches[texts, layout].rows):
            given = samples.logits.get((worker, _key((texts, layout), index)), ())
            logits[layout].update(zip(rows, given, strict=False))
    both = sorted(logits["padded"].keys() & logits["bucketed"].keys())
    if not both:
        return None, None
    padded, bucketed = (np.stack([logits[layout][row] for row in both]) for layout in LAYOUTS)
    same = (padded.argmax(-1) == bucketed.argmax(-1)).mean()
    return float(same), float(np.abs(padded - bucketed).max())
