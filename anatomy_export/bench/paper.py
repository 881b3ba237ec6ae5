"""The paper's job (1,000 reviews, batch 32, 100 tokens padded, at 0–70 % of neurons removed), and how it should be run.

Every batch is one round: all workers run it before the next batch starts, so that one pass over the texts is the whole
measurement. Each text runs twice a worker: padded to the fixed length in its own order as the paper did, and bucketed
(batches of texts of like length, padded to the longest of the batch only). Intervals of ratios resample the batches;
between layouts, whose batches hold different texts, that makes them wider than timing noise alone would.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anatomy_export.bench.contestants import Contestant, dense_of, make_contestants, specs_of, torch_dense_of
from anatomy_export.bench.engines import fused_for, require_engines
from anatomy_export.bench.environment import describe_environment
from anatomy_export.bench.measure import measure, require_provider
from anatomy_export.bench.random_inputs import SEED, require_length
from anatomy_export.bench.result_body import bench_result, settings_of
from anatomy_export.bench.results import BenchResult
from anatomy_export.bench.rounds import Samples, WorkerPool
from anatomy_export.bench.rows import Gains, PaperRow
from anatomy_export.bench.stats import Ratio, total_ratio
from anatomy_export.bench.variants import MakeBundle, Variant, made_variants
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.data.loading import load_dataset, movie_reviews
from anatomy_export.evaluation.classifier_inputs import Inputs
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
class Job:
    """One set of texts in one layout: the inputs of each batch, and which texts are its rows, by original position."""

    texts: str
    layout: str
    inputs: list[Inputs]
    rows: list[list[int]]

    def key(self, index: int) -> str:
        """What the inputs of a batch are called."""
        return f"{self.texts}/{self.layout}/{index}"

    @property
    def keys(self) -> list[str]:
        return [self.key(index) for index in range(len(self.inputs))]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(texts, padded tokens) of each batch."""
        return [feed["input_ids"].shape for feed in self.inputs]

    def times(self, samples: Samples, worker: str) -> list[float]:
        """Seconds of each batch in order, as far as the run came."""
        return [times[0] for key in self.keys if (times := samples.times(worker, key))]


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
    require_length(variants, request.length)
    jobs = [_job(name, layout, texts[name], variants[0], request) for name in texts for layout in LAYOUTS]
    inputs = {key: feed for job in jobs for key, feed in zip(job.keys, job.inputs, strict=True)}
    contestants = make_contestants(
        variants, engines=request.engines, provider=request.provider, threads=request.threads
    )
    environment = describe_environment(request.threads)
    measured = measure(
        specs_of(contestants, request.engines, request.provider, request.threads),
        lambda pool: _run_jobs(pool, contestants, jobs, inputs, progress),
        call_timeout_s=request.timeout_s,
        progress=progress,
    )
    rows = [_row(contestant, contestants, measured.samples, job, jobs) for job in jobs for contestant in contestants]
    settings = settings_of(request, model_fingerprint=variants[0].source)
    return bench_result("paper", settings, environment, inputs, measured, rows, texts=described)


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
    """The texts of each name, and what they are in words."""
    sentences = list(movie_reviews().test.texts)
    chosen: dict[str, list[str]] = {}
    described: dict[str, str] = {}
    for name in request.texts:
        if name == "reviews":
            texts = sentences[: request.examples]
            described[name] = "The embedded movie-review sentences at their natural lengths"
        else:
            texts, described[name] = _imdb_texts(request.examples, sentences)
        if len(texts) < request.examples:
            raise AnatomyError(f"--examples {request.examples}: {name} has only {len(texts)}; next step: ask for fewer")
        chosen[name] = texts
        median = int(np.median([len(text.split()) for text in texts]))
        described[name] += f" ({len(texts):,} texts, median {median} words)."
    return chosen, described


def _imdb_texts(count: int, sentences: list[str]) -> tuple[list[str], str]:
    try:
        texts = list(load_dataset("imdb").test.texts[:count])
        return texts, "IMDB's own test reviews"
    except AnatomyError:
        joined = join_to_lengths(sentences, imdb_lengths(count))
        source = f"log-normal, mean {IMDB_MEAN_WORDS} and standard deviation {IMDB_DEVIATION_WORDS} words"
        return joined, f"The embedded sentences joined up to IMDB's published lengths ({source}), not IMDB itself"


def _job(name: str, layout: str, texts: list[str], variant: Variant, request: PaperRequest) -> Job:
    import transformers

    bundle = Path(next(iter(variant.bundles.values())))
    tokenizer = transformers.AutoTokenizer.from_pretrained(bundle / "checkpoint")
    options: dict = {"truncation": True, "max_length": request.length}
    order = list(range(len(texts)))
    if layout == "bucketed":
        encoded = tokenizer(texts, **options)["input_ids"]
        order.sort(key=lambda index: len(encoded[index]))
    rows = [order[start : start + request.batch] for start in range(0, len(order), request.batch)]
    if layout == "bucketed":  # short batches must not all come first: an interrupted job would look faster than it is
        np.random.default_rng(SEED).shuffle(rows)
    options |= {"padding": "max_length" if layout == "padded" else True, "return_tensors": "np"}
    inputs = []
    for batch in rows:
        arrays = tokenizer([texts[index] for index in batch], return_token_type_ids=True, **options)
        inputs.append({part: np.ascontiguousarray(array, dtype=np.int64) for part, array in arrays.items()})
    return Job(name, layout, inputs, rows)


