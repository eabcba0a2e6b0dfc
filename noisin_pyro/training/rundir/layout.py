"""Layout of a run's folder: the names of its files, the configuration, and a fingerprint of the data."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from noisin_pyro._files import LOCK, PARTIAL
from noisin_pyro.data import Corpus
from noisin_pyro.data.encodings import CHUNK
from noisin_pyro.training.config import Config, from_json

CONFIG, LOG, BEST, LAST, BEFORE, RESULT, CURVES, SPREADS = (
    "config.json", "log.csv", "best.pt", "last.pt", "before.pt", "result.json", "curves.png", "spreads.png"
)  # fmt: skip
FINGERPRINT = "data_sha256"


def make_folder(folder: Path | None, name: str) -> Path:
    """Make the folder of a run: ``folder``, or the first of ``runs/<name>-1``, ``-2``, ... that does not exist.

    Raises:
        ValueError: the path is, or lies below, a file.
    """
    if folder is None:
        for number in itertools.count(1):
            folder = Path("runs") / f"{name}-{number}"
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:
                continue
    assert folder is not None
    folder = folder.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"folder {str(folder)!r} is, or lies below, a file; choose another one") from error
    return folder


def require_empty(folder: Path) -> None:
    """Raise if a folder holds anything but a lock.

    Raises:
        ValueError: it does.
    """
    if any(path.name != LOCK for path in folder.iterdir()):
        raise ValueError(
            f"folder {str(folder)!r} is not empty, and a run is not overwritten; choose another, or remove it"
        )


def read_config(folder: Path) -> Config:
    """Read the configuration of the run in ``folder``.

    Raises:
        ValueError: not a run's folder, or a configuration that is damaged or of a version with other options.
    """
    path = folder / CONFIG
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"{str(folder)!r} is not a run's folder: it has no {CONFIG}, so there is no run to resume or read; "
            "name the folder of one, or train a new one"
        ) from error
    try:
        return from_json(content.decode())
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged, or of another version: {error}; restore it, or begin a new run"
        ) from error


def read_settings(folder: Path) -> dict[str, Any]:
    """Read all that ``config.json`` holds: the configuration, what the numbers also depend on, and the fingerprint."""
    return json.loads((folder / CONFIG).read_text(encoding="utf-8"))


def fingerprint(corpus: Corpus) -> dict[str, str]:
    """SHA-256 of the vocabulary and of all three parts, for ``config.json``."""
    digest = hashlib.sha256(json.dumps(corpus.vocabulary and corpus.vocabulary.words).encode())
    for part in (corpus.train, corpus.valid, corpus.test):
        for values in (part,) if isinstance(part, Tensor) else (part.inputs, part.targets, part.lengths, part.mask):
            if values is None:
                continue
            digest.update(str(tuple(values.shape)).encode())
            for chunk in values.split(CHUNK):  # indices as 64-bit numbers, which version 0.1 had
                digest.update((chunk.long() if chunk.dtype == torch.int32 else chunk).cpu().numpy().tobytes())
    return {FINGERPRINT: digest.hexdigest()}


def require_same_data(folder: Path, corpus: Corpus) -> None:
    """Raise if ``corpus`` is not the data that the run in ``folder`` began with.

    Raises:
        ValueError: the fingerprints differ.
    """
    expected = read_settings(folder).get(FINGERPRINT)  # missing in recorded results of version 0.1
    if expected is not None and expected != fingerprint(corpus)[FINGERPRINT]:
        raise ValueError(
            f"the data ({corpus.name}) are not those that the run in {str(folder)!r} began with: they have "
            "changed since (pydocs changes with the version of Python); restore them, or train a new run"
        )


def remove_folder(folder: Path, made: bool) -> None:
    """Remove the files of a run that has not come to a checkpoint, and its folder if the run has ``made`` it."""
    for path in folder.iterdir():
        path.unlink()
    if made:
        folder.rmdir()


def remove_partial_files(folder: Path) -> None:
    """Remove the incomplete files of a run that was killed while it wrote them."""
    for path in folder.glob(PARTIAL):
        path.unlink()


def remove_intermediate_files(folder: Path) -> None:
    """Remove what only an unfinished run needs. The last checkpoint stays, so that the run can be continued."""
    (folder / BEFORE).unlink(missing_ok=True)
    remove_partial_files(folder)
