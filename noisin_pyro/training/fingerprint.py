"""What tells one corpus from another, kept with a run: its numbers hold for the data it began with and no other."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from noisin_pyro.data import Corpus
from noisin_pyro.training.folder import CONFIG

KEY = "data_sha256"


def fingerprint(corpus: Corpus) -> dict[str, str]:
    """SHA-256 over the words in their order and over all three parts, for ``config.json``."""
    digest = hashlib.sha256(json.dumps(corpus.vocabulary and corpus.vocabulary.words).encode())
    for part in (corpus.train, corpus.valid, corpus.test):
        for values in (part,) if isinstance(part, Tensor) else (part.inputs, part.targets, part.lengths):
            digest.update(str(tuple(values.shape)).encode())
            digest.update(values.cpu().numpy().tobytes())
    return {KEY: digest.hexdigest()}


def require_same(folder: Path, corpus: Corpus) -> None:
    """Refuse other data than those of the run in ``folder``; a run of before there was this check passes.

    Raises:
        ValueError: they have changed.
    """
    kept: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if kept.get(KEY) is not None and kept[KEY] != fingerprint(corpus)[KEY]:
        raise ValueError(
            f"the data ({corpus.name}) are not those that the run in {str(folder)!r} began with: they have changed "
            "since (pydocs changes with the version of Python); restore them, or train anew"
        )
