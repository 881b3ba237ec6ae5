"""Outputs appear as a whole, and replace only what this toolkit wrote."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from anatomy_export.core import files
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import require_free, sole_writer, staged_directory, staged_file


@pytest.mark.parametrize("mark", ["bundle.json", "bench.json", "finetune.json", "provenance.json"])
def test_force_replaces_what_the_toolkit_wrote(tmp_path: Path, mark):
    target = tmp_path / "target"
    target.mkdir()
    require_free(target, True)
    (target / mark).write_text("{}")
    (target / "old").write_text("old")
    with staged_directory(target, True) as staging:
        (staging / "new").write_text("new")
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_force_wants_its_own_mark(tmp_path: Path):
    (tmp_path / "bench.json").write_text("{}")
    require_free(tmp_path, True)
    with pytest.raises(AnatomyError, match=r"holds files but no bundle\.json, so --force does not replace it"):
        require_free(tmp_path, True, marks=("bundle.json",))


@pytest.mark.parametrize("position", [1, 2])
def test_an_interruption_between_the_renames_waits(tmp_path: Path, monkeypatch, position):
    """Before the second rename the place is empty; a signal there must not leave it so."""
    target = tmp_path / "target"
    target.mkdir()
    (target / "bundle.json").write_text("old")
    rename, calls, handler = os.rename, [], signal.getsignal(signal.SIGINT)

    def interrupted(source, destination):
        calls.append(source)
        if len(calls) == position:
            os.kill(os.getpid(), signal.SIGINT)
        rename(source, destination)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), staged_directory(target, True) as staging:
        (staging / "bundle.json").write_text("new")
    assert (target / "bundle.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_failed_rename_brings_the_old_back(tmp_path: Path, monkeypatch):
    target = tmp_path / "target"
    target.mkdir()
    (target / "bundle.json").write_text("old")
    rename = os.rename

    def failing(source, destination):
        if Path(destination) == target and Path(source).name == "new":
            raise OSError(28, "No space left on device")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="No space left"), staged_directory(target, True) as staging:
        (staging / "bundle.json").write_text("new")
    assert (target / "bundle.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize("writer", [staged_directory, staged_file])
def test_what_cannot_be_moved_back_now_comes_back_later(tmp_path: Path, monkeypatch, writer):
    target = tmp_path / "target"
    mark = Path("bundle.json" if writer is staged_directory else "")
    with writer(target) as staged:
        (staged / mark).write_text("old")
    rename, calls = os.rename, []

    def failing(source, destination):
        calls.append(source)
        if len(calls) > 1:
            raise OSError(5, "Input/output error")
        rename(source, destination)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
        patch.setattr(os, "rename", failing)
        with writer(target, True) as staged:
            (staged / mark).write_text("new")
    assert not target.exists() and len(calls) == 3
    with pytest.raises(AnatomyError, match="target exists"), writer(target):
        pytest.fail("the old one is back")
    assert (target / mark).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_files_move_together_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "o.data").write_text("old data")
    with pytest.raises(AnatomyError, match=r"o\.data exists"), staged_file(tmp_path / "o") as staged:
        staged.write_text("new")
        staged.with_name("o.data").write_text("new data")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("o.data", "old data")]
    rename, moves = os.rename, []

    def failing(source, target):
        moves.append(source)
        if source.name == "o" and source.parent.name == "new":
            raise OSError(28, "No space left on device")
        rename(source, target)

    (tmp_path / "o").write_text("old")
    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError), staged_file(tmp_path / "o", force=True) as staged:
        staged.write_text("new")
        staged.with_name("o.data").write_text("new data")
    found = sorted((path.name, path.read_text()) for path in tmp_path.iterdir())
    assert found == [("o", "old"), ("o.data", "old data")] and len(moves) == 6


def test_a_part_goes_with_the_file_that_it_belonged_to(tmp_path, monkeypatch):
    for name in ("o", "o.data", "other"):
        (tmp_path / name).write_text(f"old {name}")
    rename = os.rename

    def failing(source, target):
        if source.name == "o" and source.parent.name == "new":
            raise OSError(28, "No space left on device")
        rename(source, target)

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(os, "rename", failing)
        with staged_file(tmp_path / "o", force=True, part="o.data") as staged:
            staged.write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        name: f"old {name}" for name in ("o", "o.data", "other")
    }
    with staged_file(tmp_path / "o", force=True, part="o.data") as staged:
        staged.write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"o": "new", "other": "old other"}


@pytest.mark.parametrize("staged", [staged_directory, staged_file])
def test_an_interruption_as_the_directory_is_made_leaves_nothing(tmp_path: Path, monkeypatch, staged):
    made = tempfile.mkdtemp

    def interrupted(**options):
        path = made(**options)
        os.kill(os.getpid(), signal.SIGINT)
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", interrupted)
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "new" / "target"):
        pytest.fail("the interruption comes first")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("writer", "last"), [(staged_directory, 3), (staged_file, 3), (sole_writer, 2)])
def test_an_interruption_just_before_the_end_is_held_leaves_nothing(tmp_path: Path, monkeypatch, writer, last):
    held, calls = files.signals_held, []

    def interrupted():
        calls.append(len(list(tmp_path.iterdir())))
        if len(calls) == last:
            raise KeyboardInterrupt
        return held()

    monkeypatch.setattr(files, "signals_held", interrupted)
    with pytest.raises(KeyboardInterrupt), writer(tmp_path / "target") as staged:
        if writer is staged_file:
            staged.write_text("ours")
    assert calls[-2] > 0 and len(calls) == last + 1
    assert [path.name for path in tmp_path.iterdir()] == ([] if writer is sole_writer else ["target"])
