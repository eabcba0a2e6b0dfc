"""From options to data: which data they name, and how the command reports faulty data."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from noisin_pyro.cli import main
from noisin_pyro.data import Sequences
from noisin_pyro.recurrence.matmul import has_bfloat16
from noisin_pyro.training import Config, Data, Model, Noise
from noisin_pyro.training.build import build_model, load_corpus
from noisin_pyro.training.rundir import checkpointer


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """A small file in the form of the polyphonic collection."""
    rolls = np.empty((1, 3), dtype=object)
    for index, length in enumerate((4, 6, 3)):
        rolls[0, index] = np.random.default_rng(index).integers(2, size=(length, 88)).astype(np.uint8)
    savemat(tmp_path / "Folk.mat", {f"{part}data": rolls for part in ("train", "valid", "test")})
    return tmp_path / "Folk.mat"


def test_a_folder_three_files_and_music_are_recognized(texts: tuple[Path, Path, Path], music: Path) -> None:
    folder = load_corpus(Data(name=str(music.parent)))
    assert (folder.name, folder.vocabulary) == (music.parent.name, load_corpus(Data(files=texts)).vocabulary)
    corpus = load_corpus(Data(name=str(music)))
    assert corpus.name == "Folk" and isinstance(corpus.train, Sequences) and len(corpus.train) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "Folk.mat", "root": Path("x")}, "root is for data sets by name"),
        ({"name": "Folk.mat", "min_count": 2}, "min_count: only for your own texts, not 'Folk.mat'"),
        ({"name": "ptb", "max_vocabulary": 9}, "max_vocabulary: only for your own texts, not 'ptb'"),
        ({"name": "Folk.mat"}, "Folk.mat is not a file"),
        ({"name": "Folk.m"}, r"must be one of .*musedata, pydocs, got 'Folk\.m'"),
        ({"name": ""}, "must be one of"),
    ],
)
def test_options_that_do_not_apply_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_corpus(Data(**options))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            {"model": Model(emission="operator:neg", hidden_size=4)},
            r"emission .* a Module.*'neg\(hidden_size=4, output_size=88\)', got one that takes other arg",
        ),
        (
            {"noise": Noise("pyro.distributions:Normal")},
            r"noise .* a Family.*'Normal\(\)', got one that takes .*register",
        ),
    ],
)
def test_import_paths_that_do_not_take_the_arguments(groups: dict, message: str, music: Path) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(Config(**groups), load_corpus(Data(name=str(music))))


@pytest.mark.parametrize(
    "products", ["float32", pytest.param("bfloat16", marks=pytest.mark.skipif(not has_bfloat16(), reason="not here"))]
)
def test_the_command_trains_on_any_music(products: str, music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = music.parent / "run"
    options = f"--data {music} --folder {run} --hidden-size 8 --epochs 1 --no-twin --ensemble-samples 0"
    assert main(["train", *options.split(), "--matmul-precision", products]) == 0
    out, err = capsys.readouterr()
    assert "nats per step" in out and "steps/s" in err
    assert ("layers computed by: scan in bfloat16" in err) == (products == "bfloat16")
    assert main(["evaluate", str(run)]) == 0
    assert "Folk, test part, 13 steps" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["text", "music"])
def test_float64_is_the_same_run_in_more_digits(kind: str, texts: tuple[Path, Path, Path], music: Path) -> None:
    data = music if kind == "music" else music.parent
    small = "--hidden-size 8 --epochs 1 --batch-size 2 --spread 0 --clip None --optimizer SGD --learning-rate 0.1"
    weights = {}
    for precision in ("float32", "float64"):
        run = music.parent / precision
        options = ["--data", str(data), "--folder", str(run), "--precision", precision, *small.split()]
        assert main(["train", *options]) == 0
        assert main(["evaluate", str(run), "--json", str(run / "again.json")]) == 0
        results = [json.loads((run / name).read_text()) for name in ("result.json", "again.json")]
        assert results[1]["nats_per_step"] == results[0]["test"]["nats_per_step"]
        weights[precision] = checkpointer.load(run / "best.pt")["model"]
    for name, value in weights["float64"].items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(weights["float32"][name].double(), value, rtol=1e-4, atol=1e-5)
        assert not torch.equal(weights["float32"][name].double(), value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "train.txt": (lambda path: path.unlink(), "train.txt cannot be read"),
    "valid.txt, empty": (lambda path: path.write_text(""), "valid.txt has no words"),
    "test.txt, blank": (lambda path: path.write_text("\n \n"), "test.txt has no words"),
    "train.txt, Latin-1": (lambda path: path.write_bytes(b"caf\xe9\n"), "train.txt, line 1: not UTF-8"),
    "train.txt, UTF-16": (lambda path: path.write_text("one\n", encoding="utf-16-le"), "probably UTF-16LE"),
    "train.txt, cut in a letter": (lambda path: path.write_bytes("one\nü".encode()[:-1]), "line 2: not UTF-8"),
    "test.txt, new word": (lambda path: path.write_text("one\nseven\n"), "test.txt, line 2: 'seven' is not among"),
    "Folk.mat, cut": (cut, "Folk.mat cannot be read as a MATLAB file"),
    "Folk.mat, text": (lambda path: path.write_text("one"), "Folk.mat cannot be read as a MATLAB file"),
    "Folk.mat, other keys": (
        lambda path: savemat(path, {"x": 1.0}),
        "Folk.mat must have traindata, validdata and testdata, got ['x']",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_the_data_is_one_line_and_exit_code_2(
    fault: str, texts: tuple[Path, Path, Path], music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = music.parent / fault.partition(",")[0]
    spoil, message = FAULTS[fault]
    spoil(path)
    data = music if path == music else music.parent
    assert main(["train", "--data", str(data), "--folder", str(music.parent / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("noisin: ") and message in line
    assert not (music.parent / "run").exists()


def test_a_set_by_name_that_is_cut_short_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("train", "valid", "test"):
        (tmp_path / f"ptb.{part}.txt").write_text("one two\n")
    assert main(["train", "--data", "ptb", "--data-root", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not the published file of 'ptb': it has 8 of 5,101,618 bytes, so it may be truncated" in line
