"""Polyphonic music: sequences of chords on the 88 keys of a piano."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from noisin_pyro.data.batches import Sequences

KEYS = 88


def read_chords(path: Path) -> dict[str, Sequences]:
    """The sequences ``train``, ``valid`` and ``test`` of a ``.mat`` file of Boulanger-Lewandowski et al. (2012).

    Every step is a chord, 88 zeros and ones (``float32``). It is the target, and the chord before it the input; before
    the first there is silence, all zeros.

    Raises:
        ValueError: a file that is missing, damaged, or of another content.
    """
    from scipy.io import loadmat  # slow to import and needed for this alone

    if not path.is_file():
        raise ValueError(f"{path} is not a file; give the path of a polyphonic .mat file")
    try:
        content = loadmat(path)
    except Exception as error:  # a damaged file fails inside scipy in many ways, none of them its own class
        raise ValueError(f"{path} cannot be read as a MATLAB file ({error}); fetch it again") from error
    return {split: _sequences(content, f"{split}data", path) for split in ("train", "valid", "test")}


def _sequences(content: dict[str, np.ndarray], key: str, path: Path) -> Sequences:
    if key not in content:
        found = sorted(name for name in content if not name.startswith("__"))
        raise ValueError(f"{path} has no {key!r} but {found}; a polyphonic file has traindata, validdata and testdata")
    pieces = [torch.from_numpy(_chords(piece, key, path)) for piece in np.asarray(content[key]).reshape(-1)]
    if not pieces:
        raise ValueError(f"{path}: {key!r} has no sequences; fetch the file again")
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
