"""A path may begin with ``~``, which no shell has replaced in a Python program."""

from pathlib import Path

import pytest

import noisin_pyro as nz

from .test_polyphony import write


def test_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("a b\n")
    assert len(nz.data.load_text("~").train) == 3
    assert len(nz.data.load_text(Path("~")).train) == 3
    assert len(nz.data.load_text(**{split: f"~/{split}.txt" for split in ("train", "valid", "test")}).train) == 3
    write(tmp_path / "music.mat")
    assert nz.data.load_music("~/music.mat").name == "music"
    with pytest.raises(ValueError, match=r"'ptb' is not in root='~'; expected .*train"):
        nz.data.load("ptb", root="~")
    for split in ("train", "valid", "test"):
        (tmp_path / f"ptb.{split}.txt").write_text("a b\n")
    with pytest.raises(ValueError, match="is not the published file of 'ptb'"):
        nz.data.load("ptb", root="~")
