"""What only some operating systems have is asked for when it is used, and answered where it is not there."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from onnx_graphs import ffn_model

from anatomy_export.bench import environment
from anatomy_export.core import platform
from anatomy_export.core.files import staged_directory, staged_file
from anatomy_export.plan_files.plan import identity_plan

POSIX_ONLY = """
import importlib, os, pkgutil, signal, sys
{first}
for name in ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix"):
    sys.modules[name] = None
for name in ("sched_getaffinity", "getloadavg", "fork", "getuid", "geteuid", "getgid", "uname", "killpg", "setsid"):
    delattr(os, name)
for name in ("SIGALRM", "SIGKILL", "SIGHUP", "SIGQUIT", "SIGUSR1", "setitimer", "alarm", "pause", "sigwait"):
    delattr(signal, name)
rename = os.rename
def rename_as_windows(source, target):
    if os.path.lexists(target):
        raise FileExistsError(183, "Cannot create a file when that file already exists", target)
    rename(source, target)
os.rename = rename_as_windows
"""
BASE_INSTALL = (
    "import click, filelock, numpy, onnx, onnx_ir, rich.console, rich.progress, safetensors.numpy, subprocess"
)


def without_posix(code: str, *arguments, first: str = BASE_INSTALL, **options) -> subprocess.CompletedProcess:
    """A process that imports what is not ours, loses what Windows lacks, and then runs `code`."""
    script = POSIX_ONLY.format(first=first) + textwrap.dedent(code)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8", **options)


CLI = "from anatomy_export.cli import main\nmain()"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(ffn_model(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_help_and_plan_show_without_what_only_posix_has(tmp_path: Path):
    (tmp_path / "plan.json").write_text(identity_plan("f" * 64, [4, 4]).to_json(), encoding="utf-8")
    shown = without_posix(CLI, "plan", "show", tmp_path / "plan.json")
    assert shown.returncode == 0 and "0 of 8 neurons" in shown.stdout, shown.stderr
    helped = without_posix(CLI, "--help")
    assert helped.returncode == 0 and "slice-onnx" in helped.stdout, helped.stderr


def test_slice_onnx_without_what_only_posix_has(model):
    arguments = ("slice-onnx", model, "--keep-ratio", "0.5", "-o", model.with_name("o.onnx"))
    for more in ((), ("--force",)):
        done = without_posix(CLI, *arguments, *more)
        assert done.returncode == 0 and "wrote" in done.stdout, done.stderr
    again = without_posix(CLI, *arguments)
    assert again.returncode == 1 and "o.onnx exists; next step" in again.stderr
    assert sorted(path.name for path in model.parent.iterdir()) == ["m.onnx", "o.onnx"]


def test_every_module_is_imported_without_what_only_posix_has():
    others = (
        "torch, torch.fx, transformers, onnxscript, onnxruntime, pandas, datasets, multiprocessing, matplotlib.figure"
    )
    code = """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer
        import anatomy_export
        names = [module.name for module in pkgutil.walk_packages(anatomy_export.__path__, "anatomy_export.")]
        for name in names:
            importlib.import_module(name)
        from anatomy_export.bench.environment import describe_environment
        from anatomy_export.core import platform
        described = describe_environment(1)
        assert described["load_average"] is None and described["usable_cores"] >= 1
        assert platform.allowed_cpus() >= 1 and not platform.was_killed(-9) and not platform.signal_later(2, 1.0)
        print(len(names), "modules")
    """
    preloaded = f"{BASE_INSTALL}, {others}\nfrom transformers import AutoModelForSequenceClassification, Trainer"
    done = without_posix(code, first=preloaded)
    assert done.returncode == 0 and int(done.stdout.split()[-2]) > 100, done.stderr


def test_import_takes_nothing_that_only_one_system_has():
    code = """
        import anatomy_export, anatomy_export.cli
        ours = [name for name in sys.modules if name.startswith("anatomy_export")]
        bad = {"resource", "fcntl", "pwd", "grp", "termios", "msvcrt", "winreg"}
        print([(name, one) for name in ours for one in bad if hasattr(sys.modules[name], one)])
    """
    done = subprocess.run(
        [sys.executable, "-c", "import sys\n" + textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.fixture
def system(monkeypatch):
    """A function that replaces the files that the system tells about itself in."""

    def tells(files: dict[str, str]) -> None:
        monkeypatch.setattr(platform, "_text", lambda path: files.get(path, ""))

    return tells


MEMBER, V1 = "/proc/self/cgroup", "/sys/fs/cgroup/cpu"
QUOTAS = {
    "version 2": ({MEMBER: "0::/job", "/sys/fs/cgroup/job/cpu.max": "150000 100000"}, 1.5),
    "version 2, of the group around": (
        {MEMBER: "0::/a/b", "/sys/fs/cgroup/a/cpu.max": "200000 100000", "/sys/fs/cgroup/a/b/cpu.max": "max 100000"},
        2.0,
    ),
    "version 2, as a container sees it": ({MEMBER: "0::/", "/sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),
    "version 2, no limit": ({MEMBER: "0::/", "/sys/fs/cgroup/cpu.max": "max 100000"}, None),
    "version 1": (
        {
            MEMBER: "4:memory:/\n3:cpu,cpuacct:/docker/1\n0::/",
            f"{V1}/docker/1/cpu.cfs_quota_us": "300000",
            f"{V1}/docker/1/cpu.cfs_period_us": "100000",
        },
        3.0,
    ),
    "version 1, as a container sees it": (
        {
            MEMBER: "3:cpuacct,cpu:/docker/1",
            "/sys/fs/cgroup/cpuacct,cpu/cpu.cfs_quota_us": "20000",
            "/sys/fs/cgroup/cpuacct,cpu/cpu.cfs_period_us": "10000",
        },
        2.0,
    ),
    "version 1, no limit": ({MEMBER: "1:cpu:/", f"{V1}/cpu.cfs_quota_us": "-1"}, None),
    "no control groups": ({}, None),
}


@pytest.mark.parametrize("case", QUOTAS)
def test_cpu_quota_of_control_groups(system, case):
    files, expected = QUOTAS[case]
    system(files)
    assert platform._cpu_quota() == expected


@pytest.mark.parametrize(("quota", "expected"), [("50000", 1), ("150000", 1), ("300000", 3), ("900000", 4)])
def test_usable_cores_are_whole_cores_of_the_quota(system, monkeypatch, quota, expected):
    siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    threads = {siblings.format(cpu): f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}" for cpu in range(8)}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    system({MEMBER: "0::/", "/sys/fs/cgroup/cpu.max": f"{quota} 100000", **threads})
    assert platform.usable_cores() == expected
    system(threads)
    assert platform.usable_cores() == 4


@pytest.mark.parametrize(
    ("quota", "given", "expected"), [("150000", None, "1"), ("150000", "3", "3"), ("max", None, None)]
)
def test_threads_keep_to_the_quota(system, monkeypatch, quota, given, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    system({MEMBER: "0::/", "/sys/fs/cgroup/cpu.max": f"{quota} 100000"})
    platform.keep_to_quota()
    assert os.environ.get("OMP_NUM_THREADS") == expected


def test_cpu_of_a_system_without_proc(system, monkeypatch):
    """As py-cpuinfo spells what CPUID and macOS tell."""
    told = {"brand_raw": "A CPU", "flags": ["sse4.2", "avx1.0", "avx2", "avx512f", "avx512vnni"]}
    monkeypatch.setitem(sys.modules, "cpuinfo", SimpleNamespace(get_cpu_info=lambda: told))
    platform._cpuid.cache_clear()
    try:
        system({})
        assert platform.cpu_model() == "A CPU"
        assert environment.cpu_flags() == ["sse4_2", "avx", "avx2", "avx512f", "avx512_vnni"]
    finally:
        platform._cpuid.cache_clear()


def test_py_cpuinfo_spells_the_flags_as_they_are_read_here(system):
    cpuinfo = pytest.importorskip("cpuinfo")
    here = environment.cpu_flags()
    told = cpuinfo.cpuinfo._get_cpu_info_from_cpuid().get("flags")
    if not here or not told:
        pytest.skip("the flags are not told here, or no CPUID without asking Linux")
    spelled = {platform.FLAG_NAMES.get(flag, flag) for flag in told}
    unknown = {"avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8"}  # it does not ask CPUID for most of these
    assert set(here) - unknown == set(environment.CPU_FLAGS) & spelled - unknown


def test_nothing_tells_about_the_machine(system, monkeypatch):
    for name in ("cpuinfo", "psutil", "resource"):
        monkeypatch.setitem(sys.modules, name, None)
    platform._cpuid.cache_clear()
    try:
        system({})
        assert platform.cpu_flags() == set() and platform.cpu_model()
        assert platform.peak_rss_bytes() is None and platform.memory_bytes() is None
    finally:
        platform._cpuid.cache_clear()


def test_peak_and_memory_here():
    peak, memory = platform.peak_rss_bytes(), platform.memory_bytes()
    assert peak is not None and memory is not None and 1e7 < peak < memory


def test_outputs_are_replaced_where_a_rename_replaces_nothing(tmp_path: Path, monkeypatch):
    rename = os.rename

    def as_windows(source, target):
        if os.path.lexists(target):
            raise FileExistsError(183, "Cannot create a file when that file already exists", target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", as_windows)
    for text in ("old", "new"):
        with staged_directory(tmp_path / "d", True) as staging:
            (staging / "bundle.json").write_text(text)
        with staged_file(tmp_path / "f", True, part="f.data") as staged:
            staged.write_text(text)
            staged.with_name("f.data").write_text(text)
    files = ("d/bundle.json", "f", "f.data")
    assert [(tmp_path / name).read_text() for name in files] == ["new"] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "f", "f.data"]


def test_a_character_that_the_terminal_lacks_is_no_error(model):
    command = [sys.executable, "-m", "anatomy_export.cli", "slice-onnx", model, "--keep-ratio", "0.5", "-o"]
    output = model.with_name("\u0394.onnx")
    environ = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([*command, output], capture_output=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    assert rb"\u0394.onnx" in done.stdout and output.is_file()
