"""What this machine and installation really have: versions, CPU, execution providers that start, the cache."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from anatomy_export.bench.engines import ORT_PROVIDERS as PROVIDERS
from anatomy_export.bench.environment import cpu_flags, gpus, package_versions
from anatomy_export.core.cache import cache_directory
from anatomy_export.core.errors import ProviderError
from anatomy_export.core.platform import allowed_cpus, cpu_model, memory_bytes, usable_cores


@dataclass(frozen=True)
class Diagnosis:
    """Plain values; `providers` by short name: is it `available`, does it start (`starts`), and why not (`reason`)."""

    versions: dict[str, str]
    cpu: str
    cpu_flags: list[str]
    cpus: int
    memory_bytes: int | None
    threads: dict[str, int]
    gpus: list[dict[str, str]]
    providers: dict[str, dict]
    cache: str
    cached: dict[str, int]


def diagnose() -> Diagnosis:
    """Look, and run a one-node model on every execution provider of ONNX Runtime that is listed as available."""
    cache = cache_directory()
    return Diagnosis(
        versions=package_versions(),
        cpu=cpu_model(),
        cpu_flags=cpu_flags(),
        cpus=os.cpu_count() or 1,
        memory_bytes=memory_bytes(),
        threads=_threads(),
        gpus=gpus(),
        providers=_providers(),
        cache=str(cache),
        cached=_cached(cache),
    )


def require_providers(diagnosis: Diagnosis, required: list[str]) -> None:
    """Raise ProviderError unless every provider in `required` (cpu, cuda, tensorrt) really starts."""
    for name in required:
        state = diagnosis.providers.get(name, {"starts": False, "reason": "onnxruntime is not installed"})
        if not state["starts"]:
            raise ProviderError(f"--require {name}: {state['reason']}")


def _threads() -> dict[str, int]:
    threads = {"affinity": allowed_cpus(), "usable": usable_cores()}
    if find_spec("torch"):
        import torch

        threads["torch"] = torch.get_num_threads()
    return threads


def _providers() -> dict[str, dict]:
    if not find_spec("onnxruntime"):
        return {}
    import onnxruntime

    from anatomy_export.bench.measure import why_not

    available = onnxruntime.get_available_providers()
    reasons = {name: why_not("ort", name) for name in PROVIDERS}
    return {
        name: {"available": PROVIDERS[name] in available, "starts": reason is None, "reason": reason}
        for name, reason in reasons.items()
    }


def _cached(cache: Path) -> dict[str, int]:
    """Bytes of each entry of the cache, by its path inside."""
    if not cache.is_dir():
        return {}
    return {
        f"{group.name}/{entry.name}": sum(file.stat().st_size for file in [entry, *entry.rglob("*")] if file.is_file())
        for group in sorted(cache.iterdir())
        if group.is_dir()
        for entry in sorted(group.iterdir())
        if not entry.name.startswith(".")
    }
