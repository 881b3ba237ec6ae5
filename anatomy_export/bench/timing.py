"""The default measurement of `anatomy-bench`: engines × variants × input shapes, interleaved, into a `BenchResult`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anatomy_export.bench.contestants import (
    Contestant,
    make_contestants,
    reference_of,
    roofline,
    specs_of,
    torch_dense_of,
)
from anatomy_export.bench.engines import fused_for, require_engines
from anatomy_export.bench.environment import describe_environment
from anatomy_export.bench.measure import Measured, measure, require_provider
from anatomy_export.bench.random_inputs import SEED, inputs_by_shape, shape_key
from anatomy_export.bench.result_body import bench_result, settings_of
from anatomy_export.bench.results import BenchResult
from anatomy_export.bench.rounds import Samples, WorkerPool
from anatomy_export.bench.rows import BenchRow, Gains
from anatomy_export.bench.stats import Ratio, paired_ratio, require_intervals, summarize
from anatomy_export.bench.variants import MakeBundle, Variant, given_variants, made_variants
from anatomy_export.core.names import public_name
from anatomy_export.core.progress import Progress
from anatomy_export.core.target_cpu import PORTABLE
from anatomy_export.evaluation.classifier_inputs import Inputs
from anatomy_export.planning.allocation import width_multiple


@dataclass(frozen=True)
class BenchRequest:
    """Everything that `anatomy bench` was asked for. Bundles, where given, stand in for model, modes and ratios.

    `baselines` are engines that are timed on dense variants only. `repeats` are rounds for each input shape and launch
    of the worker processes. `precisions` are those of the ONNX Runtime variants; the other engines time fp32 alone.
    `target_cpu` is what int8 weights are made for.
    """

    model: str = "bert"
    bundles: tuple[str, ...] = ()
    engines: tuple[str, ...] = ("torch", "ort")
    baselines: tuple[str, ...] = ()
    provider: str = "cpu"
    batches: tuple[int, ...] = (1,)
    lengths: tuple[int, ...] = (128,)
    modes: tuple[str, ...] = ("dense", "mask", "slice")
    keep_ratios: tuple[float, ...] = (0.5,)
    plan: Path | None = None
    align: str = "auto"
    threads: int = 1
    repeats: int = 20
    launches: int = 1
    io_binding: tuple[bool, ...] = (False,)
    cuda_graph: tuple[bool, ...] = (False,)
    timeout_s: float = 600.0
    precisions: tuple[str, ...] = ("fp32",)
    target_cpu: str = PORTABLE

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Every (batch, tokens)."""
        return [(batch, length) for batch in self.batches for length in self.lengths]


def run_bench(request: BenchRequest, progress: Progress, make_bundle: MakeBundle) -> BenchResult:
    """Make what is missing, then time everything in one interleaved run.

    Ctrl-C and SIGTERM end the run early: the result then holds the rounds done so far and says `partial`.

    Raises:
        AnatomyError: bad input, or no engine worked. ProviderError: the provider is not really there.
    """
    engines = (*request.engines, *request.baselines)
    require_engines(engines)
    require_intervals(request.launches)
    require_provider(request.provider, engines)
    variants = find_variants(request, progress, make_bundle)
    contestants = contestants_of(request, variants)
    inputs = inputs_by_shape(variants, request.shapes)
    environment = describe_environment(request.threads)
    measured = measure(
        specs_of(contestants, engines, request.provider, request.threads),
        lambda pool: _time_shapes(pool, request, inputs, progress),
        call_timeout_s=request.timeout_s,
        progress=progress,
        launches=request.launches,
    )
    peaks = roofline(measured)["by_input"]
    rows = [
        _row(contestant, contestants, measured, batch, length, peaks)
        for batch, length in request.shapes
        for contestant in contestants
    ]
    return bench_result("bench", _settings(request, contestants), environment, inputs, measured, rows)


def find_variants(request: BenchRequest, progress: Progress, make_bundle: MakeBundle) -> list[Variant]:
    """The bundles that were given, or those of the model, made where they are not cached."""
    if request.bundles:
        return given_variants(list(request.bundles))
    return made_variants(
        request.model,
        modes=list(request.modes),
        keep_ratios=list(request.keep_ratios),
        plan=request.plan,
        align=width_multiple(request.align),
        fuses={fused_for(engine, request.provider) for engine in request.engines},
        dense_fuses={fused_for(engine, request.provider) for engine in request.baselines},
        make_bundle=make_bundle,
        progress=progress,
        precisions=request.precisions,
        target_cpu=request.target_cpu,
    )


