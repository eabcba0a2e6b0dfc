"""Failures of a run: reported in one line, without loss of the last good checkpoint."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from noisin_pyro.cli import main
from noisin_pyro.training.rundir import checkpointer, metrics_log

from ..hooks import AfterStep

SMALL = "--batch-size 2 --window 8 --hidden-size 64 --epochs 3 --ensemble-samples 0 --no-twin --checkpoint-steps 1"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A folder with three small texts: 100 words to train on, 7 steps an epoch."""
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.txt").write_text("one two three four\n" * 20)
    return tmp_path


def _start(text: Path, options: str = "", name: str = "run") -> int:
    return main(["train", "--data", str(text), "--folder", str(text / name), *SMALL.split(), *options.split()])


def _best(run: Path) -> torch.Tensor:
    return checkpointer.load(run / "best.pt")["model"]["embedding.weight"]


@pytest.fixture
def disk_full() -> Iterator[Callable[[], None]]:
    """Limit the size of files to 30 kB, which a checkpoint exceeds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def disk_free() -> Callable[[], None]:
    """Lift that limit."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_a_checkpoint_and_prints_how_to_resume(
    text: Path, capsys: pytest.CaptureFixture[str], after_step: AfterStep, signum: int, code: int
) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    after_step(9, lambda: signal.raise_signal(signum))
    assert _start(text, "--checkpoint-steps 100") == code
    run = text / "run"
    assert capsys.readouterr().err.splitlines()[-1] == f"noisin: interrupted; resume with: noisin train --resume {run}"
    assert checkpointer.load(run / "last.pt")["progress"]["under_way"]["batches"] in (2, 3)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    assert main(["train", "--resume", str(run)]) == 0
    assert len(metrics_log.read(run / "log.csv")) == 3
    assert _start(text, name="whole") == 0
    assert torch.equal(_best(run), _best(text / "whole"))


def test_a_second_signal_stops_at_once(text: Path, after_step: AfterStep) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    after_step(9, twice)
    assert _start(text) == 130
    assert checkpointer.load(text / "run" / "last.pt")["progress"]["under_way"]["batches"] == 1
    assert main(["train", "--resume", str(text / "run")]) == 0


