"""Training in several processes, by torchrun: the same as in one, and interrupted together."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from noisin_pyro.cli import main
from noisin_pyro.search import search
from noisin_pyro.training import Config
from noisin_pyro.training.distributed import World, set_device
from noisin_pyro.training.rundir import checkpointer, metrics_log

from ..processes import run_or_fail
from . import together
from .texts import write_texts

Z = 4.9  # of 8 numbers and 2 sizes: a false alarm in one of 40,000 seeds


def torchrun(processes: int, *command: str) -> subprocess.CompletedProcess[str]:
    return run_or_fail(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *command]
    )


def errors(run: subprocess.CompletedProcess[str]) -> list[str]:
    """The error messages of the command itself."""
    return [line for line in run.stderr.splitlines() if line.startswith("noisin: ")]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return folder


@pytest.fixture(scope="module", params=[2, 4])
def several(request: pytest.FixtureRequest, texts: Path) -> tuple[int, Path, subprocess.CompletedProcess[str]]:
    """How many processes there were, the folder of their results, and what they printed."""
    folder = texts / str(request.param)
    folder.mkdir()
    run = torchrun(request.param, together.__file__, str(folder))
    assert run.returncode == 0, run.stderr
    return request.param, folder, run


Several = tuple[int, Path, subprocess.CompletedProcess[str]]


def results(several: Several) -> dict[str, Any]:
    return checkpointer.load(several[1] / "found.pt")


@pytest.mark.slow
@pytest.mark.parametrize("name", together.FITS)
def test_without_noise_it_is_the_fit_of_one_process(several: Several, name: str, tmp_path: Path) -> None:
    expected = together.fitted(name, tmp_path)
    torch.testing.assert_close(results(several)["fits"][name], expected, rtol=0, atol=1e-10)
    assert "vain" not in name or len(expected["rows"]) == 3, "else no decision was taken early"


@pytest.mark.slow
def test_held_out_numbers_are_those_of_one_process(several: Several) -> None:
    torch.testing.assert_close(results(several)["scores"], together.scores(), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_with_noise_the_mean_gradient_is_that_of_one_process(several: Several) -> None:
    one, other = together.gradients(), results(several)["gradients"]
    error = (one.var(0) / len(one) + other.var(0) / len(other)).sqrt()
    assert ((one.mean(0) - other.mean(0)).abs() < Z * error).all()
    assert (one.mean(0).abs() > 2 * Z * error).any(), "else there is nothing to see"


@pytest.mark.slow
def test_each_process_has_noise_of_its_own_and_the_first_that_of_one(several: Several) -> None:
    draws = results(several)["noise"]
    assert len({tuple(draw) for draw in draws}) == several[0]
    assert draws[0] == together.noise()[0]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_stops_all_with_its_origin(several: Several) -> None:
    (message,) = set(results(several)["diverged"])
    assert "epoch 1/14, step 1: the loss is nan, first in the states of layer 1 (" in message


@pytest.mark.slow
def test_a_failed_write_stops_all_processes(several: Several) -> None:
    assert results(several)["refused"] == ["[Errno 28] No space left on device"] * several[0]


@pytest.mark.slow
def test_each_process_reads_for_itself_after_rank_zero(several: Several) -> None:
    assert results(several)["read"] == [(rank, rank > 0) for rank in range(several[0])]


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused_in_one_line(several: Several) -> None:
    processes, folder, run = several
    (line,) = errors(run)
    assert line.startswith(f"noisin: --batch-size must be a multiple of the {processes} processes")
    assert not (folder / "uneven").exists()


@pytest.mark.parametrize(
    ("size", "batch_size", "message"), [(3, 20, "take 18 or 21"), (4, 3, "take 4, or"), (2, 5, "got 5; take 4 or 6")]
)
def test_the_refusal_names_sizes_that_can(size: int, batch_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        World(0, size).split(batch_size)


def _same_run(one: Path, other: Path) -> None:
    """Two runs and their twins have the same results, bit for bit, and the same files."""
    assert {path.name for path in one.rglob("*")} - {"curves.png"} == {
        path.name for path in other.rglob("*")
    } - {"curves.png"}  # fmt: skip
    for part in (".", "deterministic"):
        best = [checkpointer.load(run / part / "best.pt") for run in (one, other)]
        torch.testing.assert_close(best[0], best[1], rtol=0, atol=0)
        rows = [metrics_log.read(run / part / "log.csv") for run in (one, other)]
        for row in (*rows[0], *rows[1]):
            del row["seconds"], row["tokens_per_second"]
        assert rows[0] == rows[1]
        results = [json.loads((run / part / "result.json").read_text()) for run in (one, other)]
        for key in ("valid", "test", "test_ensemble", "best_epoch", "spreads"):
            assert results[0][key] == results[1][key]


def test_fewer_gpus_than_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="4 processes need as many GPUs, and here are 3; start fewer"):
        set_device("cuda", World(rank=0, size=4))
    set_device("cpu", World(rank=0, size=4))
    set_device("cuda")  # a scheduler has left the variable


@pytest.mark.parametrize("size", ["4", "", "many", "0"])
def test_variables_of_a_scheduler_without_torchrun_are_ignored(
    texts: Path, tmp_path: Path, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, size)
    small = [
        "--data",
        str(texts),
        "--batch-size",
        "4",
        "--window",
        "10",
        "--hidden-size",
        "2",
        "--epochs",
        "1",
        "--ensemble-samples",
        "0",
    ]
    assert main(["train", *small, "--no-twin", "--folder", str(tmp_path / "run")]) == 0
    search = ["--spreads", "0.2", "--noises", "gaussian", "--trials", "1", "--trial-epochs", "1"]
    assert main(["sweep", *small, *search, "--folder", str(tmp_path / "search")]) == 0


def test_a_search_under_torchrun_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="a search cannot run under torchrun"):
        search(Config(), {"noise.spread": (0.1,)}, tmp_path / "search", trials=1, trial_epochs=1)


@pytest.mark.slow
@pytest.mark.parametrize("several", [2], indirect=True)
def test_a_signal_to_one_process_stops_all_after_the_same_step(several: Several) -> None:
    _, folder, _ = several
    assert results(several)["stopped"] == [7, 7]
    _same_run(folder / "broken", folder / "whole")
    assert json.loads((folder / "whole" / "config.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_a_process_that_does_not_answer_ends_the_others_with_a_message() -> None:
    run = torchrun(2, together.__file__, "hang")
    assert run.returncode != 0
    assert errors(run) == [
        "noisin: another process of this run has not answered in time (it may hang, or the network between them may "
        "be down), and the others cannot go on without it"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("several", [2], indirect=True)
def test_a_killed_process_ends_the_run_which_resumes_with_the_same_number_or_one(
    several: Several, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = texts / "killed"
    options = "--batch-size 4 --window 10 --hidden-size 8 --spread 0.3 --learn-spread --guide mean-field"
    options += " --learning-rate 0.01 --epochs 2 --num-particles 2 --ensemble-samples 3 --checkpoint-steps 2"
    killed = torchrun(2, together.__file__, "9", *options.split(), "--data", str(texts), "--folder", str(run))
    assert killed.returncode != 0 and not (run / "result.json").exists()
    assert errors(killed) == [
        "noisin: another process of this run has ended (its message, or torchrun's report, says how), and the others "
        f"cannot go on without it; resume with: noisin train --resume {run}"
    ]
    assert checkpointer.load(run / "last.pt")["progress"]["under_way"]["batches"] == 8
    shutil.copytree(run, texts / "alone")
    # as the pages have it
    again = torchrun(2, "--no-python", str(Path(sys.executable).with_name("noisin")), "train", "--resume", str(run))
    assert again.returncode == 0, again.stderr
    assert sum("learning curves" in line for line in again.stdout.splitlines()) == 1
    _same_run(run, several[1] / "whole")

    assert main(["train", "--resume", str(texts / "alone")]) == 0
    assert "processes changed since this run began; its noise will differ" in capsys.readouterr().err
    rows = [metrics_log.read(folder / "log.csv") for folder in (texts / "alone", run)]
    assert [row["epoch"] for row in rows[0]] == [1, 2]
    nats = [row[1]["train_nats"] for row in rows]
    assert nats[0] != nats[1] and nats[0] == pytest.approx(nats[1], rel=0.1)
