"""Two runs on one output, and what a run that was killed left: nothing is lost, nothing stays behind."""

import errno
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import filelock
import pytest
from conftest import run

from anatomy_export.bench.variants import BundleMaker
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import MANIFEST, sole_writer, staged_directory, staged_file, write_atomic
from anatomy_export.core.progress import Progress
from anatomy_export.core.target_cpu import PORTABLE
from anatomy_export.jobs.bench_bundles import make_bundle

WRITERS = {
    "directory": "staged_directory(target, {force})",
    "file": "staged_file(target, {force})",
    "in place": "sole_writer(target)",
}
AT_WORK = r"another run is at work on .*target \(see \.target\.(partial|run)-\w+ beside it\); next step: let it end"


def another_run(target: Path, writer: str, *, force: bool = False, then: str = "input()") -> subprocess.Popen:
    """A process at work on `target`: it writes its files, says so, and does `then` before it ends the block."""
    script = f"""
        import os, signal, sys
        from pathlib import Path
        from anatomy_export.core.files import *
        target = Path(sys.argv[1])
        with {WRITERS[writer].format(force=force)} as staged:
            if staged is None:
                target.mkdir(exist_ok=True)
            place = target if staged is None else staged
            if {writer == "file"}:
                place.with_name("target.data").write_text("its data")
                place.write_text("its content")
            else:
                (place / "bundle.json").write_text("its content")
            print("at work", flush=True)
            {then}
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(target)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "at work\n", process.communicate()
    return process


def let_end(process: subprocess.Popen) -> str:
    """What the process says on standard error."""
    return process.communicate("\n", timeout=60)[1]


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate(timeout=60)


def content(target: Path) -> str:
    return (target / "bundle.json" if target.is_dir() else target).read_text()


def write(target: Path, writer: str, *, force: bool = False, text: str = "ours") -> None:
    if writer == "in place":
        with sole_writer(target):
            target.mkdir(exist_ok=True)
            (target / "bundle.json").write_text(text)
    elif writer == "file":
        with staged_file(target, force) as staged:
            staged.write_text(text)
    else:
        with staged_directory(target, force) as staged:
            (staged / "bundle.json").write_text(text)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("theirs", WRITERS)
@pytest.mark.parametrize("ours", WRITERS)
def test_the_second_run_on_an_output_is_refused_as_it_starts(tmp_path: Path, theirs, ours):
    target = tmp_path / "target"
    process = another_run(target, theirs)
    before = names(tmp_path)
    with pytest.raises(AnatomyError, match=f"{AT_WORK}|output .*target (exists|is a directory)"):
        write(target, ours)
    assert names(tmp_path) == before
    assert let_end(process) == ""
    assert content(target) == "its content"
    assert names(tmp_path) == ["target"] if theirs != "file" else ["target", "target.data"]


@pytest.mark.parametrize("writer", ["directory", "file"])
def test_with_force_the_later_to_end_stays_whole(tmp_path: Path, writer):
    target = tmp_path / "target"
    process = another_run(target, writer, force=True)
    write(target, writer, force=True)
    assert content(target) == "ours"
    assert let_end(process) == ""
    assert content(target) == "its content"
    assert names(tmp_path) == (["target"] if writer == "directory" else ["target", "target.data"])


@pytest.mark.parametrize("writer", ["directory", "file"])
def test_a_run_without_force_loses_to_one_that_ended_before_it(tmp_path: Path, writer):
    target = tmp_path / "target"
    process = another_run(target, writer)
    write(target, writer, force=True)
    expected = "was made by another run meanwhile" if writer == "directory" else "exists; next step"
    assert expected in let_end(process) and process.returncode == 1
    assert content(target) == "ours"
    assert names(tmp_path) == ["target"]


@pytest.mark.parametrize("writer", ["directory", "file"])
def test_force_does_not_take_a_directory_from_who_writes_in_place(tmp_path: Path, writer):
    target = tmp_path / "target"
    process = another_run(target, "in place")
    with pytest.raises(AnatomyError, match=f"{AT_WORK}|is a directory"):
        write(target, writer, force=True)
    assert let_end(process) == "" and content(target) == "its content"


def test_a_directory_made_meanwhile_stays(tmp_path: Path):
    target = tmp_path / "target"
    with pytest.raises(AnatomyError, match="was made by another run meanwhile"), staged_directory(target) as staging:
        (staging / "bundle.json").write_text("ours")
        target.mkdir()
        (target / "precious.txt").write_text("theirs")
    assert (target / "precious.txt").read_text() == "theirs"
    assert names(tmp_path) == ["target"]


def test_force_does_not_replace_a_foreign_directory_made_meanwhile(tmp_path: Path):
    target = tmp_path / "target"
    with pytest.raises(AnatomyError, match="so --force does not replace it"), staged_directory(target, True):
        target.mkdir()
        (target / "precious.txt").write_text("theirs")
    assert (target / "precious.txt").read_text() == "theirs"
    assert names(tmp_path) == ["target"]


def test_a_file_made_meanwhile_stays(tmp_path: Path):
    target = tmp_path / "target"
    with pytest.raises(AnatomyError, match="target exists"), staged_file(target) as staged:
        staged.write_text("ours")
        target.write_text("theirs")
    assert content(target) == "theirs" and names(tmp_path) == ["target"]


@pytest.mark.parametrize("writer", WRITERS)
def test_what_a_killed_run_left_goes_and_what_a_live_one_made_stays(tmp_path: Path, writer):
    target, neighbour = tmp_path / "target", tmp_path / "target.partial-a"
    kill(another_run(target, writer))
    left = names(tmp_path)
    assert any(re.match(r"\.target\.(partial|run)-", name) for name in left)
    live = another_run(neighbour, writer)
    kept = [name for name in names(tmp_path) if name not in left]
    write(target, writer)
    assert names(tmp_path) == sorted([*kept, "target"])
    let_end(live)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_lock_that_a_killed_run_held_for_a_moment_goes(tmp_path: Path, writer):
    (tmp_path / ".target.partial.lock").touch()
    (tmp_path / ".target.partial-ab12").mkdir()
    write(tmp_path / "target", writer)
    assert names(tmp_path) == ["target"]


def test_what_no_run_of_ours_made_stays(tmp_path: Path):
    for name in (".target.partial-abc", ".target.partial-a.b", ".targets.partial-abc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_text("theirs")
    before = names(tmp_path)
    write(tmp_path / "target", "directory")
    assert names(tmp_path) == sorted([*before, "target"])


DIE = "os.kill(os.getpid(), signal.SIGKILL)"


def killed_at_rename(target: Path, writer: str, position: int) -> None:
    """A run with --force that is killed in place of its rename number `position`."""
    die = f"""
            rename, calls = os.rename, []
            def dying(*paths):
                calls.append(paths)
                if len(calls) == {position}:
                    {DIE}
                rename(*paths)
            os.rename = dying
    """
    process = another_run(target, writer, force=True, then=die.strip())
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


def test_a_directory_moved_away_by_a_killed_run_comes_back(tmp_path: Path):
    target = tmp_path / "target"
    write(target, "directory", text="old")
    killed_at_rename(target, "directory", 2)
    assert not target.exists()
    with pytest.raises(AnatomyError, match="target exists"):
        write(target, "directory")
    assert content(target) == "old" and names(tmp_path) == ["target"]


@pytest.mark.parametrize("position", [2, 3, 4])
def test_files_moved_away_by_a_killed_run_come_back(tmp_path: Path, position):
    """Renames: the old data away, the new in place, the old file away, the new in place."""
    target = tmp_path / "target"
    target.write_text("old")
    target.with_name("target.data").write_text("old data")
    killed_at_rename(target, "file", position)
    with pytest.raises(AnatomyError, match="target exists"):
        write(target, "file")
    assert (content(target), target.with_name("target.data").read_text()) == ("old", "old data")
    assert names(tmp_path) == ["target", "target.data"]


def test_what_cannot_come_back_is_named(tmp_path: Path):
    target = tmp_path / "target"
    write(target, "directory", text="old")
    killed_at_rename(target, "directory", 2)
    target.mkdir()
    (old,) = tmp_path.glob(".target.partial-*/old")
    with pytest.raises(AnatomyError, match=f"what it held when a run was killed is in {old}; next step: move one"):
        write(target, "directory", force=True)
    assert content(old) == "old" and list(target.iterdir()) == []


def test_a_run_killed_after_the_swap_had_ended(tmp_path: Path):
    target = tmp_path / "target"
    write(target, "directory", text="old")
    process = another_run(target, "directory", force=True, then=f"import shutil; shutil.rmtree = lambda *a, **k: {DIE}")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL and content(target) == "its content"
    with pytest.raises(AnatomyError, match="target exists"):
        write(target, "directory")
    assert content(target) == "its content"
    write(target, "directory", force=True)
    assert content(target) == "ours" and names(tmp_path) == ["target"]


def test_a_file_half_written_by_a_killed_run_goes(tmp_path: Path):
    script = f"import os, signal; from anatomy_export.core.files import *; os.replace = lambda *a: {DIE}\n"
    script += "write_atomic('result.json', 'theirs')"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL and len(names(tmp_path)) == 2
    write_atomic(tmp_path / "result.json", "ours")
    assert (tmp_path / "result.json").read_text() == "ours" and names(tmp_path) == ["result.json"]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch, writer):
    def unsupported(self, *args, **kwargs):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(filelock.FileLock, "acquire", unsupported)
    write(tmp_path / "target", writer)
    write_atomic(tmp_path / "file", "ours")
    assert content(tmp_path / "target") == "ours" and names(tmp_path) == ["file", "target"]


def test_many_runs_at_once_make_one_output(tmp_path: Path):
    script = """
        import sys
        from anatomy_export.core.errors import AnatomyError
        from anatomy_export.core.files import staged_directory
        sys.stdin.readline()
        try:
            with staged_directory("out/target") as staging:
                (staging / "bundle.json").write_text(sys.argv[1])
        except AnatomyError:
            sys.exit(1)
        print("done")
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen([*command, str(n)], cwd=tmp_path, text=True, **pipes) for n in range(6)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=120) for process in processes]
    winners = [n for n, process in enumerate(processes) if process.returncode == 0]
    assert all(errors == "" for _, errors in ends)
    assert len(winners) == 1 and content(tmp_path / "out" / "target") == str(winners[0])
    assert names(tmp_path / "out") == ["target"]


