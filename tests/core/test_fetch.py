"""Packages from the registry, and a cache that cannot be written; no registry is asked."""

import hashlib
import subprocess
import threading
from pathlib import Path

import filelock
import pytest

from anatomy_export.core import cache as cache_module
from anatomy_export.core import packages as fetch
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress

CONTENT = b"what the package holds"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("ANATOMY_CACHE", str(tmp_path / "cache"))
    package = fetch.PackageFile("thing==1", "thing-1.tar.gz", hashlib.sha256(CONTENT).hexdigest(), source=True)
    monkeypatch.setitem(fetch.PACKAGES, "thing", package)
    return tmp_path / "cache"


def pip_that(answer, calls: list):
    """Stands in for subprocess.run: `answer(folder)` gives pip's exit code and standard error."""

    def run(command, **options):
        calls.append(command)
        code, errors = answer(Path(command[command.index("--dest") + 1]))
        return subprocess.CompletedProcess(command, code, "", errors)

    return run


def test_downloaded_once_with_its_hash(cache: Path, monkeypatch):
    calls: list = []

    def answer(folder: Path):
        assert "--hash=sha256:" in (folder / "requirement.txt").read_text()
        (folder / "thing-1.tar.gz").write_bytes(CONTENT)
        return 0, ""

    monkeypatch.setattr(subprocess, "run", pip_that(answer, calls))
    assert fetch.fetch_package("thing").read_bytes() == CONTENT
    assert fetch.fetch_package("thing") == cache / "packages" / "thing-1.tar.gz"
    assert len(calls) == 1
    assert "--require-hashes" in calls[0]


@pytest.mark.parametrize(
    "errors",
    ["ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "ERROR: No matching distribution"],
)
def test_wrong_checksum_or_no_registry(cache: Path, monkeypatch, errors):
    monkeypatch.setattr(subprocess, "run", pip_that(lambda folder: (1, f"warning\n{errors}\n"), []))
    with pytest.raises(AnatomyError, match=rf"cannot fetch thing==1 from PyPI \({errors}\); next step: check the"):
        fetch.fetch_package("thing")
    assert not (cache / "packages" / "thing-1.tar.gz").exists()


def test_a_damaged_file_in_the_cache_is_fetched_again(cache: Path, monkeypatch):
    (cache / "packages").mkdir(parents=True)
    (cache / "packages" / "thing-1.tar.gz").write_bytes(b"damaged")

    def answer(folder: Path):
        (folder / "thing-1.tar.gz").write_bytes(CONTENT)
        return 0, ""

    monkeypatch.setattr(subprocess, "run", pip_that(answer, []))
    assert fetch.fetch_package("thing").read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_names_its_variable(cache: Path, monkeypatch):
    def denied(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(filelock.FileLock, "acquire", denied)
    with pytest.raises(AnatomyError, match=r"cannot be written \(Permission denied\); next step: set ANATOMY_CACHE"):
        fetch.fetch_package("thing")


def test_a_wait_for_another_process_is_said(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(cache_module, "WAIT_UNSAID_S", 0.05)
    entry, progress, inside = tmp_path / "cache" / "entry", Progress(), threading.Event()

    def wait() -> None:
        with fetch.cache_lock(entry, progress):
            inside.set()

    with fetch.cache_lock(entry):
        waiting = threading.Thread(target=wait)
        waiting.start()
        while not progress.notes:
            assert waiting.is_alive()
        assert not inside.is_set()
    waiting.join(60)
    assert inside.is_set()
    assert progress.notes == [f"note: another process is making {entry}; waiting for it"]


def test_a_download_leaves_only_its_file(cache: Path, monkeypatch):
    def answer(folder: Path):
        (folder / "thing-1.tar.gz").write_bytes(CONTENT)
        return 0, ""

    monkeypatch.setattr(subprocess, "run", pip_that(answer, []))
    fetch.fetch_package("thing")
    assert [path.name for path in (cache / "packages").iterdir() if path.name[0] != "."] == ["thing-1.tar.gz"]
    assert not list((cache / "packages").glob(".*partial*"))
