"""The machine and the software that a measurement was taken on."""

import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from anatomy_export.core.platform import cpu_flags as all_cpu_flags
from anatomy_export.core.platform import (
    cpu_governor,
    cpu_model,
    load_average,
    memory_bytes,
    system_name,
    usable_cores,
)

PACKAGES = ("anatomy-export", "torch", "transformers", "onnxruntime", "onnxruntime-gpu", "openvino", "onnx", "numpy")
X86_FLAGS = "sse4_2 avx f16c fma avx2 avx_vnni avx512f avx512_vnni avx512_bf16 amx_bf16 amx_int8"
ARM_FLAGS = "asimd asimddp i8mm sve"
CPU_FLAGS = f"{X86_FLAGS} {ARM_FLAGS}".split()
GPU_QUERY = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem"


def describe_environment(threads: int) -> dict:
    """CPU model and flags, threads, governor, load, memory, versions, commit, GPUs: plain values for a results file."""
    return {
        "cpu": cpu_model(),
        "cpu_flags": cpu_flags(),
        "cpus": os.cpu_count(),
        "usable_cores": usable_cores(),
        "threads": threads,
        "governor": cpu_governor(),
        "load_average": load_average(),
        "memory_bytes": memory_bytes(),
        "system": system_name(),
        "python": platform.python_version(),
        "versions": package_versions(),
        "commit": _commit(),
        "gpus": gpus(),
    }


def package_versions() -> dict[str, str]:
    """Version by distribution name, of those that are installed."""
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def cpu_flags() -> list[str]:
    """Those instruction set flags that decide how fast matrix products are; empty where the system tells none."""
    present = all_cpu_flags()
    return [flag for flag in CPU_FLAGS if flag in present]


def gpus() -> list[dict[str, str]]:
    """NVIDIA GPUs: name, driver, clocks in MHz; empty where nvidia-smi finds none."""
    lines = _output(["nvidia-smi", f"--query-gpu={GPU_QUERY}", "--format=csv,noheader,nounits"]).splitlines()
    names = GPU_QUERY.split(",")
    return [dict(zip(names, (part.strip() for part in line.split(",")), strict=False)) for line in lines]


def _commit() -> str | None:
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    return _output(["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]).strip() or None


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
