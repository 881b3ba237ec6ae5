"""Seeded corruptions of a bundle: `anatomy verify` refuses in one line, or finds nothing that matters altered.

No crash, no hang, no file outside read: the file beside the directory is a pipe that nobody writes to, so that a read
of it would never end.
"""

import copy
import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from anatomy_export.bundle.verify import verify_bundle
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.json_files import checksum
from anatomy_export.core.progress import Progress

LIMIT_S = 20
BATCHES, MORE_BATCHES, CASES = range(12), range(12, 200), 25
STRANGE = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(10**30), 10**400, 1e308, -0.0, 0.5, "", "x", "../outside",
    "/etc/passwd", "a\0b", "\ud800", "é" * 3000, "0" * 64, [], [[]], [None] * 1000, {}, {"": None},
    {"../outside": "0" * 64},
)  # fmt: skip
NAMES = (
    "../outside",
    "a/../../outside",
    "/dev/zero",
    "//outside",
    "link",
    "C:\\x",
    ".",
    "..",
    "a\0",
    "model.onnx/x",
    "\udcff",
)


class TooLong(Exception):
    """A case did not end."""


def on_alarm(number, frame):
    raise TooLong


@pytest.fixture
def fuzzed(made_bundle, tmp_path) -> Path:
    """A copy to corrupt, with a pipe beside it."""
    os.mkfifo(tmp_path / "outside")
    return shutil.copytree(made_bundle, tmp_path / "bundle")


def outcome(bundle: Path, progress: Progress) -> str | None:
    """None where the bundle passes, else the one line that says why not."""
    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(LIMIT_S)
    try:
        verify_bundle(bundle, progress).raise_for_failures()
    except AnatomyError as error:
        message = " ".join(str(error).split())
        assert message and len(message) < 5000
        return message
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return None


def corrupt_bytes(chance: random.Random, content: bytes) -> bytes:
    """Truncated, a bit flipped, a piece doubled, dropped or overwritten; never the same."""
    place = chance.randrange(len(content))
    piece = content[place : place + chance.randrange(1, 50)]
    flipped = bytes([content[place] ^ 1 << chance.randrange(8)])
    changed = chance.choice(
        (
            content[:place],
            content[:place] + flipped + content[place + 1 :],
            content[:place] + piece + content[place:],
            content[:place] + content[place + len(piece) :],
            content[:place] + chance.randbytes(len(piece)) + content[place + len(piece) :],
        )
    )
    return changed if changed != content else b""


def corrupt_file(chance: random.Random, bundle: Path) -> None:
    name = chance.choice(sorted(json.loads((bundle / "bundle.json").read_text())["files"]))
    (bundle / name).write_bytes(corrupt_bytes(chance, (bundle / name).read_bytes()))


def corrupt_manifest(chance: random.Random, bundle: Path) -> None:
    (bundle / "bundle.json").write_bytes(corrupt_bytes(chance, (bundle / "bundle.json").read_bytes()))


def replace_file(chance: random.Random, bundle: Path) -> None:
    """A link out, a link to a device, a pipe, a directory, or nothing in a file's place."""
    path = bundle / chance.choice(["bundle.json", *sorted(json.loads((bundle / "bundle.json").read_text())["files"])])
    path.unlink()
    how = chance.randrange(6)
    if how < 3:
        os.symlink(("../outside", "/dev/zero", path.name)[how], path)
    elif how == 3:
        os.mkfifo(path)
    elif how == 4:
        path.mkdir()


def strange_value(chance: random.Random, body: dict) -> None:
    """A value somewhere replaced by one of another kind, or dropped."""
    at: dict | list = body
    while True:
        key = chance.choice(list(at) if isinstance(at, dict) else range(len(at)))
        below = at[key]
        if not isinstance(below, dict | list) or not below or chance.random() < 0.3:
            break
        at = below
    if chance.random() < 0.2:
        del at[key]
    else:
        at[key] = copy.deepcopy(chance.choice(STRANGE))


def strange_name(chance: random.Random, body: dict) -> None:
    """A file named that leads out, with or without the right checksum of a file inside."""
    body["files"][chance.choice(NAMES)] = chance.choice(["0" * 64, *body["files"].values()])


def sealed(change):
    """A change of the manifest, with the checksum of what it then holds."""

    def corrupt(chance: random.Random, bundle: Path) -> None:
        body = json.loads((bundle / "bundle.json").read_text())
        change(chance, body)
        body["checksum"] = checksum(body)
        (bundle / "bundle.json").write_text(json.dumps(body))

    return corrupt


def unsealed_value(chance: random.Random, bundle: Path) -> None:
    body = json.loads((bundle / "bundle.json").read_text())
    before = json.dumps(body, sort_keys=True)
    while json.dumps(body, sort_keys=True) == before:
        strange_value(chance, body)
    (bundle / "bundle.json").write_text(json.dumps(body))


WAYS = (corrupt_file, corrupt_manifest, replace_file, unsealed_value, sealed(strange_value), sealed(strange_name))
MAY_PASS = {1, 4}  # blanks between JSON values; a value that nothing depends on


def fuzz(seed: int, made: Path, fuzzed: Path) -> None:
    progress = Progress()
    progress.console.quiet = True
    for case in range(CASES):
        chance = random.Random(f"{seed}/{case}")
        way = chance.randrange(len(WAYS))
        WAYS[way](chance, fuzzed)
        found = outcome(fuzzed, progress)
        assert found or way in MAY_PASS, f"seed {seed}, case {case}: {WAYS[way]} was not noticed"
        if way == 1 and found is None:
            one, other = (json.loads((folder / "bundle.json").read_text()) for folder in (made, fuzzed))
            assert one == other
        shutil.rmtree(fuzzed)
        shutil.copytree(made, fuzzed)
    assert outcome(fuzzed, progress) is None


@pytest.mark.parametrize("seed", BATCHES)
def test_corrupted_bundles_are_refused(seed, made_bundle, fuzzed):
    fuzz(seed, made_bundle, fuzzed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MORE_BATCHES)
def test_more_corrupted_bundles_are_refused(seed, made_bundle, fuzzed):
    fuzz(seed, made_bundle, fuzzed)
