"""What a user waits for before anything is done."""

import subprocess
import sys

import pytest

import anatomy_export

HEAVY = {"torch", "numpy", "onnx", "onnxruntime", "transformers", "pandas", "rich"}
CPU_SECONDS = 1.5  # several times what it takes: other processes slow this one down too
HELP = "import contextlib, io\nwith contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n    {}"
STARTS = {
    "import": "import anatomy_export",
    "anatomy --help": HELP.format("from anatomy_export.cli import main; main(['--help'])"),
    "anatomy-export --help": HELP.format("from anatomy_export.cli import export; export.main(['--help'])"),
    "anatomy-bench --help": HELP.format("from anatomy_export.cli import bench; bench.main(['--help'])"),
}


@pytest.mark.parametrize("start", STARTS)
def test_it_starts_at_once_and_imports_nothing_heavy(start):
    code = f"{STARTS[start]}\nimport sys, time; print(time.process_time(), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *modules = done.stdout.split()
    assert HEAVY & set(modules) == set()
    assert float(seconds) < CPU_SECONDS


def test_the_version_is_looked_up_when_it_is_asked_for():
    assert anatomy_export.__version__.split(".")[0].isdigit()
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        anatomy_export.nothing  # noqa: B018
