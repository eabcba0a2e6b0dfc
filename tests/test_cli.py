"""The command: its output, and its errors."""

import re
from pathlib import Path
from typing import get_type_hints

import pytest

from noisin_pyro import noise
from noisin_pyro.cli import main
from noisin_pyro.training import Config

from .field_docs import field_docs
from .hooks import AfterStep


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small text files."""
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.txt").write_text("one two three four\n" * 20)
    return tmp_path


def test_train_ends_with_both_networks_numbers_and_the_picture(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder / "run"
    options = "--batch-size 2 --window 8 --hidden-size 8 --noise laplace:multiplicative --spread 0.5 --epochs 3"
    assert (
        main(["train", "--data", str(folder), "--folder", str(run), *options.split(), "--ensemble-samples", "2"]) == 0
    )
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    for name, columns in (("noisy", 3), ("deterministic", 2)):
        (row,) = (line for line in lines if line.startswith(name))
        assert len(re.findall(r"\d+\.\d", row)) == columns
    assert lines[-1] == f"learning curves: {run / 'curves.png'}"
    assert (run / "curves.png").is_file()
    progress = (
        captured.err.splitlines()
    )  # no bars where nobody watches: lines before the epochs and the long test, one each epoch
    assert len(progress) == 9 and sum("computed by" in line for line in progress) == 2
    assert sum("epoch" in line and "tokens/s" in line for line in progress) == 6
    assert "averaging 2 noisy runs" in captured.err


def test_families_lists_every_name_and_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["families"]) == 0
    first = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    for entry in noise.describe():
        assert (entry.name if entry.form == "additive" else f"{entry.name}:{entry.form}") in first
        noise.get(entry.name, form=entry.form)


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    words = " ".join(text.replace("│", " ").split())
    assert "None)" not in text
    for name, group in get_type_hints(Config).items():
        assert f"{name} options" in text and " ".join((group.__doc__ or "").split()) in words
        for field, doc in field_docs(group).items():
            assert doc and doc in words, f"{name}.{field}"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("", "train"),
        ("trian", "train"),
        ("train --hiden-size 3", "--hidden-size"),
        ("train --hidden-size many", "--hidden-size"),
        ("train --hidden-size 0", "--hidden-size must be"),
        ("train --epochs", "--epochs"),
        ("train --cell elman", "cell must be one of"),
        ("train --optimizer Adm", "adam"),
        ("train --noise gausian", "gaussian"),
        ("train --noise gamma:native", "gamma"),
        ("train --spread -1", "spread"),
        ("train --spread-floor 0.2", "floor"),
        ("train --data no-such-data", "no-such-data"),
        ("train --data ptb --data-root nowhere", "nowhere"),
        ("train --files a b", "--files"),
        ("train --files a b c", "a"),
        ("families --loud", "--loud"),
        ("train --ancestor-term", "--ancestor-term is for bound 'filtering'"),
        ("train --no-ancestor-term", "--ancestor-term is for bound 'filtering'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: str, named: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("noisin: ") and captured.err.count("\n") == 1
    assert named in captured.err.lower()
    assert not list(tmp_path.iterdir())


def test_a_run_that_diverges_says_so_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = "--batch-size 2 --window 8 --hidden-size 8"
    options = f"{small} --cell identity --learning-rate 1e8 --spread 0.3 --clip None --optimizer SGD"
    assert main(["train", "--data", str(folder), "--folder", str(folder / "run"), *options.split()]) == 2
    assert not (folder / "run").exists()
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("noisin: noisy, epoch 1/") and "gamma_1 = 0.3" in last


def test_an_interrupted_run_leaves_the_best_model_and_the_curves(
    folder: Path, capsys: pytest.CaptureFixture[str], after_step: AfterStep
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    after_step(22, interrupt)  # the first one of the fourth epoch
    options = "--batch-size 2 --window 8 --hidden-size 8"
    assert main(["train", "--data", str(folder), "--folder", str(folder / "run"), *options.split()]) == 130
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == f"noisin: interrupted; resume with: noisin train --resume {folder / 'run'}"
    )
    assert {path.name for path in (folder / "run").iterdir()} == {
        "before.pt", "best.pt", "config.json", "curves.png", "data.json", "last.pt", "log.csv",
    }  # fmt: skip


def test_a_known_name_is_not_hidden_by_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jsb").mkdir()
    assert main(["train", "--data", "jsb", "--data-root", str(tmp_path)]) == 2
    assert "JSB_Chorales.mat" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--bound importance", "--num-particles of at least 2"),
        ("--spread 0 --num-particles 3", "have no effect"),
        ("--spread 0 --no-feedback", "have no effect"),
        ("--spread-floor 0.2", "for a learned spread"),
        ("--spread 0.1 --learn-spread", "starts above the floor|starts above its floor"),
        ("--seed -1", "seed must be at least 0"),
        ("--cell sigmoid --noise gamma:native --input-spread 0.2", "inputs can be anywhere"),
        ("--optimizer Muon", "optimizer must be one of"),
        ("--spread 1e300", "spread must be less than 1000000000"),
    ],
)
def test_options_that_cannot_apply_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    run = folder / "run"
    assert main(["train", "--data", str(folder), "--folder", str(run), *options.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line) and not run.exists()


def test_a_tilde_that_no_shell_has_expanded_is_the_home_folder(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path_factory.mktemp("here")
    for variable, name in (("XDG_CACHE_HOME", ".cache"), ("XDG_CONFIG_HOME", ".config")):  # matplotlib's fonts
        monkeypatch.setenv(variable, str(Path.home() / name))
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(here)
    (folder / "corpus").mkdir()
    for part in ("train", "valid", "test"):
        (folder / f"{part}.txt").rename(folder / "corpus" / f"{part}.txt")
    small = "--batch-size 2 --hidden-size 4 --epochs 1 --no-twin --ensemble-samples 0"
    assert main(["train", "--data=~/corpus", "--folder=~/runs/x", *small.split()]) == 0
    files = [f"~/corpus/{part}.txt" for part in ("train", "valid", "test")]
    assert main(["train", "--files", *files, "--folder", "~/runs/y", *small.split()]) == 0
    assert main(["train", "--resume=~/runs/y", "--epochs", "2"]) == 0
    assert main(["evaluate", "~/runs/x", "--json=~/x.json", "--per-token", "~/x.csv"]) == 0
    assert main(["compare", "~/runs/x", "--methods", "mean", "--csv=~/xy.csv"]) == 0
    assert main(["generate", "~/runs/x", "--steps", "2"]) == 0
    assert not list(here.iterdir())
    assert {path.name for path in folder.iterdir()} == {"corpus", "runs", "x.json", "x.csv", "xy.csv"}
