from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat

from noisin_pyro.data import Sequences, load, load_music
from noisin_pyro.data.polyphony import read_chords

SPLITS = ("train", "valid", "test")


def cells(*pieces: np.ndarray) -> np.ndarray:
    array = np.empty((1, len(pieces)), dtype=object)
    array[0, :] = pieces
    return array


def chords(num_steps: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random((num_steps, 88)) < 0.1).astype(np.uint8)


def write(path: Path, **changes: object) -> Path:
    content = {f"{split}data": cells(chords(3, 0), chords(5, 1)) for split in SPLITS} | changes
    savemat(path, {key: value for key, value in content.items() if value is not None})
    return path


def test_chorales(root: Path) -> None:
    corpus = load("jsb", root)
    assert corpus.vocabulary is None
    assert [len(getattr(corpus, split)) for split in SPLITS] == [229, 76, 77]
    raw = loadmat(root / "polyphonic" / "JSB_Chorales.mat")
    for split in SPLITS:
        data = getattr(corpus, split)
        pieces = raw[f"{split}data"][0]
        assert data.lengths.tolist() == [len(piece) for piece in pieces]
        assert data.num_steps == sum(len(piece) for piece in pieces)
        assert int(data.targets.sum()) == sum(int(piece.sum()) for piece in pieces)
        assert data.targets.unique().tolist() == [0.0, 1.0] and data.targets.shape[2] == 88


def test_inputs_are_the_chord_before_and_silence_first(tmp_path: Path) -> None:
    data = read_chords(write(tmp_path / "music.mat"))["valid"]
    assert isinstance(data, Sequences)
    assert data.inputs.dtype == data.targets.dtype == torch.float32
    assert data.lengths.tolist() == [3, 5]
    for row, num_steps in enumerate([3, 5]):
        expected = torch.from_numpy(chords(num_steps, row)).float()
        assert torch.equal(data.targets[row, :num_steps], expected)
        assert torch.equal(data.inputs[row, 1:num_steps], expected[:-1])
        assert not data.inputs[row, 0].any()
        assert not data.inputs[row, num_steps:].any() and not data.targets[row, num_steps:].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"testdata": None}, r"must have traindata, validdata and testdata, got \['traindata', 'validdata'\]"),
        ({"validdata": cells(chords(3, 0)[:, :80])}, r"'validdata' must be zeros and ones of shape \(time, 88\)"),
        ({"validdata": cells(2 * chords(3, 0))}, "zeros and ones"),
        ({"traindata": 1.0}, r"zeros and ones.*got float64 \(\)"),
        ({"traindata": np.empty((1, 0), dtype=object)}, "'traindata' has no sequences"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_chords(write(tmp_path / "music.mat", **changes))


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "music.mat"
    with pytest.raises(ValueError, match=r"music.mat is not a file"):
        read_chords(path)
    content = write(path).read_bytes()
    for damaged in (b"", b"not music", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"music.mat cannot be read as a MATLAB file"):
            read_chords(path)


@pytest.mark.parametrize("kind", [np.uint8, np.float64, np.int16, bool])
@pytest.mark.parametrize("along", [0, 1])
def test_any_type_of_number_and_either_way_of_cells_is_read_alike(tmp_path: Path, kind: type, along: int) -> None:
    pieces = cells(*(chords(length, length).astype(kind) for length in (3, 1, 5)))
    corpus = load_music(write(tmp_path / "Any Music.mat", testdata=pieces if along else pieces.T))
    assert corpus.name == "Any Music" and corpus.vocabulary is None
    assert isinstance(corpus.test, Sequences) and corpus.test.lengths.tolist() == [3, 1, 5]
    for row, length in enumerate((3, 1, 5)):
        assert torch.equal(corpus.test.targets[row, :length], torch.from_numpy(chords(length, length)).float())


def test_a_single_sequence_is_a_split(tmp_path: Path) -> None:
    assert len(load_music(write(tmp_path / "one.mat", validdata=cells(chords(4, 0)))).valid) == 1


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "music.mat"
    savemat(path, {f"{split}data": cells(chords(3, 0), chords(5, 1)) for split in SPLITS}, do_compression=compressed)
    content = path.read_bytes()
    load_music(path)
    for size in range(0, len(content), 29):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"music\.mat (cannot be read as|must have traindata)"):
            load_music(path)


def test_the_real_file_cut_anywhere_is_refused(root: Path, tmp_path: Path) -> None:
    content = (root / "polyphonic" / "JSB_Chorales.mat").read_bytes()
    for size in range(50, len(content), len(content) // 12):
        (tmp_path / "cut.mat").write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"cut\.mat (cannot be read as|must have traindata)"):
            load_music(tmp_path / "cut.mat")
