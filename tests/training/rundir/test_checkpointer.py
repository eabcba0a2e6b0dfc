"""Checkpoints on disk: a failed write leaves the previous file, and damage is noticed."""

import os
from pathlib import Path

import pytest
import torch

from noisin_pyro.training.rundir import checkpointer


def _fails(*_: object, **__: object) -> None:
    raise OSError("no space left")


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    checkpointer.save(path, {"model": {"w": torch.arange(3.0)}, "epoch": 4})
    content = checkpointer.load(path)
    assert content["epoch"] == 4
    assert content["model"]["w"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(("owner", "step"), [(torch, "save"), (os, "fsync"), (os, "replace")])
def test_a_failed_write_leaves_the_previous_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, step: str
) -> None:
    path = tmp_path / "best.pt"
    checkpointer.save(path, {"epoch": 1})
    with monkeypatch.context() as broken:
        broken.setattr(owner, step, _fails)
        with pytest.raises(OSError, match="no space"):
            checkpointer.save(path, {"epoch": 2})
    assert checkpointer.load(path) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_cannot_execute_code(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    torch.save({"model": Path}, path)
    with pytest.raises(Exception, match=r"[Ww]eights"):
        checkpointer.load(path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    weights = torch.arange(1000.0)
    checkpointer.save(path, {"w": weights})
    whole = path.read_bytes()
    at = whole.index(weights.numpy().tobytes()) + 2021
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    with pytest.raises(ValueError, match="damaged"):
        checkpointer.load(path)
