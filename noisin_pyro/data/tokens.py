"""Texts as 32-bit tokens in bounded memory. Those of large texts are mapped from files in the cache."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from noisin_pyro._files import atomic_write, write_json
from noisin_pyro.data.download import cache_folder
from noisin_pyro.data.encodings import CHUNK
from noisin_pyro.data.text import read_pieces
from noisin_pyro.data.vocabulary import EOS, Level, Vocabulary

LARGE = 10_000_000
"""Size of a text, in bytes, from which its tokens are cached."""

_FORMAT = 1  # of the cache, and of the rules by which texts are read

logger = logging.getLogger("noisin_pyro")


@dataclass(frozen=True)
class TextOptions:
    """How texts become tokens.

    Attributes:
        level, max_vocabulary, min_count: those of :func:`~noisin_pyro.data.load_text`.
        held_out: fractions of one file for validation and test; None for three files.
    """

    level: Level
    max_vocabulary: int | None
    min_count: int
    held_out: tuple[float, float] | None


def read_tokens(paths: Sequence[Path], options: TextOptions) -> tuple[Vocabulary, tuple[Tensor, ...]]:
    """The vocabulary of the training text, and the tokens of the three parts, ``torch.int32``.

    The tokens of large texts are read from the cache. It is written if they are not there, or damaged.

    Args:
        paths: files of the three parts; or one file, which is split by ``options.held_out``.

    Raises:
        ValueError: as :func:`~noisin_pyro.data.text.read_words` and :meth:`Vocabulary.build`, or an unknown word in a
            part if there is no ``<unk>``.
    """
    if all(path.is_file() for path in paths) and sum(path.stat().st_size for path in paths) >= LARGE:
        try:
            return _cached(paths, options)
        except OSError as error:
            problem = error.strerror or type(error).__name__
            logger.warning("warning: tokens cannot be cached (%s), so each run reads the text again", problem)
    file = io.BytesIO()
    content = _write_tokens(file, paths, options)
    return _corpus(np.frombuffer(file.getbuffer(), np.int32), content, options)


def _cached(paths: Sequence[Path], options: TextOptions) -> tuple[Vocabulary, tuple[Tensor, ...]]:
    key = json.dumps([_FORMAT, asdict(options), *map(_sha256, paths)])
    entry = cache_folder() / "texts" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.tokens"
    content = _intact(entry)
    if content is None:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(entry) as file:
            content = _write_tokens(file, paths, options)
        write_json(entry.with_suffix(".json"), content)
    return _corpus(np.memmap(entry, np.int32, mode="c"), content, options)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); pass the path of a text file") from error


def _intact(entry: Path) -> dict[str, Any] | None:
    """What is written beside the tokens, if both are complete and undamaged."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(entry.with_suffix(".json").read_bytes())
        with entry.open("rb") as file:
            if content["crc32"] == _crc32(file, content["sizes"], content["words"]) and not file.read(1):
                return content
    return None


def _crc32(file: BinaryIO, sizes: list[int], words: Sequence[str]) -> int:
    crc = zlib.crc32(json.dumps(words).encode())
    for chunk in _chunks(file, 0, sum(sizes)):
        crc = zlib.crc32(chunk.data, crc)
    return crc


def _corpus(tokens: np.ndarray, content: dict[str, Any], options: TextOptions) -> tuple[Vocabulary, tuple[Tensor, ...]]:
    parts = np.split(tokens, np.cumsum(content["sizes"])[:-1])
    # not views of one tensor, with each of which the whole text would be saved
    return Vocabulary(content["words"], options.level), tuple(map(torch.from_numpy, parts))


def _write_tokens(file: BinaryIO, paths: Sequence[Path], options: TextOptions) -> dict[str, Any]:
    """Write the tokens of all parts to ``file``; returns the sizes of the parts, the words and a checksum.

    Words are numbered in order of first occurrence. When the training text is read, and so the vocabulary is known,
    these numbers are replaced by those of the vocabulary.
    """
    numbers: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    numbers[EOS]  # is 0 then, as in every vocabulary
    sizes = []
    for path in paths:
        sizes.append(0)
        for words in read_pieces(path, options.level):
            chunk = np.fromiter(map(numbers.__getitem__, words), np.int32, len(words))
            file.write(chunk.tobytes())
            sizes[-1] += len(chunk)
    if options.held_out is not None:
        sizes = _split(file, sizes[0], *options.held_out, paths[0])
    counts = np.zeros(len(numbers), np.int64)
    for chunk in _chunks(file, 0, sizes[0]):
        counts += np.bincount(chunk, minlength=len(numbers))
    occurring = {word: count for word, count in zip(numbers, counts.tolist(), strict=True) if count}
    vocabulary = Vocabulary.build(occurring, options.max_vocabulary, options.min_count, options.level)
    missing = -1 if vocabulary.unk is None else vocabulary.unk
    index = np.array([vocabulary.index.get(word, missing) for word in numbers], np.int32)
    position = 0
    for chunk in _chunks(file, 0, sum(sizes)):
        tokens = index[chunk]
        if missing == -1 and (unknown := np.flatnonzero(tokens == -1)).size:
            word = next(itertools.islice(numbers, int(chunk[unknown[0]]), None))
            raise vocabulary.unknown(word, _place(file, position + int(unknown[0]), paths, sizes))
        file.seek(-tokens.nbytes, io.SEEK_CUR)
        file.write(tokens.tobytes())
        position += len(tokens)
    return {"sizes": sizes, "words": vocabulary.words, "crc32": _crc32(file, sizes, vocabulary.words)}


def _place(file: BinaryIO, position: int, paths: Sequence[Path], sizes: Sequence[int]) -> str:
    """Path and line of a token."""
    starts = zip(itertools.accumulate(sizes, initial=0), paths, strict=False)  # one path has three parts
    first, path = [each for each in starts if each[0] <= position][-1]
    ends = sum(np.count_nonzero(chunk == 0) for chunk in _chunks(file, first, position - first))
    return f"{path}, line {ends + 1}"


def _chunks(file: BinaryIO, first: int, size: int) -> Iterator[np.ndarray]:
    """Tokens from ``first`` on, piece by piece; the file's position is then behind the piece."""
    for start in range(first, first + size, CHUNK):
        file.seek(start * np.int32().nbytes)
        yield np.frombuffer(file.read(min(CHUNK, first + size - start) * np.int32().nbytes), np.int32)


def _split(file: BinaryIO, size: int, valid: float, test: float, path: Path) -> list[int]:
    """Sizes of three parts, cut at the first line end after each fraction or, if a part has none, at the fraction."""
    first, second = (round(size * (1 - held_out)) for held_out in (valid + test, test))
    if not 0 < first < second < size:
        raise ValueError(
            f"valid_fraction={valid:g} and test_fraction={test:g} of {size} tokens leave a part of {path} empty; pass "
            "a longer text, or other fractions"
        )
    cuts = [_line_end(file, first, second - 1), _line_end(file, second, size - 1)]
    return [cuts[0], cuts[1] - cuts[0], size - cuts[1]]


def _line_end(file: BinaryIO, first: int, last: int) -> int:
    """The first end of a line from ``first`` to ``last``, or ``first``: the number of tokens before it."""
    chunks = _chunks(file, first - 1, last - first + 1)
    ends = (start * CHUNK + np.flatnonzero(chunk == 0) for start, chunk in enumerate(chunks))
    return next((first + int(each[0]) for each in ends if each.size), first)
