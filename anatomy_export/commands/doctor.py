"""`anatomy doctor`: what this machine and installation really have."""

import json
from collections.abc import Iterator

import click
from cloup import option

from anatomy_export.commands.bench_measurement import PROVIDERS
from anatomy_export.commands.guard import command
from anatomy_export.commands.options import json_option
from anatomy_export.commands.parameter_types import some_of
from anatomy_export.core.progress import Progress


@command("doctor")
@option(
    "--require",
    default="",
    type=some_of(*PROVIDERS, blank=True),
    show_default=False,
    help=f"Comma-separated providers ({', '.join(PROVIDERS)}) that must start: else exit 3.",
)
@json_option
def doctor(require: tuple[str, ...], as_json: bool) -> None:
    """Versions, CPU, execution providers that really start, and what the cache holds."""
    from dataclasses import asdict

    from anatomy_export.jobs.doctor import diagnose, require_providers

    with Progress().stage("try each execution provider"):
        diagnosis = diagnose()
    if as_json:
        click.echo(json.dumps(asdict(diagnosis)))
    else:
        for name, value in _facts(diagnosis):
            click.echo(f"{name:<20} {value}")
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
