"""The one module that knows the operating system. None of what only one of them has is imported before it is used."""

import ctypes
import importlib
import os
import platform
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath

CGROUPS = "/sys/fs/cgroup"
CPUINFO = "/proc/cpuinfo"  # on Linux: py-cpuinfo does not ask CPUID for AVX-VNNI, AMX and bfloat16
# What py-cpuinfo calls them: by CPUID, and by macOS's sysctl.
FLAG_NAMES = {"avx512vnni": "avx512_vnni", "avx512bf16": "avx512_bf16", "sse4.2": "sse4_2", "avx1.0": "avx"}


def system_name() -> str:
    """Operating system and machine, as in "Linux x86_64"."""
    return f"{platform.system()} {machine()}"


def machine() -> str:
    """The CPU's architecture as the system spells it: "x86_64", "AMD64", "arm64"."""
    return platform.machine()


def peak_rss_bytes() -> int | None:
    """High-water mark of this process's resident memory, in bytes; None where the system does not tell.

    Linux's own count is read where there is one: `getrusage` starts a child at its parent's mark.
    """
    listed = _kibibytes("/proc/self/status", "VmHWM")
    if listed is not None:
        return listed
    resource = _optional("resource")
    if resource is not None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    psutil = _optional("psutil")
    return None if psutil is None else getattr(psutil.Process().memory_info(), "peak_wset", None)


def forget_peak() -> None:
    """Start the high-water mark anew at what is resident now, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory_bytes() -> int | None:
    """Main memory of the machine, in bytes; None where the system does not tell."""
    psutil = _optional("psutil")
    return _kibibytes("/proc/meminfo", "MemTotal") if psutil is None else psutil.virtual_memory().total


def load_average() -> list[float] | None:
    """Processes that wanted to run, on average over 1, 5 and 15 minutes; None where the system does not count them."""
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else None


def cpu_governor() -> str | None:
    """How the system chooses the clock of the first CPU; None where it does not tell."""
    return _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None


def cpu_model() -> str:
    """The CPU's name as the system gives it."""
    return _listed(CPUINFO, "model name") or _cpuid().get("brand_raw") or platform.processor() or machine()


def cpu_flags() -> set[str]:
    """The CPU's instruction set flags as Linux spells them; empty where nothing tells them."""
    listed = (_listed(CPUINFO, "flags") or _listed(CPUINFO, "Features")).split() or _cpuid().get("flags", [])
    return {FLAG_NAMES.get(flag, flag) for flag in listed}


def allowed_cpus() -> int:
    """Logical CPUs that this process may run on; all of them where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores() -> int:
    """Physical cores that this process may run on, at least 1; logical CPUs where the system does not tell.

    Of a quota of CPU time, as containers have, whole cores count: threads beyond it are stopped for a part of each
    period.
    """
    quota = _cpu_quota()
    cores = _physical_cores()
    return cores if quota is None else max(1, min(cores, int(quota)))


def keep_to_quota() -> None:
    """Have OpenMP, and so torch, start no more threads than a quota of CPU time lets run; before it is loaded."""
    if _cpu_quota() is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))


def die_with_parent() -> None:
    """Have this process killed when its parent ends, where the system can."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def was_killed(exit_code: int) -> bool:
    """Did a signal that no process can catch end the process of this exit code, as happens when memory runs out?"""
    return hasattr(signal, "SIGKILL") and exit_code == -signal.SIGKILL


def signal_later(number: int, seconds: float) -> bool:
    """Have this process get the signal after a time; False where the system has no timer for it."""
    if not hasattr(signal, "setitimer"):
        return False
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    return True


def _physical_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
        return len({_text(siblings.format(cpu)) or str(cpu) for cpu in os.sched_getaffinity(0)})
    psutil = _optional("psutil")
    return (psutil and psutil.cpu_count(logical=False)) or os.cpu_count() or 1


def _cpu_quota() -> float | None:
    """CPUs' worth of time that this process may use by its Linux control groups; None where that is not limited."""
    quotas: list[float] = []
    for line in _text("/proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            quotas += (_quota(*_text(f"{place}/cpu.max").split()) for place in _places(CGROUPS, group))
        elif "cpu" in controllers.split(","):
            for place in (*_places(f"{CGROUPS}/cpu", group), *_places(f"{CGROUPS}/{controllers}", group)):
                parts = (_text(f"{place}/cpu.cfs_{part}_us") for part in ("quota", "period"))
                quotas.append(_quota(*(part for part in parts if part)))
    return min((quota for quota in quotas if quota < float("inf")), default=None)


def _places(root: str, group: str) -> Iterable[str]:
    """Directories of a control group and of all that it is in; the root alone stands for one seen from a container."""
    path = PurePosixPath(group)
    return (f"{root}{place}".rstrip("/") for place in (path, *path.parents))


def _quota(allowed: str = "max", period: str = "100000") -> float:
    """Microseconds of CPU time in each period: their ratio, infinite where there is no limit ("max" or -1)."""
    unlimited = allowed == "max" or int(allowed) <= 0 or int(period) <= 0
    return float("inf") if unlimited else int(allowed) / int(period)


def _listed(file: str, name: str) -> str:
    """The first value of a name in a file of lines `name: value`; empty where there is none."""
    for line in _text(file).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _kibibytes(file: str, name: str) -> int | None:
    """A listed number of kB, in bytes."""
    value = _listed(file, name)
    return 1024 * int(value.split()[0]) if value else None


@cache
def _cpuid() -> dict:
    """What py-cpuinfo finds out, in about a second; nothing where it is not installed or the CPU is not known to it."""
    cpuinfo = _optional("cpuinfo")
    if cpuinfo is None or _text(CPUINFO):
        return {}
    try:
        return cpuinfo.get_cpu_info()
    except Exception:  # py-cpuinfo raises a bare one for an architecture that it does not know
        return {}


def _optional(module: str):
    """A module that only some systems or installations have; None elsewhere."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
