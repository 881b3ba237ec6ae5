"""The default measurement of `anatomy-bench`: engines × variants × input shapes, interleaved, into a `BenchResult`."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from anatomy_export.bench.engines import EngineSpec, fused_for, require_engines
from anatomy_export.bench.environment import describe_environment
from anatomy_export.bench.harness import Measured, Pool, Samples, measure, no_engine_left, require_provider
from anatomy_export.bench.inputs import SEED, random_inputs
from anatomy_export.bench.results import FORMAT_VERSION, BenchResult, inputs_sha256
from anatomy_export.bench.stats import Ratio, closure_of, paired_ratio, summarize
from anatomy_export.bench.variants import MakeBundle, Variant, given_variants, made_variants
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.names import public_name, without_directories
from anatomy_export.core.progress import Progress
from anatomy_export.core.target_cpu import PORTABLE
from anatomy_export.evaluation.inputs import Inputs
from anatomy_export.planning.allocation import width_multiple

ROOFLINES = ("torch", "ort", "openvino")
UNKNOWN_VOCABULARY = 4000
CLOSURE_VOID_WIDTH = 0.2


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


@dataclass(frozen=True)
class Contestant:
    """One engine on one variant under one setting: what a worker holds, and what it is called."""

    name: str
    variant: Variant
    spec: EngineSpec


def run_bench(request: BenchRequest, progress: Progress, make_bundle: MakeBundle) -> BenchResult:
    """Make what is missing, then time everything in one interleaved run.

    Ctrl-C and SIGTERM end the run early: the result then holds the rounds done so far and says `partial`.

    Raises:
        AnatomyError: bad input, or no engine worked. ProviderError: the provider is not really there.
    """
    engines = (*request.engines, *request.baselines)
    require_engines(engines)
    require_provider(request.provider, engines)
    variants = find_variants(request, progress, make_bundle)
    contestants = _contestants(request, variants)
    shapes = [(batch, length) for batch in request.batches for length in request.lengths]
    inputs = _random_inputs(variants, shapes)
    environment = describe_environment(request.threads)
    measured = measure(
        {one.name: one.spec for one in contestants} | roofline_specs(engines, request.threads, request.provider),
        lambda pool: _time_shapes(pool, request, shapes, inputs, progress),
        call_timeout_s=request.timeout_s,
        progress=progress,
        launches=request.launches,
    )
    precisions = dict.fromkeys(one.variant.precision for one in contestants)
    settings = {**settings_of(request), "model_fingerprint": None if request.bundles else variants[0].source}
    if request.bundles:
        settings |= {"model": None, "bundles": [public_name(bundle) for bundle in request.bundles]}
    settings["precision"] = ", ".join(precisions)
    settings["target_cpu"] = request.target_cpu if "int8" in precisions and not request.bundles else None
    body = common_body("bench", settings, environment, inputs, measured)
    body["results"] = [
        entry
        for batch, length in shapes
        for one in contestants
        if (entry := _entry(one, contestants, measured, batch, length, body["roofline"]))
    ]
    if not body["results"]:
        raise no_engine_left(measured.samples)
    return BenchResult(body, measured.interrupted)


def common_body(kind: str, settings: dict, environment: dict, inputs: dict[str, Inputs], measured: Measured) -> dict:
    """What every results file says beside its results; `environment` as it was before the first call."""
    samples = measured.samples
    return {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "partial": measured.interrupted is not None,
        "settings": settings,
        "environment": environment,
        "inputs_sha256": inputs_sha256(inputs),
        "roofline": roofline(measured),
        "failures": [
            {"worker": name, "reason": without_directories(reason)} for name, reason in samples.failures.items()
        ],
        "unstable": [{"worker": name, "input": key} for name, key in sorted(samples.unstable)],
        "never_quiet": samples.never_quiet,
        "orders": samples.orders,
        "launches": samples.launches,
    }


def settings_of(request) -> dict:
    """The request as plain values for a results file, with the precision and the seed of inputs and orders."""
    values = {name: public_name(value) if isinstance(value, Path) else value for name, value in asdict(request).items()}
    return {**values, "model": public_name(request.model), "precision": "fp32", "seed": SEED}


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


def _contestants(request: BenchRequest, variants: list[Variant]) -> list[Contestant]:
    found = []
    for engine in dict.fromkeys((*request.engines, *request.baselines)):
        for bound in request.io_binding:
            for graph in request.cuda_graph if engine == "ort" else (False,):
                if graph and not bound:
                    continue
                for variant in variants:
                    if engine not in request.engines and variant.mode != "dense":
                        continue
                    if engine != "ort" and variant.precision != "fp32":
                        continue
                    spec = EngineSpec(
                        engine=engine,
                        model=variant.bundles[fused_for(engine, request.provider)],
                        provider=request.provider,
                        threads=request.threads,
                        copies=not bound,
                        cuda_graph=graph,
                    )
                    setting = " bound" * bound + " graph" * graph
                    found.append(Contestant(f"{engine}{setting} {variant.name}", variant, spec))
    if not found:
        raise AnatomyError(
            f"no engine of {', '.join(request.engines)} times these precisions; next step: add ort to --backend"
        )
    return found


def roofline_specs(engines: Iterable[str], threads: int, provider: str) -> dict[str, EngineSpec]:
    """A matrix-product worker for the library of each engine, to be timed in the same rounds as everything else."""
    libraries = [library for library in ROOFLINES if any(engine.split("-")[0] == library for engine in engines)]
    return {f"roofline-{one}": EngineSpec(f"roofline-{one}", provider=provider, threads=threads) for one in libraries}


def roofline(measured: Measured) -> dict:
    """The best matrix-product rate of this run, FLOP/s by the median time of each library and input, and raw seconds.

    `by_input` holds the best rate among the rounds of each input, so that a share of it is of the same minutes.
    """
    samples, facts = measured.samples, measured.facts
    found: dict = {"flops_per_s": None, "by_input": {}, "times_s": {}}
    for name in (f"roofline-{library}" for library in ROOFLINES):
        for key in samples.rounds:
            times = samples.times(name, key)
            if times:
                rate = facts[name]["flops"] / summarize(times).p50_s
                found["by_input"][key] = max(rate, found["by_input"].get(key, 0.0))
                found["times_s"].setdefault(name, {})[key] = times
    found["flops_per_s"] = max(found["by_input"].values(), default=None)
    return found


def _time_shapes(pool: Pool, request: BenchRequest, shapes, inputs: dict[str, Inputs], progress: Progress) -> None:
    pool.give_inputs(inputs)
    with progress.bar("warm up", len(inputs) * len(pool.names)) as tick:
        pool.warm_up(list(inputs), tick=tick)
    for batch, length in shapes:
        total = request.repeats * len(pool.names)
        with progress.bar(f"batch {batch}, {length} tokens", total) as tick:
            pool.time_rounds(_key(batch, length), repeats=request.repeats, seed=SEED, tick=tick)


def _key(batch: int, length: int) -> str:
    return f"{batch}x{length}"


def _random_inputs(variants: list[Variant], shapes: list[tuple[int, int]]) -> dict[str, Inputs]:
    """Random tokens of the smallest vocabulary for each shape."""
    vocabulary = min(_config(variant).get("vocab_size", UNKNOWN_VOCABULARY) for variant in variants)
    check_length(variants, max(length for _, length in shapes))
    generator = np.random.default_rng(SEED)
    return {_key(batch, length): random_inputs(vocabulary, batch, length, generator) for batch, length in shapes}


def _config(variant: Variant) -> dict:
    file = Path(next(iter(variant.bundles.values()))) / "config.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def check_length(variants: list[Variant], length: int) -> None:
    """Raise AnatomyError where `length` tokens are more than one of the models takes."""
    for variant in variants:
        limit = _max_positions(_config(variant))
        if limit and length > limit:
            raise AnatomyError(f"--seq-len {length}: this model takes at most {limit} tokens; next step: ask for fewer")


def _max_positions(config: dict) -> int | None:
    """How many tokens a model of this config takes; None where that is not known."""
    if not find_spec("torch"):
        return None
    from anatomy_export.models.families import FAMILIES

    family = FAMILIES.get(config.get("model_type", ""))
    try:
        return family.max_positions(SimpleNamespace(**config)) if family else None
    except AttributeError:
        return None


def reference_of(one: Contestant, contestants: list[Contestant]) -> Contestant:
    """The dense contestant of the same engine, setting, precision and source model.

    Without one, the dense one of another precision, which its name then says; without that, the first of the setting.
    """
    same = [other for other in contestants if _setting(other) == _setting(one)]
    dense = [other for other in same if other.variant.mode == "dense" and other.variant.source == one.variant.source]
    equal = (other for other in dense if other.variant.precision == one.variant.precision)
    return next(equal, (dense or same)[0])


def _setting(one: Contestant) -> tuple:
    return (one.spec.engine, one.spec.copies, one.spec.cuda_graph)


def _torch_dense(one: Contestant, contestants: list[Contestant]) -> Contestant | None:
    """Eager torch on the same dense model, with copies or without as `one` has it."""
    return next(
        (
            other
            for other in contestants
            if (other.spec.engine, other.variant.mode, other.spec.copies) == ("torch", "dense", one.spec.copies)
            and other.variant.source == one.variant.source
        ),
        None,
    )


def _entry(one, contestants, measured: Measured, batch: int, length: int, peaks: dict) -> dict | None:
    samples = measured.samples
    key = _key(batch, length)
    times = samples.times(one.name, key)
    if not times:
        return None
    reference = reference_of(one, contestants)
    torch_dense = _torch_dense(one, contestants)
    peak = peaks["by_input"].get(key)
    summary = summarize(times)
    alone = one is reference and one.variant.mode not in ("dense", None)
    speedup = None if alone else _ratio(samples, reference, one, key)
    against_torch = _ratio(samples, torch_dense, one, key) if torch_dense else None
    share = one.variant.removed_share(batch, length)
    comparable = reference.variant.mode == "dense" and reference.variant.source == one.variant.source
    comparable = comparable and reference.variant.precision == one.variant.precision
    closure = closure_of(speedup, share if comparable and one is not reference else None)
    flops = one.variant.executed_flops(batch, length)
    rate = flops / summary.p50_s if flops else None
    return {
        "worker": one.name,
        "engine": one.spec.engine,
        "variant": one.variant.mode or one.variant.name,
        "precision": one.variant.precision,
        "name": one.variant.name,
        "keep_ratio": one.variant.keep_ratio,
        "batch": batch,
        "seq_len": length,
        "io_binding": not one.spec.copies,
        "cuda_graph": one.spec.cuda_graph,
        "median_s": summary.p50_s,
        "p50_s": summary.p50_s,
        "p90_s": summary.p90_s,
        "p99_s": summary.p99_s,
        "mean_s": summary.mean_s,
        "sequences_per_s": batch / summary.p50_s,
        "speedup": speedup.median if speedup else None,
        "speedup_interval": None if speedup is None or one is reference else speedup.bounds,
        "speedup_against": reference.name,
        "speedup_against_precision": reference.variant.precision,
        "speedup_void": bool(speedup and speedup.void),
        "closure_void": bool(closure and closure.wider_than(CLOSURE_VOID_WIDTH)),
        "torch_speedup": against_torch.median if against_torch else None,
        "torch_speedup_interval": against_torch.bounds if against_torch else None,
        "removed_share": share,
        "closure": closure.median if closure else None,
        "closure_interval": closure.bounds if closure else None,
        "flops": flops,
        "roofline_share": rate / peak if rate and peak and one.variant.precision == "fp32" else None,
        "peak_rss_bytes": samples.peak_rss_bytes.get(one.name),
        "model": one.variant.facts,
        "engine_facts": measured.facts.get(one.name, {}),
        "warmup_s": samples.warmups.get((one.name, key), []),
        "times_s": times,
    }


def _ratio(samples: Samples, first: Contestant, second: Contestant, key: str) -> Ratio | None:
    reference, own, launches = samples.paired(first.name, second.name, key)
    return paired_ratio(reference, own, launches=launches) if own else None
