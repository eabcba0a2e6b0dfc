"""Data sets by name, and user-provided texts and music."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from noisin_pyro._lookup import known
from noisin_pyro.data.download import locate
from noisin_pyro.data.polyphony import read_chords
from noisin_pyro.data.pydocs import read_splits
from noisin_pyro.data.sequences import Sequences
from noisin_pyro.data.specs import DATASETS
from noisin_pyro.data.tokens import TextOptions, read_tokens
from noisin_pyro.data.vocabulary import UNK, Level, Vocabulary

NAMES = (*DATASETS, "pydocs")
HELD_OUT = 0.1
"""Default fraction of a text in one file for validation, and for the test."""
USES = "training", "validation", "the test"

logger = logging.getLogger("noisin_pyro")
MUSIC = tuple(name for name, spec in DATASETS.items() if len(spec.files) == 1)


@dataclass(frozen=True)
class Corpus:
    """A data set in three splits.

    Attributes:
        name: name in results.
        train, valid, test: tokens of a text, ``(num_steps,)`` ``torch.int32``, to be batched by :class:`Stream`; or
            :class:`Sequences`.
        vocabulary: the vocabulary of the tokens; ``None`` for music.
    """

    name: str
    train: Tensor | Sequences
    valid: Tensor | Sequences
    test: Tensor | Sequences
    vocabulary: Vocabulary | None

    def to(self, dtype: torch.dtype) -> Corpus:
        """Convert sequences to a floating-point type; a text stays as it is."""
        parts = {name: getattr(self, name) for name in ("train", "valid", "test")}
        converted = {name: part.to("cpu", dtype) for name, part in parts.items() if isinstance(part, Sequences)}
        return dataclasses.replace(self, **converted)


def load(name: str, root: str | Path | None = None) -> Corpus:
    """Load a data set by name.

    Texts: ``"ptb"`` (Penn Treebank), ``"wikitext-2"``, and ``"pydocs"``, which is part of Python. Music: ``"jsb"``,
    ``"nottingham"``, ``"piano-midi"``, ``"musedata"``.

    If ``root`` is given, the files are searched for there only. Else they are searched for in the folder given by the
    environment variable ``NOISIN_DATA``, then in the cache (``NOISIN_CACHE``, or the operating system's cache folder).
    If neither has them, their license is printed to stderr and they are downloaded to the cache. Every file is verified
    by SHA-256.

    Args:
        name: name of the data set.
        root: folder with ``ptb/``, ``wikitext-2/`` and ``polyphonic/``, or with the files themselves.

    Raises:
        ValueError: an unknown name; a ``root`` without the files; a file that is truncated or has other content; a
            cache that cannot be written; a download that failed from both mirrors; ``root`` given for ``"pydocs"``.
    """
    known("data set (load your own data with load_text or load_music)", name, NAMES)
    if name == "pydocs":
        if root is not None:
            raise ValueError(
                f"root must be None for 'pydocs', which is part of Python, got {str(root)!r}; leave root out"
            )
        words = read_splits()
        # Words that occur once in training become <unk>: so it is trained for the unknown words of valid and test.
        vocabulary = Vocabulary.build(words["train"], min_count=2)
        return Corpus(name, **{part: vocabulary.encode(words[part]).int() for part in words}, vocabulary=vocabulary)
    paths = locate(name, DATASETS[name], root)
    if len(paths) == 1:
        return Corpus(name, **read_chords(paths[0]), vocabulary=None)
    return load_text(train=paths[0], valid=paths[1], test=paths[2], name=name)


def load_music(path: str | Path) -> Corpus:
    """Load a ``.mat`` file in the format of Boulanger-Lewandowski et al. (2012).

    It must have ``traindata``, ``validdata`` and ``testdata``, cell arrays of piano rolls: zeros and ones, ``(time,
    88)``.

    Raises:
        ValueError: a file that is missing, damaged, or has other content.
    """
    path = Path(path).expanduser()
    return Corpus(path.stem, **read_chords(path), vocabulary=None)


def load_text(
    folder: str | Path | None = None,
    *,
    train: str | Path | None = None,
    valid: str | Path | None = None,
    test: str | Path | None = None,
    max_vocabulary: int | None = None,
    min_count: int | None = None,
    level: Level = "word",
    valid_fraction: float | None = None,
    test_fraction: float | None = None,
    name: str = "text",
) -> Corpus:
    """Load a text in UTF-8 with one sentence per line and words separated by white space.

    The vocabulary is that of ``train``. The tokens of texts from 10 MB on are kept in the cache folder
    (``NOISIN_CACHE``, or the operating system's), from which the next run and other processes map them into memory.

    Args:
        folder: folder with ``train.txt``, ``valid.txt`` and ``test.txt``, or one file, which is split; or pass the
            three files instead.
        train, valid, test: the three files.
        max_vocabulary: maximum size of the vocabulary, including ``<eos>`` and ``<unk>``; the rarest words become
            ``<unk>``.
        min_count: words that occur less often than this in ``train`` become ``<unk>``. Default: 1; or 2 for one file
            without ``max_vocabulary``, because its later parts have words or characters that the first lacks.
        level: predict words or characters.
        valid_fraction, test_fraction: fractions of one file for validation and test, by default 0.1 each. The parts
            are contiguous, training first, and end with a line where the next part has a line end.
        name: name of the corpus.

    Raises:
        ValueError: neither or both of ``folder`` and the files; a file that is missing, empty or not UTF-8; a word of
            ``valid`` or ``test`` that is not in ``train``, if there is no ``<unk>``; fractions that are not
            positive or whose sum is not below 1, or that are given for three files.
    """
    known("level", level, get_args(Level))
    given = {"train": train, "valid": valid, "test": test}
    missing = [split for split, path in given.items() if path is None]
    if folder is None:
        if missing:
            raise ValueError(f"pass a folder, or all of train, valid and test; missing: {', '.join(missing)}")
        paths = [Path(path).expanduser() for path in given.values() if path is not None]
    else:
        if len(missing) < 3:
            raise ValueError("pass either a folder or the paths train, valid and test, not both")
        folder = Path(folder).expanduser()
        if not folder.exists():
            raise ValueError(
                f"{folder} does not exist; pass a text file, or a folder with train.txt, valid.txt, test.txt"
            )
        paths = [folder] if folder.is_file() else [folder / f"{split}.txt" for split in given]
    is_split = len(paths) == 1
    if min_count is None:
        min_count = 2 if is_split and max_vocabulary is None else 1
    fractions = (valid_fraction, test_fraction)
    if not is_split and fractions != (None, None):
        raise ValueError(f"valid_fraction and test_fraction are for one file, got {len(paths)}; leave them out")
    valid_part, test_part = (HELD_OUT if fraction is None else fraction for fraction in fractions)
    if not (valid_part > 0 and test_part > 0 and valid_part + test_part < 1):
        raise ValueError(
            f"valid_fraction and test_fraction must be positive, with a sum below 1, got {valid_part} and {test_part}"
        )
    held_out = (valid_part, test_part) if is_split else None
    vocabulary, tokens = read_tokens(paths, TextOptions(level, max_vocabulary, min_count, held_out))
    if is_split:
        sizes = ", ".join(f"{len(part):,} tokens for {use}" for part, use in zip(tokens, USES, strict=True))
        unknown = f"; {level}s that occur once in the first part become {UNK}" if min_count == 2 else ""
        logger.info("%s is split into %s%s", paths[0].name, sizes, unknown)
    return Corpus(name, *tokens, vocabulary=vocabulary)
