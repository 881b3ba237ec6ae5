"""`anatomy doctor`: what this machine and installation really have."""

from collections.abc import Iterator
from dataclasses import asdict

from cloup import command, option

from anatomy_export.commands import kinds, options
from anatomy_export.commands.bench_measurement import PROVIDERS
from anatomy_export.commands.terminal import print_answer
from anatomy_export.core.progress import Progress


@command("doctor")
@option(
    "--require",
    default="",
    show_default=False,
    type=kinds.some_of(*PROVIDERS, blank=True),
    help="Comma-separated providers (cpu, cuda, tensorrt) that must start: else exit 3.",
)
@options.as_json
def doctor(require: tuple[str, ...], as_json: bool) -> None:
    """Versions, CPU, execution providers that really start, and what the cache holds."""
    from anatomy_export.jobs.doctor import diagnose, require_providers

    with Progress().stage("try each execution provider"):
        diagnosis = diagnose()
    print_answer(as_json, asdict(diagnosis), lambda: (f"{name:<20} {value}" for name, value in _facts(diagnosis)))
    require_providers(diagnosis, list(require))


def _facts(diagnosis) -> Iterator[tuple[str, str]]:
    """What is said of the machine, line by line: a name and its value."""
    yield from diagnosis.versions.items()
    flags = " ".join(diagnosis.cpu_flags) or "flags unknown"
    yield "CPU", f"{diagnosis.cpu}, {diagnosis.cpus} logical cores ({flags})"
    yield "memory", "unknown" if diagnosis.memory_bytes is None else f"{diagnosis.memory_bytes / 1e9:,.1f} GB"
    for library, threads in diagnosis.threads.items():
        yield f"threads, {library}", str(threads)
    for gpu in diagnosis.gpus:
        yield "GPU", ", ".join(gpu.values())
    if not diagnosis.gpus:
        yield "GPU", "none found by nvidia-smi"
    for name, state in diagnosis.providers.items():
        listed = "available" if state["available"] else "not available"
        yield f"provider {name}", "starts" if state["starts"] else f"{listed}, does not start: {state['reason']}"
    for name, size in diagnosis.cached.items():
        yield "cached", f"{name}, {size / 1e6:,.1f} MB"
    yield "cache in", diagnosis.cache