COMMANDS = {
    "export": ("--model", "no-such-model/at-all", "--output"),
    "score": ("--model", "no-such-model/at-all", "--output"),
    "study": ("--model", "no-such-model/at-all", "--output"),
    "pareto": ("--model", "no-such-model/at-all", "--output"),
    "finetune": ("--model", "no-such-model/at-all", "--data", "none.csv", "--output"),
}


@pytest.mark.parametrize("theirs", ["directory", "in place"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_so_before_it_looks_for_its_model(tmp_path: Path, command, theirs):
    target = tmp_path / "target"
    process = another_run(target, theirs)
    before = names(tmp_path)
    result = run(command, *COMMANDS[command], target)
    assert result.exit_code == 1 and names(tmp_path) == before
    there = command in ("export", "score", "finetune") and theirs == "in place"
    (error,) = (line for line in result.stderr.splitlines() if line.startswith("Error: "))
    assert re.search("target exists" if there else AT_WORK, error)
    assert let_end(process) == "" and content(target) == "its content"


def test_slice_onnx_says_so_before_it_reads_its_model(tmp_path: Path):
    target = tmp_path / "target"
    process = another_run(target, "file")
    (tmp_path / "m.onnx").write_text("no model")
    before = names(tmp_path)
    arguments = ("slice-onnx", tmp_path / "m.onnx", "--keep-ratio", "0.5", "--output", target)
    result = run(*arguments)
    assert result.exit_code == 1 and re.search(AT_WORK, result.stderr), result.output
    assert names(tmp_path) == before
    let_end(process)
    assert "target exists" in run(*arguments).stderr


def test_a_bench_bundle_is_made_once(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("ANATOMY_CACHE", str(tmp_path))
    made = []

    def slow_export(request, progress):
        made.append(request.output)
        time.sleep(0.5)
        with staged_directory(request.output, request.force) as staging:
            (staging / MANIFEST).write_text("{}")

    monkeypatch.setattr("anatomy_export.jobs.export.run_export", slow_export)
    maker, results = BundleMaker("bert", "f" * 64, 16, PORTABLE, make_bundle, Progress()), []

    def ask() -> None:
        results.append(maker.bundle("dense", None, None, "ort", "fp32"))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == 1 and results == [str(made[0])] * 2
