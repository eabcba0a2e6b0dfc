"""Polyphonic music: sequences of chords on the 88 keys of a piano."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from noisin_pyro.data.batches import Sequences

KEYS = 88


def read_chords(path: Path) -> dict[str, Sequences]:
    """Read the splits ``train``, ``valid`` and ``test`` of a ``.mat`` file of Boulanger-Lewandowski et al. (2012).

    Each step is a chord, 88 zeros and ones (``float32``). The chord is the target of its step; the input is the
    previous chord, or zeros (silence) at the first step.

    Raises:
        ValueError: a file that is missing, damaged, or has other content.
    """
    from scipy.io import loadmat  # slow to import

    if not path.is_file():
        raise ValueError(f"{path} is not a file; pass the path of a polyphonic .mat file")
    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises exceptions of many types for a damaged file
        raise ValueError(f"{path} cannot be read as a MATLAB file ({error}); download it again") from error
    return {split: _sequences(content, f"{split}data", path) for split in ("train", "valid", "test")}


def _sequences(content: dict[str, np.ndarray], key: str, path: Path) -> Sequences:
    if key not in content:
        names = sorted(name for name in content if not name.startswith("__"))
        raise ValueError(f"{path} must have traindata, validdata and testdata, got {names}; is it a polyphonic file?")
    pieces = [torch.from_numpy(_chords(piece, key, path)) for piece in np.asarray(content[key]).reshape(-1)]
    if not pieces:
        raise ValueError(f"{path}: {key!r} has no sequences; download the file again")
    targets = pad_sequence(pieces, batch_first=True)
    inputs = pad_sequence([torch.nn.functional.pad(piece[:-1], (0, 0, 1, 0)) for piece in pieces], batch_first=True)
    return Sequences(inputs, targets, torch.tensor([len(piece) for piece in pieces]))


def _chords(piece: object, key: str, path: Path) -> np.ndarray:
    chords = np.asarray(piece)
    if chords.ndim != 2 or chords.shape[1] != KEYS or not len(chords) or not np.isin(chords, (0, 1)).all():
        raise ValueError(
            f"{path}: each sequence of {key!r} must be zeros and ones of shape (time, {KEYS}), got "
            f"{chords.dtype} {chords.shape}; is it a polyphonic file?"
        )
    return chords.astype(np.float32)
