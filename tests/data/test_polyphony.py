from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat
from scipy.sparse import csc_array

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
        ({"validdata": cells(chords(3, 0)[:, :80])}, r"piece 1 of 'validdata' must be .*got uint8 of shape \(3, 80\)"),
        ({"validdata": cells(chords(3, 0), chords(4, 0).T)}, r"piece 2 .*got uint8 of shape \(88, 4\); transpose it"),
        (
            {"validdata": cells(np.zeros((3, 128)))},
            r"got float64 of shape \(3, 128\); of 128 MIDI pitches keep 21 to 108",
        ),
        (
            {"validdata": cells(chords(3, 0), 90 * chords(3, 1))},
            "piece 2 of .*ones, got 90; if .*velocities, save roll > 0",
        ),
        (
            {"validdata": cells(np.where(chords(3, 0) > 0, 90, np.nan))},
            "piece 1 of 'validdata' .*got nan; if it stands for steps without data, cut these off",
        ),
        ({"validdata": cells(90.0 * chords(3, 0) - 1)}, "got -1; if it stands for steps without data, cut these off"),
        ({"validdata": cells(csc_array(2.0 * chords(3, 0)))}, "piece 1 of 'validdata' .*got 2"),
        ({"validdata": cells(chords(3, 0) + 1j)}, "got complex128 of shape"),
        (
            {"testdata": cells(chords(3, 0), chords(2, 0), chords(0, 0))},
            r"piece 3 of 'testdata' is empty.*\(0, 88\); leave",
        ),
        ({"testdata": cells(chords(3, 0), np.zeros((0, 0)))}, r"piece 2 of 'testdata' is empty.*\(0, 0\)"),
        ({"testdata": cells(csc_array((0, 88)))}, r"piece 1 of 'testdata' is empty"),
        (
            {"traindata": chords(6, 0)},
            r"must be a cell array .*got uint8 of shape \(6, 88\); put a single piece into a cell",
        ),
        (
            {"traindata": csc_array(chords(6, 0).astype(float))},
            r"must be a cell array .*got float64 of shape \(6, 88\)",
        ),
        (
            {"traindata": np.zeros((88, 5, 3))},
            r"\(pieces, time, 88\), got .* \(88, 5, 3\); .* save permute\(traindata, \[3, 2, 1\]\) from MATLAB",
        ),
        ({"traindata": np.zeros((5, 88, 3))}, r"got .* \(5, 88, 3\); .* save permute\(traindata, \[3, 1, 2\]\)"),
        ({"traindata": 1.0}, r"must be a cell array .*got float64 of shape \(1, 1\)"),
        ({"traindata": np.empty((1, 0), dtype=object)}, "'traindata' has no sequences"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_chords(write(tmp_path / "music.mat", **changes))


@pytest.mark.parametrize(
    "pieces",
    [
        np.stack([chords(6, 0), chords(6, 1)]),
        np.stack([chords(6, 0), chords(6, 1)]).astype(float),
        cells(csc_array(chords(6, 0).astype(float)), csc_array(chords(6, 1).astype(float))),
        cells(csc_array(chords(6, 0).astype(bool)), chords(6, 1)),
    ],
)
def test_one_array_and_sparse_pieces_are_read(tmp_path: Path, pieces: np.ndarray) -> None:
    """A list of pieces of equal length is saved as one array; MATLAB's sparse matrices are read too."""
    data, expected = (
        read_chords(write(tmp_path / "music.mat", traindata=rolls))["train"]
        for rolls in (pieces, cells(chords(6, 0), chords(6, 1)))
    )
    assert torch.equal(data.targets, expected.targets) and torch.equal(data.inputs, expected.inputs)
    assert data.lengths.tolist() == [6, 6]


@pytest.mark.parametrize(
    "header", [b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM", b"\x89HDF\r\n\x1a\n"]
)
def test_version_7_3_is_named_with_how_to_save_it(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "music.mat").write_bytes(header.ljust(800, b"\0"))
    with pytest.raises(
        ValueError, match=r"version 7\.3.*save\('music\.mat', 'traindata', 'validdata', 'testdata', '-v7'\)"
    ):
        read_chords(tmp_path / "music.mat")


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
