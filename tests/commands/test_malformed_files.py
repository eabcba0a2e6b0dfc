"""Texts and music of any content: a run on them works, or is refused in one line before anything is written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat
from scipy.sparse import csc_array

from .malformed import SMALL, contents, damaged, fuzz, require_whole
from .malformed import works_or_is_refused as works

LINES = b"one two three four\nfive six <unk>\n" * 6
TEXTS = [
    b"", b"\n", b"\n\n \t\n", b" ", b"word", b"word\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf" + LINES,
    LINES.replace(b"\n", b"\r\n"), LINES.replace(b"\n", b"\r"), LINES.replace(b"\n", b" "),
    LINES[:-1], LINES + b"one <eos> two\n", LINES * 40,
    LINES + b"\x00\n", b"\x00" * 50, LINES.replace(b"one", b"caf\xe9"), LINES.decode().encode("utf-16"),
    LINES.decode().encode("utf-32"), LINES.replace(b"six", "naïve 語 \u2028 \x85 x".encode()), b"a" * 20_000,
    b"other words here\n" * 9, b"<unk>\n" * 9, b"<eos>\n", b"\x1b[31m one\n" * 9, b"\xed\xa0\x80", b"one " * 5_000,
]  # fmt: skip


@fuzz(60)
@given(st.data())
def test_texts(tmp_path: Path, data: st.DataObject) -> None:
    place = tmp_path / "place"
    place.mkdir()
    try:
        texts = st.just(LINES) | st.sampled_from(TEXTS) | damaged(LINES) | st.text().map(lambda text: text.encode())
        for part in ("train", "valid", "test"):
            content = data.draw(texts | st.sampled_from(["a folder", "nothing", "a link to itself"]))
            file = place / f"{part}.txt"
            if isinstance(content, bytes):
                file.write_bytes(content)
            elif content == "a folder":
                file.mkdir()
            elif content == "a link to itself":
                file.symlink_to(file)
        options = data.draw(
            st.sampled_from([[], [], ["--min-count", "2"], ["--max-vocabulary", "3"], ["--max-vocabulary", "2"]])
        )
        names = ["--files", *(str(place / f"{part}.txt") for part in ("train", "valid", "test"))]
        given = data.draw(st.sampled_from([["--data", str(place)], names]))
        if works(["train", *given, "--folder", str(place / "run"), *SMALL, *options]):
            require_whole(place / "run")
            assert works(["generate", str(place / "run"), "--steps", "3"])
        else:
            assert not (place / "run").exists()
    finally:
        shutil.rmtree(place)


def _pieces(make: Callable[[int], object], count: int = 3) -> np.ndarray:
    cells = np.empty((1, count), dtype=object)
    for index in range(count):
        cells[0, index] = make(index)
    return cells


def _chords(steps: int, keys: int = 88) -> np.ndarray:
    return np.tile(np.arange(keys) % 2, (steps, 1)).astype(float)


PIECES: list[object] = [
    _pieces(lambda index: _chords(index + 2)), _pieces(lambda index: _chords(index + 2).astype(np.uint8)),
    _pieces(lambda index: _chords(1), 1), _pieces(lambda index: _chords(3, 87)), _pieces(lambda index: _chords(index)),
    _pieces(lambda index: _chords(2) * 2), _pieces(lambda index: _chords(2) * np.nan), _pieces(lambda index: "words"),
    _pieces(lambda index: _chords(2) + 1j), _pieces(lambda index: csc_array(_chords(2))),
    _pieces(lambda index: {"a": 1}), _pieces(lambda index: _pieces(lambda _: _chords(2), 88)),
    _pieces(lambda index: [], 2),
    np.empty((0, 0), dtype=object), _chords(4), 3.0, "words", {"a": _chords(3)}, csc_array(_chords(3)),
    np.zeros((2, 2, 88)),
    np.array(["ab" * 44] * 3), np.full((2, 88), "x", dtype=object),
]  # fmt: skip


@fuzz(40)
@given(st.data())
def test_music(tmp_path: Path, data: st.DataObject) -> None:
    place = tmp_path / "place"
    place.mkdir()
    try:
        pieces = st.just(PIECES[0]) | st.sampled_from(PIECES)
        keys = data.draw(st.sampled_from([["traindata", "validdata", "testdata"]] * 5 + [["traindata"], ["x"]]))
        file = place / "JSB_Chorales.mat"
        savemat(file, {key: data.draw(pieces) for key in keys})
        if data.draw(st.booleans()):
            file.write_bytes(data.draw(damaged(file.read_bytes())))
        options = ["--hidden-size", "4", "--epochs", "1", "--ensemble-samples", "0", "--no-twin"]
        if works(["train", "--data", str(file), "--folder", str(place / "run"), *options]):
            require_whole(place / "run")
        else:
            assert not (place / "run").exists()
    finally:
        shutil.rmtree(place)


@fuzz(30)
@given(
    st.lists(st.text(max_size=8) | st.sampled_from(["one", "<eos>", "<unk>", "one two", "\0", "\ud800", "-1", "--"]))
)
def test_prompts(run: Path, prompt: list[str]) -> None:
    before = contents(run)
    works(["generate", str(run), *prompt, "--steps", "2"])
    assert contents(run) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(texts: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert not works(["train", "--data", str(texts), "--folder", str(tmp_path), *SMALL])
        assert not works(["train", "--data", str(texts), "--folder", str(tmp_path / "run"), *SMALL])
        assert not contents(tmp_path)
    finally:
        tmp_path.chmod(0o700)