def contestants_of(request: BenchRequest, variants: Sequence[Variant]) -> list[Contestant]:
    """Every engine and setting that was asked for, on every variant that it times."""
    return make_contestants(
        variants,
        engines=request.engines,
        baselines=request.baselines,
        provider=request.provider,
        threads=request.threads,
        io_binding=request.io_binding,
        cuda_graph=request.cuda_graph,
    )


def _settings(request: BenchRequest, contestants: Sequence[Contestant]) -> dict:
    precisions = dict.fromkeys(contestant.variant.precision for contestant in contestants)
    settings = settings_of(
        request,
        model_fingerprint=None if request.bundles else contestants[0].variant.source,
        precision=", ".join(precisions),
        target_cpu=request.target_cpu if "int8" in precisions and not request.bundles else None,
    )
    if request.bundles:
        settings |= {"model": None, "bundles": [public_name(bundle) for bundle in request.bundles]}
    return settings


def _time_shapes(pool: WorkerPool, request: BenchRequest, inputs: dict[str, Inputs], progress: Progress) -> None:
    pool.give_inputs(inputs)
    with progress.bar("warm up", len(inputs) * len(pool.names)) as tick:
        pool.warm_up(list(inputs), tick=tick)
    for batch, length in request.shapes:
        total = request.repeats * len(pool.names)
        with progress.bar(f"batch {batch}, {length} tokens", total) as tick:
            pool.time_rounds(shape_key(batch, length), repeats=request.repeats, seed=SEED, tick=tick)


def _row(
    contestant: Contestant, contestants: Sequence[Contestant], measured: Measured, batch: int, length: int, peaks: dict
) -> BenchRow | None:
    """A contestant on one input shape; None where it was never timed on it."""
    key = shape_key(batch, length)
    times = measured.samples.times(contestant.name, key)
    if not times:
        return None
    variant, reference, summary = contestant.variant, reference_of(contestant, contestants), summarize(times)
    flops, peak = variant.executed_flops(batch, length), peaks.get(key)
    rate = flops / summary.p50_s if flops else None
    return BenchRow(
        worker=contestant.name,
        contestant=contestant,
        batch=batch,
        seq_len=length,
        median_s=summary.p50_s,
        peak_rss_bytes=measured.samples.peak_rss_bytes.get(contestant.name),
        times_s=times,
        gains=_gains(contestant, contestants, measured.samples, batch, length),
        summary=summary,
        precision=variant.precision,
        io_binding=not contestant.spec.copies,
        cuda_graph=contestant.spec.cuda_graph,
        sequences_per_s=batch / summary.p50_s,
        speedup_against=reference.name,
        speedup_against_precision=reference.variant.precision,
        flops=flops,
        roofline_share=rate / peak if rate and peak and variant.precision == "fp32" else None,
        model=variant.facts,
        engine_facts=measured.facts.get(contestant.name, {}),
        warmup_s=measured.samples.warmups.get((contestant.name, key), []),
    )


def _gains(
    contestant: Contestant, contestants: Sequence[Contestant], samples: Samples, batch: int, length: int
) -> Gains:
    variant, key = contestant.variant, shape_key(batch, length)
    reference, torch_dense = reference_of(contestant, contestants), torch_dense_of(contestant, contestants)
    if contestant is reference:  # a bare .onnx file may be dense
        speedup = Ratio(1.0) if variant.mode in ("dense", None) else None
    else:
        speedup = _ratio(samples, reference, contestant, key)
    same = (reference.variant.source, reference.variant.precision) == (variant.source, variant.precision)
    return Gains(
        speedup,
        _ratio(samples, torch_dense, contestant, key) if torch_dense else None,
        variant.removed_share(batch, length),
        closable=reference.is_dense and same and contestant is not reference,
    )


def _ratio(samples: Samples, reference: Contestant, contestant: Contestant, key: str) -> Ratio | None:
    reference_s, times_s, launches = samples.paired(reference.name, contestant.name, key)
    return paired_ratio(reference_s, times_s, launches=launches) if times_s else None
