"""What each source is, in a few lines."""

from anatomy_export.core.names import public_name
from anatomy_export.report.sources import Bench, Bundle, Pareto, Score, Source, Study
from anatomy_export.report.strong import strong_neurons
from anatomy_export.report.wording import counted, interval, percent


def facts(source: Source) -> list[tuple[str, str]]:
    """Names and values for the head of the report."""
    if isinstance(source, Study):
        return [*_score_facts(source.score), *_study_facts(source)]
    if isinstance(source, Score):
        return _score_facts(source)
    if isinstance(source, Bundle):
        return _bundle_facts(source)
    return _bench_facts(source) if isinstance(source, Bench) else _pareto_facts(source)


def footer_facts(source: Source) -> list[str]:
    """The machine and versions that a source was measured on, where it says so."""
    body = source.environment if isinstance(source, Study) else getattr(source, "body", {}).get("environment")
    if not isinstance(body, dict):
        return []
    given = body.get("versions")
    versions = given if isinstance(given, dict) else {}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    threads = f", {body['threads']} threads" if body.get("threads") else ""
    machine = f"{source.label}: {body.get('cpu', 'unknown CPU')}{threads}"
    return [f"{machine}; {listed}." if listed else f"{machine}."]


def _score_facts(score: Score) -> list[tuple[str, str]]:
    strong = strong_neurons(score)
    total = sum(score.widths)
    few, many = min(score.widths), max(score.widths)
    widths = f"{many:,}" if few == many else f"{few:,}–{many:,}"
    return [
        ("model", f"{score.model} ({score.family})"),
        ("size", f"{counted(len(score.widths), 'layer')} of {widths} FFN neurons"),
        ("strong neurons", f"{strong.total:,} of {total:,} ({percent(strong.total / total)}), {strong.words}"),
        ("probes", str(len(score.tasks))),
        ("fingerprint", score.anatomy.fingerprint[:12]),
    ]


def _study_facts(study: Study) -> list[tuple[str, str]]:
    anatomy, random = len(study.measured("anatomy")), len(study.measured("random"))
    state = [("state", "partial: it was interrupted")] if study.partial else []
    return [
        ("dense accuracy", f"{percent(study.dense_accuracy)} ({interval(study.dense_interval)})"),
        ("test texts", f"{study.examples:,}"),
        ("measured", f"{counted(anatomy, 'setup')}, {counted(random, 'random draw')}"),
        *state,
    ]


def _bundle_facts(bundle: Bundle) -> list[tuple[str, str]]:
    plan = bundle.plan
    kept = sum(plan.kept_widths) / sum(plan.widths)
    return [
        ("bundle", f"{bundle.name}, {bundle.mode}"),
        ("neurons kept", f"{sum(plan.kept_widths):,} of {sum(plan.widths):,} ({percent(kept)})"),
        ("criterion", plan.criterion),
        ("model", plan.fingerprint[:12]),
    ]


def _bench_facts(bench: Bench) -> list[tuple[str, str]]:
    body = bench.body
    settings = body.get("settings") or {}
    return [
        ("bench", "the paper's job" if body["kind"] == "paper" else "latency"),
        ("model", public_name(settings.get("model") or "given bundles")),
        ("engines", ", ".join(dict.fromkeys(one["engine"] for one in body["results"]))),
    ]


def _pareto_facts(pareto: Pareto) -> list[tuple[str, str]]:
    settings = pareto.body.get("settings") or {}
    return [
        ("pareto", f"{counted(len(pareto.body['results']), 'way')} to prune"),
        ("model", public_name(settings.get("model") or "unknown")),
        ("no other beats", str(len(pareto.body.get("non_dominated", [])))),
    ]
