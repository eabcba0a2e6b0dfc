"""Locks: a second run in a folder is refused, and a lock does not outlive its holder. Full disks name the file."""

import errno
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from noisin_pyro import plots
from noisin_pyro._files import exclusive_lock, naming, write_json
from noisin_pyro.cli import main
from noisin_pyro.training.rundir import checkpointer

from .. import hooks
from ..hooks import AfterStep
from ..processes import environment

HOLDER = """
import sys
from pathlib import Path
from noisin_pyro._files import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""
Texts = tuple[Path, Path, Path]
SMALL = "--batch-size 4 --window 10 --hidden-size 4 --epochs 2 --ensemble-samples 0"


def _start(texts: Texts, folder: Path) -> int:
    return main(["train", "--files", *map(str, texts), "--folder", str(folder), *SMALL.split()])


@pytest.fixture
def stopped(texts: Texts, tmp_path: Path, after_step: AfterStep) -> Path:
    """The folder of a run stopped in its first epoch."""
    after_step(1, lambda: signal.raise_signal(signal.SIGTERM))
    assert _start(texts, tmp_path / "run") == 143
    return tmp_path / "run"


def test_a_second_run_is_refused_until_the_first_is_gone(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-c", HOLDER, str(stopped)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(), text=True, **pipes) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        before = {path.name: path.read_bytes() for path in stopped.iterdir()}
        capsys.readouterr()
        assert main(["train", "--resume", str(stopped)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"noisin: another run is writing in '{stopped}'")
        assert {path.name: path.read_bytes() for path in stopped.iterdir()} == before
        holder.send_signal(signal.SIGKILL)
    assert main(["train", "--resume", str(stopped)]) == 0
    files = {"best.pt", "last.pt", "config.json", "data.json", "log.csv", "result.json"}
    assert {path.name for path in (stopped / "deterministic").iterdir()} == files
    assert {path.name for path in stopped.iterdir()} == files | {"curves.png", "deterministic"}


@pytest.mark.parametrize("inner", ["", "deterministic"])
def test_a_run_and_its_twin_are_locked_while_they_train(texts: Texts, tmp_path: Path, inner: str) -> None:
    run, refused = tmp_path / "run", []

    def look(step: int) -> None:
        in_twin = (run / "deterministic").exists()
        if in_twin == bool(inner) and not refused:
            for folder in {run, run / inner}:
                with pytest.raises(ValueError, match="another run is writing") as error, exclusive_lock(folder):
                    pass
                refused.append(error)

    with hooks.after_each_step(look):
        assert _start(texts, run) == 0
    assert len(refused) == (2 if inner else 1)
    with exclusive_lock(run):
        pass


@pytest.mark.usefixtures("drawn_pictures")
def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path: Path) -> None:
    """The limit is below what matplotlib, torch and JSON write at once."""
    path, soft_and_hard = tmp_path / "file", resource.getrlimit(resource.RLIMIT_FSIZE)
    path.write_text("before")
    figure = plots.spreads([{"epoch": 1, "gamma_1": 0.3}])

    def draw() -> None:
        with naming(path):
            figure.savefig(path.with_suffix(".png"))

    resource.setrlimit(resource.RLIMIT_FSIZE, (100, soft_and_hard[1]))
    try:
        for write in (
            lambda: write_json(path, {"key": "value" * 100}),
            lambda: checkpointer.save(path, {"weights": torch.zeros(100)}),
            draw,
        ):
            with pytest.raises(OSError, match=rf"\[Errno \d+\] .*: '{path}") as error:
                write()
            assert error.value.errno == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft_and_hard)
    assert path.read_text() == "before" and not list(tmp_path.glob(".*"))


def test_an_error_that_names_another_file_keeps_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"), naming(tmp_path / "file"):
        (tmp_path / "nowhere").read_bytes()
    with pytest.raises(OSError, match="no number") as error, naming(tmp_path / "file"):
        raise OSError("no number")
    assert error.value.filename is None


def test_a_disk_without_locks_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(self: FileLock, **_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with exclusive_lock(tmp_path):
        assert "cannot be locked (No locks available)" in caplog.text


def test_a_lock_is_waited_for_and_leaves_no_file(tmp_path: Path) -> None:
    events = []

    def wait() -> None:
        with exclusive_lock(tmp_path, wait=True):
            events.append("second")

    second = threading.Thread(target=wait)
    with exclusive_lock(tmp_path):
        second.start()
        time.sleep(0.2)
        events.append("first")
    second.join()
    assert events == ["first", "second"] and not list(tmp_path.iterdir())
