"""Who is timed, and against whom: engines on variants, the dense one of each, and the peak of the machine."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from anatomy_export.bench.engines import EngineSpec, fused_for
from anatomy_export.bench.measure import Measured
from anatomy_export.bench.stats import summarize
from anatomy_export.bench.variants import Variant
from anatomy_export.core.errors import AnatomyError

ROOFLINES = ("torch", "ort", "openvino")


@dataclass(frozen=True)
class Contestant:
    """One engine on one variant under one setting: what a worker holds, and what it is called."""

    name: str
    variant: Variant
    spec: EngineSpec

    @property
    def is_dense(self) -> bool:
        return self.variant.mode == "dense"

    def values(self) -> dict:
        """What a row of results says of it."""
        variant = self.variant
        return {
            "engine": self.spec.engine,
            "variant": variant.mode or variant.name,
            "name": variant.name,
            "keep_ratio": variant.keep_ratio,
        }

    @property
    def setting(self) -> tuple[str, bool, bool]:
        return self.spec.engine, self.spec.copies, self.spec.cuda_graph


def make_contestants(
    variants: Sequence[Variant],
    *,
    engines: Sequence[str],
    provider: str,
    threads: int,
    baselines: Sequence[str] = (),
    io_binding: Sequence[bool] = (False,),
    cuda_graph: Sequence[bool] = (False,),
) -> list[Contestant]:
    """Every engine on every variant and setting; `baselines` on dense variants only, those without ORT on fp32 only.

    Raises:
        AnatomyError: no engine times these precisions.
    """
    contestants = [
        _contestant(
            variant,
            EngineSpec(
                engine,
                variant.bundles[fused_for(engine, provider)],
                provider,
                threads,
                copies=not bound,
                cuda_graph=graph,
            ),
        )
        for engine in dict.fromkeys((*engines, *baselines))
        for bound in io_binding
        for graph in (cuda_graph if engine == "ort" else (False,))
        for variant in variants
        if (bound or not graph)
        and (engine in engines or variant.mode == "dense")
        and (engine == "ort" or variant.precision == "fp32")
    ]
    if not contestants:
        raise AnatomyError(f"no engine of {', '.join(engines)} times these precisions; next step: add ort to --backend")
    return contestants


def _contestant(variant: Variant, spec: EngineSpec) -> Contestant:
    setting = " bound" * (not spec.copies) + " graph" * spec.cuda_graph
    return Contestant(f"{spec.engine}{setting} {variant.name}", variant, spec)


def dense_of(contestant: Contestant, contestants: Sequence[Contestant]) -> Contestant | None:
    """The dense contestant of the same engine, setting and source model: of the same precision, else of another."""
    variant = contestant.variant
    dense = [
        other
        for other in contestants
        if other.setting == contestant.setting and other.is_dense and other.variant.source == variant.source
    ]
    return next((other for other in dense if other.variant.precision == variant.precision), dense[0] if dense else None)


def reference_of(contestant: Contestant, contestants: Sequence[Contestant]) -> Contestant:
    """What a contestant is compared with: `dense_of` it; without one, the first of the same setting."""
    same = (other for other in contestants if other.setting == contestant.setting)
    return dense_of(contestant, contestants) or next(same)


def torch_dense_of(contestant: Contestant, contestants: Sequence[Contestant]) -> Contestant | None:
    """Eager torch on the same dense model, with copies or without as the contestant has it."""
    return next(
        (
            other
            for other in contestants
            if other.is_dense
            and (other.spec.engine, other.spec.copies) == ("torch", contestant.spec.copies)
            and other.variant.source == contestant.variant.source
        ),
        None,
    )


def specs_of(
    contestants: Sequence[Contestant], engines: Iterable[str], provider: str, threads: int
) -> dict[str, EngineSpec]:
    """Every contestant's worker, and a matrix-product worker of each engine's library for the same rounds."""
    libraries = {engine.split("-")[0] for engine in engines}
    rooflines = [f"roofline-{library}" for library in ROOFLINES if library in libraries]
    return {contestant.name: contestant.spec for contestant in contestants} | {
        name: EngineSpec(name, provider=provider, threads=threads) for name in rooflines
    }


def roofline(measured: Measured) -> dict:
    """The best matrix-product rate of this run, FLOP/s by the median time of each library and input, and raw seconds.

    `by_input` holds the best rate among the rounds of each input, so that a share of it is of the same minutes.
    """
    best: dict[str, float] = {}
    raw: dict[str, dict[str, list[float]]] = {}
    for name in (f"roofline-{library}" for library in ROOFLINES):
        for key in measured.samples.rounds:
            times = measured.samples.times(name, key)
            if times:
                best[key] = max(measured.facts[name]["flops"] / summarize(times).p50_s, best.get(key, 0.0))
                raw.setdefault(name, {})[key] = times
    return {"flops_per_s": max(best.values(), default=None), "by_input": best, "times_s": raw}
