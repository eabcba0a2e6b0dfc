"""Runs' folders with damaged, foreign and missing files: reading changes nothing, and resuming leaves intact files."""

import json
import os
import pickle
import shutil
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from noisin_pyro.cli import main
from noisin_pyro.training.rundir import checkpointer

from .. import hooks
from .malformed import contents, damaged, fuzz, otherwise, require_whole
from .malformed import works_or_is_refused as works

BROUGHT = "brought.txt"


class Code:
    """Writes a file when unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(BROUGHT),)


@pytest.fixture(scope="module", params=["text", "music"])
def unfinished(request: pytest.FixtureRequest, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run stopped within its second epoch: it has both checkpoints and a best model."""
    folder = tmp_path_factory.mktemp("unfinished") / "run"
    options = ["--data", str(texts), "--window", "8", "--cell", "lstm", "--learn-spread"]
    if request.param == "music":
        options = ["--data", str(request.getfixturevalue("music").parent / "Chorales.mat")]

    def stop_in_second_epoch(step: int) -> None:
        if (folder / "log.csv").exists():
            signal.raise_signal(signal.SIGTERM)

    with hooks.after_each_step(stop_in_second_epoch):
        sizes = ["--batch-size", "2", "--hidden-size", "4", "--epochs", "2", "--checkpoint-steps", "1"]
        assert main(["train", *options, *sizes, "--no-twin", "--ensemble-samples", "0", "--folder", str(folder)]) == 143
    (folder / "curves.png").unlink()
    files = {"config.json", "data.json", "log.csv", "best.pt", "last.pt", "before.pt"}
    assert {path.name for path in folder.iterdir()} == files
    return folder


def _some(folder: Path, data: st.DataObject) -> list[str]:
    """The names of one file or two."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix in (".pt", ".json", ".csv"))
    return data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))


def _damage(folder: Path, name: str, data: st.DataObject) -> None:
    """Damage, replace or remove a file of the folder."""
    file = folder / name
    whole = file.read_bytes()
    ways = ["bytes", "bytes", "removed", "a folder", "another file", "a pickle", "code"]
    kind = data.draw(st.sampled_from([*ways, *["content"] * 6] if file.suffix in (".pt", ".json") else ways))
    file.unlink()
    if kind == "bytes":
        file.write_bytes(data.draw(damaged(whole)))
    elif kind == "a folder":
        file.mkdir()
    elif kind == "another file":
        other = data.draw(st.sampled_from(sorted(path for path in folder.iterdir() if path.is_file())))
        shutil.copy(other, file)
    elif kind == "a pickle":
        file.write_bytes(pickle.dumps(data.draw(st.sampled_from([3, Code(), {"model": Code()}]))))
    elif kind == "code":
        torch.save({"model": Code(), "epoch": 1}, file)
    elif kind == "content" and file.suffix == ".json":
        file.write_text(json.dumps(data.draw(otherwise(json.loads(whole))), default=str))
    elif kind == "content":
        file.write_bytes(whole)
        content = data.draw(otherwise(checkpointer.load(file)))
        torch.save(content, file)


@fuzz(60)
@given(st.data())
@pytest.mark.parametrize("kind", ["run", "music"])
def test_commands_that_read(request: pytest.FixtureRequest, tmp_path: Path, kind: str, data: st.DataObject) -> None:
    folder = tmp_path / "run"
    shutil.copytree(request.getfixturevalue(kind), folder)
    os.chdir(tmp_path)
    try:
        spoilt = _some(folder, data)
        for name in spoilt:
            _damage(folder, name, data)
        before = contents(folder)
        command = data.draw(
            st.sampled_from(
                [
                    ["evaluate"],
                    ["compare", "--methods", "mean", "importance"],
                    ["generate", "--steps", "2"],
                    ["train", "--resume"],
                ]
            )
        )
        worked = works([*command, str(folder)])
        after = contents(folder)
        if worked and command[0] == "train":  # lost files are written again, and from what is in them the log
            logged = set() if {*spoilt} <= {"best.pt", "data.json"} else {"curves.png", "log.csv"}
            assert {name for name in before if after.get(name) != before[name]} <= {*spoilt} | logged
        else:
            assert {name for name in before.keys() | after.keys() if before.get(name, 0) != after.get(name, 0)} == set()
        assert not Path(BROUGHT).exists()
    finally:
        os.chdir("/")
        shutil.rmtree(folder)


@fuzz(60)
@given(st.data())
def test_resuming(unfinished: Path, tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "run"
    shutil.copytree(unfinished, folder)
    os.chdir(tmp_path)
    try:
        spoilt = set(_some(folder, data))
        for name in sorted(spoilt):
            _damage(folder, name, data)
        before = contents(folder)
        if works(["train", "--resume", str(folder)]):
            require_whole(folder)
        else:
            after = contents(folder)
            for name in before.keys() - spoilt - {"log.csv"}:
                assert after[name] == before[name], name
        assert not Path(BROUGHT).exists()
    finally:
        os.chdir("/")
        shutil.rmtree(folder)