def test_a_signal_during_the_final_test_loses_no_training(
    text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = checkpointer.load

    def stopped(path: Path) -> object:
        if path.name == "best.pt":
            signal.raise_signal(signal.SIGTERM)
        return load(path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpointer, "load", stopped)
        assert _start(text) == 143
    assert "resume with" in capsys.readouterr().err
    assert main(["train", "--resume", str(text / "run")]) == 0
    assert "trained" in capsys.readouterr().err


@pytest.mark.parametrize("clip", ["None", "5"])
def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(
    text: Path, capsys: pytest.CaptureFixture[str], clip: str, after_step: AfterStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_step(4, lambda: monkeypatch.setattr(torch.optim.SGD, "step", _blow_up))
    assert _start(text, f"--optimizer SGD --spread 0.3 --clip {clip}") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("noisin: epoch 1, step 5: ") and "gamma_1 = 0.3" in line
    assert line.endswith(f"the last checkpoint is in '{text / 'run'}'")
    saved = checkpointer.load(text / "run" / "last.pt")
    assert saved["progress"]["under_way"]["batches"] == 4
    assert all(value.isfinite().all() for value in saved["model"].values())


def _blow_up(optimizer: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        optimizer.param_groups[0]["params"][0].fill_(torch.inf)


@pytest.mark.usefixtures("drawn_pictures")
def test_a_full_disk_leaves_the_last_checkpoint(
    text: Path,
    capsys: pytest.CaptureFixture[str],
    after_step: AfterStep,
    disk_free: Callable[[], None],
    disk_full: Callable[[], None],
) -> None:
    run = text / "run"
    after_step(10, disk_full)
    assert _start(text) == 2
    disk_free()
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("noisin: [Errno") and last.endswith(f"resume with: noisin train --resume {run}")
    assert f"'{run / 'last.pt'}'" in last
    saved = [checkpointer.load(run / name)["progress"]["under_way"]["batches"] for name in ("last.pt", "before.pt")]
    assert saved == [2, 1]
    assert not list(run.glob(".*"))
    assert main(["train", "--resume", str(run)]) == 0
    assert _start(text, name="whole") == 0
    assert torch.equal(_best(run), _best(text / "whole"))


@pytest.mark.parametrize("size", [0, 10, 5000])
def test_a_truncated_checkpoint_falls_back_to_the_one_before(
    text: Path, capsys: pytest.CaptureFixture[str], after_step: AfterStep, size: int
) -> None:
    after_step(10, lambda: signal.raise_signal(signal.SIGINT))
    assert _start(text) == 130
    run = text / "run"
    os.truncate(run / "last.pt", size)
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2 and "last.pt" in warnings[0] and "resuming from before.pt" in warnings[1]
    assert _start(text, name="whole") == 0
    assert torch.equal(_best(run), _best(text / "whole"))
    assert [row["epoch"] for row in metrics_log.read(run / "log.csv")] == [1, 2, 3]


def test_without_a_readable_checkpoint_a_run_is_refused_and_unchanged(
    text: Path, capsys: pytest.CaptureFixture[str], after_step: AfterStep
) -> None:
    after_step(10, lambda: signal.raise_signal(signal.SIGINT))
    assert _start(text) == 130
    run = text / "run"
    for name in ("last.pt", "before.pt"):
        (run / name).write_bytes(b"no checkpoint")
    names = {path.name: path.stat().st_size for path in run.iterdir() if path.name != "curves.png"}
    assert main(["train", "--resume", str(run)]) == 2
    assert "remove last.pt and before.pt to restart this run" in capsys.readouterr().err.splitlines()[-1]
    assert {path.name: path.stat().st_size for path in run.iterdir() if path.name != "curves.png"} == names
    for name in ("last.pt", "before.pt"):
        (run / name).unlink()
    assert main(["train", "--resume", str(run)]) == 0
    assert _start(text, name="whole") == 0
    assert torch.equal(_best(run), _best(text / "whole"))


def test_a_log_with_a_damaged_header_does_not_hide_the_error(
    text: Path, capsys: pytest.CaptureFixture[str], after_step: AfterStep
) -> None:
    after_step(10, lambda: signal.raise_signal(signal.SIGINT))
    assert _start(text) == 130
    run = text / "run"
    (run / "last.pt").unlink()
    (run / "last.pt").mkdir()
    (run / "log.csv").write_text((run / "log.csv").read_text().replace("epoch", "e\0poch", 1))
    assert main(["train", "--resume", str(run)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("noisin: [Errno") and str(run / "last.pt") in last


def test_a_checkpoint_of_another_model_is_refused(
    text: Path, capsys: pytest.CaptureFixture[str], after_step: AfterStep
) -> None:
    after_step(10, lambda: signal.raise_signal(signal.SIGINT))
    assert _start(text) == 130
    config = text / "run" / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 64', '"hidden_size": 65'))
    assert main(["train", "--resume", str(text / "run")]) == 2
    assert "is not of the model in its config.json" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("content", [{}, {"model": 1, "optimizer": 2, "progress": 3, "generators": 4}])
def test_a_file_that_is_not_a_checkpoint_is_refused(
    text: Path, capsys: pytest.CaptureFixture[str], after_step: AfterStep, content: dict
) -> None:
    after_step(10, lambda: signal.raise_signal(signal.SIGINT))
    assert _start(text) == 130
    checkpointer.save(text / "run" / "last.pt", content)
    assert main(["train", "--resume", str(text / "run")]) == 2
    assert "is not of the model in its config.json" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--epochs 2", "--epochs 2 (there: 3)"),  # more are allowed: tests/training/test_lengthen.py
        ("--hidden-size 256", "--hidden-size 256 (there: 64)"),  # a default value that is given is compared too
        ("--folder elsewhere", "--folder elsewhere"),
        ("--epochs 3", ""),
    ],
)
def test_options_that_contradict_the_folder_are_refused(
    text: Path, capsys: pytest.CaptureFixture[str], after_step: AfterStep, options: str, message: str
) -> None:
    after_step(2, lambda: signal.raise_signal(signal.SIGINT))
    assert _start(text) == 130
    capsys.readouterr()
    assert main(["train", "--resume", str(text / "run"), *options.split()]) == (2 if message else 0)
    assert message in capsys.readouterr().err


def test_a_damaged_result_changes_nothing(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _start(text) == 0
    run = text / "run"
    for name in ("result.json", "log.csv"):
        whole = (run / name).read_bytes()
        (run / name).write_bytes(whole[:-20])
        (run / "last.pt").write_bytes(b"not to be touched")
        before = {path.name: path.read_bytes() for path in run.iterdir()}
        assert main(["train", "--resume", str(run)]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"noisin: {run / name} is damaged")
        assert {path.name: path.read_bytes() for path in run.iterdir()} == before
        (run / name).write_bytes(whole)


def test_a_relative_path_to_the_data_is_resolved_from_another_folder(
    text: Path, capsys: pytest.CaptureFixture[str], after_step: AfterStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(text.parent)
    after_step(2, lambda: signal.raise_signal(signal.SIGINT))
    data = ["--data", text.name]
    assert main(["train", *data, "--folder", str(text / "run"), *SMALL.split()]) == 130
    assert main(["train", "--resume", str(text / "run"), "--epochs", "2", *data]) == 2
    assert "got --epochs 2 (there: 3); leave" in capsys.readouterr().err.splitlines()[-1]  # and not the data
    monkeypatch.chdir("/")
    assert main(["train", "--resume", str(text / "run")]) == 0


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"no model")])
def test_a_lost_best_model_is_reported_before_training(
    text: Path, capsys: pytest.CaptureFixture[str], after_step: AfterStep, spoil: Callable[[Path], object]
) -> None:
    after_step(10, lambda: signal.raise_signal(signal.SIGINT))
    assert _start(text) == 130
    run = text / "run"
    spoil(run / "best.pt")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert main(["train", "--resume", str(run)]) == 2
    assert "best.pt" in capsys.readouterr().err.splitlines()[-1]
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.parametrize("there", [True, False])
def test_a_run_that_fails_at_its_first_step_leaves_the_folder_as_it_was(
    text: Path, there: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = text / "here"
    if there:
        here.mkdir()
        monkeypatch.chdir(here)
    monkeypatch.setattr(torch.optim.Adam, "step", _blow_up)
    folder = "." if there else str(here)
    assert main(["train", "--data", str(text), "--folder", folder, *SMALL.split()]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("noisin: epoch 1, step 1: ") and "checkpoint" not in line
    assert here.exists() == there and not list(here.glob("*"))


def test_a_folder_without_a_run_cannot_be_resumed(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(text)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no run to resume" in line


def test_changed_versions_are_reported(text: Path, capsys: pytest.CaptureFixture[str], after_step: AfterStep) -> None:
    after_step(2, lambda: signal.raise_signal(signal.SIGINT))
    assert _start(text) == 130
    config = text / "run" / "config.json"
    config.write_text(config.read_text().replace(f'"torch": "{torch.__version__}"', '"torch": "1.0"'))
    assert main(["train", "--resume", str(text / "run")]) == 0
    assert "warning: versions changed since this run began" in capsys.readouterr().err
