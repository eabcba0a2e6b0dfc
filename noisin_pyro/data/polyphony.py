"""Polyphonic music: sequences of chords on the 88 keys of a piano."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from noisin_pyro.data.sequences import Sequences

KEYS = 88


def read_chords(path: Path) -> dict[str, Sequences]:
    """Read the splits ``train``, ``valid`` and ``test`` of a ``.mat`` file of Boulanger-Lewandowski et al. (2012).

    Each step is a chord, 88 zeros and ones (``float32``). The chord is the target of its step; the input is the
    previous chord, or zeros (silence) at the first step. Pieces may be sparse matrices, or slices of one array
    ``(pieces, time, 88)``.

    Raises:
        ValueError: a file that is missing, damaged, or has other content.
    """
    from scipy.io import loadmat  # slow to import

    if not path.is_file():
        raise ValueError(f"{path} is not a file; pass the path of a polyphonic .mat file")
    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises exceptions of many types for a damaged file
        if path.read_bytes()[:520].startswith(b"MATLAB 7.3") or b"\x89HDF" in path.read_bytes()[:520]:
            raise ValueError(
                f"{path} is a MATLAB file of version 7.3, which scipy does not read; save it from MATLAB as version 7: "
                f"save('{path.name}', 'traindata', 'validdata', 'testdata', '-v7')"
            ) from error
        raise ValueError(
            f"{path} cannot be read as a MATLAB file ({error}); it may be damaged or in another format: download it "
            "again, or save it with scipy.io.savemat"
        ) from error
    return {split: _sequences(content, f"{split}data", path) for split in ("train", "valid", "test")}


def _sequences(content: dict[str, Any], key: str, path: Path) -> Sequences:
    if key not in content:
        names = sorted(name for name in content if not name.startswith("__"))
        raise ValueError(f"{path} must have traindata, validdata and testdata, got {names}; is it a polyphonic file?")
    rolls = content[key]
    is_cell = isinstance(rolls, np.ndarray) and rolls.dtype == object
    if not is_cell and np.shape(rolls)[2:] != (KEYS,):  # scipy saves a list of pieces of equal length as one array
        axes = list(np.shape(rolls))
        remedy = "put a single piece into a cell array too"
        if len(axes) == 3 and KEYS in axes:  # MATLAB's cat(3, ...) puts the pieces last
            order = [3, 1, 2] if axes.index(KEYS) == 1 else [3, 2, 1]
            remedy = f"if its last axis is the pieces, save permute({key}, {order}) from MATLAB"
        raise ValueError(
            f"{path}: {key!r} must be a cell array of piano rolls (time, {KEYS}), or one array (pieces, time, {KEYS}), "
            f"got {_described(rolls)}; {remedy}"
        )
    pieces = list(rolls.reshape(-1)) if is_cell else list(rolls)
    if not pieces:
        raise ValueError(f"{path}: {key!r} has no sequences; save at least one piece under that name")
    chords = [torch.from_numpy(_chords(piece, f"{path}: piece {i} of {key!r}")) for i, piece in enumerate(pieces, 1)]
    targets = pad_sequence(chords, batch_first=True)
    inputs = pad_sequence([torch.nn.functional.pad(piece[:-1], (0, 0, 1, 0)) for piece in chords], batch_first=True)
    return Sequences(inputs, targets, torch.tensor([len(piece) for piece in chords]))


def _chords(piece: Any, name: str) -> np.ndarray:
    """A piece as ``(time, 88)`` zeros and ones. MATLAB's sparse matrices are read too."""
    from scipy.sparse import issparse

    chords = piece.toarray() if issparse(piece) else np.asarray(piece)
    if not chords.size:
        raise ValueError(f"{name} is empty, {_described(chords)}; leave it out")
    if chords.ndim != 2 or chords.shape[1] != KEYS or chords.dtype.kind not in "biuf":
        transposed = "; transpose it" if chords.ndim == 2 and chords.shape[0] == KEYS else ""
        wide = f"; of 128 MIDI pitches keep 21 to {20 + KEYS}" if 128 in chords.shape else ""
        remedy = transposed or wide or "; save each piece as a piano roll with a row for each step"
        raise ValueError(f"{name} must be zeros and ones of shape (time, {KEYS}), got {_described(chords)}{remedy}")
    if (others := chords[(chords != 0) & (chords != 1)]).size:
        odd = min(others, key=lambda value: value if value == value else -np.inf)  # NaN first, then negative numbers
        remedy = "if these are velocities, save roll > 0"
        if not odd > 0:
            remedy = "if it stands for steps without data, cut these off; if for silence, save 0"
        raise ValueError(f"{name} must be zeros and ones, got {odd:g}; {remedy}")
    return chords.astype(np.float32)


def _described(rolls: Any) -> str:
    return f"{getattr(rolls, 'dtype', type(rolls).__name__)} of shape {np.shape(rolls)}"
