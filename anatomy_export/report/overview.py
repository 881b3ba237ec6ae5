"""What each source is, in a few lines."""

from anatomy_export.core.names import public_name
from anatomy_export.report.sources import Bench, Bundle, Measurement, Pareto, Score, Source, Study
from anatomy_export.report.strong_neurons import strong_neurons
from anatomy_export.report.wording import counted, interval, of_all, percent

Facts = list[tuple[str, str]]


def facts(source: Source) -> Facts:
    """Names and values for the head of the report."""
    if isinstance(source, Study):
        return [*_score_facts(source.score), *_study_facts(source)]
    if isinstance(source, Score):
        return _score_facts(source)
    if isinstance(source, Bundle):
        return _bundle_facts(source)
    if isinstance(source, Bench):
        return _bench_facts(source)
    return _pareto_facts(source) if isinstance(source, Pareto) else []


def footer_facts(source: Source) -> list[str]:
    """The machine and versions that a source was measured on, where it says so."""
    environment = source.environment if isinstance(source, Measurement) else None
    if environment is None:
        return []
    listed = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    threads = f", {environment.threads} threads" if environment.threads else ""
    machine = f"{source.label}: {environment.cpu}{threads}"
    return [f"{machine}; {listed}." if listed else f"{machine}."]


def _score_facts(score: Score) -> Facts:
    strong = strong_neurons(score)
    few, many = min(score.widths), max(score.widths)
    widths = f"{many:,}" if few == many else f"{few:,}–{many:,}"
    return [
        ("model", f"{public_name(score.model)} ({score.family})"),
        ("size", f"{counted(len(score.widths), 'layer')} of {widths} FFN neurons"),
        ("strong neurons", f"{of_all(sum(strong.counts), sum(score.widths))}, {strong.words}"),
        ("probes", str(len(score.probes))),
        ("fingerprint", score.anatomy.fingerprint[:12]),
    ]


def _study_facts(study: Study) -> Facts:
    anatomy, random = len(study.measured("anatomy")), len(study.measured("random"))
    state = [("state", "partial: it was interrupted")] if study.partial else []
    return [
        ("dense accuracy", f"{percent(study.dense.accuracy)} ({interval(study.dense.interval)})"),
        ("test texts", f"{study.dense.examples:,}"),
        ("measured", f"{counted(anatomy, 'setup')}, {counted(random, 'random draw')}"),
        *state,
    ]


def _bundle_facts(bundle: Bundle) -> Facts:
    plan = bundle.plan
    return [
        ("bundle", f"{bundle.name}, {bundle.mode}"),
        ("neurons kept", of_all(sum(plan.kept_widths), sum(plan.widths))),
        ("criterion", plan.criterion),
        ("model", plan.fingerprint[:12]),
    ]


def _bench_facts(bench: Bench) -> Facts:
    return [
        ("bench", "the paper's job" if bench.is_job else "latency"),
        ("model", public_name(bench.settings.model or "given bundles")),
        ("engines", ", ".join(dict.fromkeys(row.engine for row in bench.results))),
    ]


def _pareto_facts(pareto: Pareto) -> Facts:
    return [
        ("pareto", f"{counted(pareto.tried, 'way')} to prune"),
        ("model", public_name(pareto.settings.model or "unknown")),
        ("no other beats", str(len(pareto.non_dominated))),
    ]