def _run_jobs(
    pool: WorkerPool, contestants: Sequence[Contestant], jobs: Sequence[Job], inputs: dict[str, Inputs], progress
) -> None:
    pool.give_inputs(inputs)
    first = [job.key(0) for job in jobs]
    compiled = [
        contestant.name
        for contestant in contestants
        if contestant.spec.engine == "torch-compile" or contestant.spec.provider != "cpu"
    ]
    shapes = {feed["input_ids"].shape: key for key, feed in inputs.items()}
    with progress.bar("warm up", len(first) * len(pool.names) + len(shapes) * len(compiled)) as tick:
        pool.warm_up(first, maximum=4, tick=tick)
        pool.warm_up(list(shapes.values()), names=compiled, maximum=1, tick=tick)
    with progress.bar("the job, batch by batch", len(inputs) * len(pool.names)) as tick:
        for index in range(max(len(job.inputs) for job in jobs)):
            for job in jobs:
                if index < len(job.inputs):
                    pool.time_rounds(job.key(index), repeats=1, seed=SEED, tick=tick, give_logits=True)


def _row(
    contestant: Contestant, contestants: Sequence[Contestant], samples: Samples, job: Job, jobs: Sequence[Job]
) -> PaperRow | None:
    """A contestant on one job; None where it did none of it."""
    times = job.times(samples, contestant.name)
    if not times:
        return None
    padded = next(other for other in jobs if (other.texts, other.layout) == (job.texts, "padded"))
    dense, torch_dense = dense_of(contestant, contestants), torch_dense_of(contestant, contestants)
    same_classes, max_difference = (
        _same_outputs(samples, contestant.name, padded, job) if job.layout == "bucketed" else (None, None)
    )
    examples = sum(len(rows) for rows in job.rows[: len(times)])
    return PaperRow(
        worker=f"{contestant.name} {job.layout} {job.texts}",
        contestant=contestant,
        batch=max(len(rows) for rows in job.rows),
        seq_len=job.shapes[0][1] if job.layout == "padded" else None,
        median_s=float(np.median(times)),
        peak_rss_bytes=samples.peak_rss_bytes.get(contestant.name),
        times_s=times,
        gains=Gains(
            _against(samples, dense, job, contestant, job) if dense else None,
            _against(samples, torch_dense, padded, contestant, job) if torch_dense else None,
            _removed_share(contestant.variant, job),
            closable=not contestant.is_dense,
        ),
        layout=job.layout,
        texts=job.texts,
        total_s=sum(times),
        examples=examples,
        examples_per_s=examples / sum(times),
        same_classes=same_classes,
        max_abs_difference=max_difference,
    )


def _against(
    samples: Samples, reference: Contestant, reference_job: Job, contestant: Contestant, job: Job
) -> Ratio | None:
    """Time of the reference ÷ time of the contestant; None between layouts where one of them has not done all texts."""
    reference_s, times_s = reference_job.times(samples, reference.name), job.times(samples, contestant.name)
    whole = len(reference_s) == len(times_s) == len(job.inputs)
    shared = min(len(reference_s), len(times_s))
    if not shared or (reference_job is not job and not whole):
        return None
    return total_ratio(reference_s[:shared], times_s[:shared])


def _removed_share(variant: Variant, job: Job) -> float | None:
    if variant.flops is None or variant.planned_ffn_token is None:
        return None
    per_token = variant.flops.ffn_token - variant.planned_ffn_token
    removed = sum(per_token * rows * length for rows, length in job.shapes)
    return removed / sum(variant.flops.total(rows, length) for rows, length in job.shapes)


def _same_outputs(samples: Samples, worker: str, *jobs: Job) -> tuple[float | None, float | None]:
    """Share of texts that a worker gives the same class in two jobs, and the largest difference of its logits.

    Both are put back in the original order first.
    """
    logits: list[dict[int, np.ndarray]] = []
    for job in jobs:
        batches = zip(job.rows, job.keys, strict=True)
        logits.append(
            {
                row: line
                for rows, key in batches
                for row, line in zip(rows, samples.logits.get((worker, key), ()), strict=False)
            }
        )
    shared = sorted(logits[0].keys() & logits[1].keys())
    if not shared:
        return None, None
    first, second = (np.stack([of_job[row] for row in shared]) for of_job in logits)
    return float((first.argmax(-1) == second.argmax(-1)).mean()), float(np.abs(first - second).max())
