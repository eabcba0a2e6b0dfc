"""Text files as words or characters, read piece by piece."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from noisin_pyro.data.encodings import LINE_END, decoded
from noisin_pyro.data.vocabulary import EOS, Level, split

MARK = "\ufeff"
_GLUED = re.compile(rf"[^\s{MARK}]{MARK}|{MARK}[^\s{MARK}]")


def read_words(path: Path, level: Level = "word") -> list[str]:
    r"""The words of a text file, separated by white space, or its characters, with ``<eos>`` after every line.

    A line ends with ``\n``, ``\r\n``, ``\r``, U+2028 or U+2029. A blank line gives an ``<eos>``, and so does a last
    line without a line break. By this rule the numbers of tokens of WikiText-2 are those of the paper's table 1; for
    each split of Penn Treebank the table has one token more.

    A byte-order mark at the beginning of a line, where files were joined, is removed. Between spaces it is a word:
    WikiText-2 has such words.

    Raises:
        ValueError: a file that is missing, unreadable, in another encoding than :func:`decoded` reads, without words,
            or that contains a byte-order mark inside a word or, if it is read as words, ``<eos>``.
    """
    return [word for piece in read_pieces(path, level) for word in piece]


def read_pieces(path: Path, level: Level = "word") -> Iterator[list[str]]:
    """What :func:`read_words` returns, piece by piece; it raises the same errors, after the last piece."""
    number, is_empty, glued, ends = 1, True, None, None
    for text in _pieces(path):
        if MARK in text and glued is None and _GLUED.search(text):
            glued = next((line, word) for line, word in _words(text, number) if _GLUED.search(word))
        if EOS in text and ends is None and level == "word":
            ends = next((line for line, word in _words(text, number) if word == EOS), None)
        is_empty &= not text or text.isspace()
        number += text.count("\n")
        yield split(text.replace("\n", f" {EOS} ") if level == "word" else text, level)
    if glued is not None:
        raise ValueError(
            f"{path}, line {glued[0]}: byte-order mark U+FEFF inside the word {glued[1]!r}; if files were joined "
            "there, put a line break in its place, else remove it"
        )
    if is_empty:
        raise ValueError(f"{path} has no words; pass a file with at least one sentence")
    if ends is not None:
        raise ValueError(f"{path}, line {ends}: the text contains {EOS}; remove it, every line break is read as one")


def _words(text: str, number: int) -> Iterator[tuple[int, str]]:
    """The words of consecutive lines with their line numbers, from ``number`` on."""
    return ((line, word) for line, words in enumerate(text.split("\n"), number) for word in words.split())


def _pieces(path: Path) -> Iterator[str]:
    r"""The text, cut between words, with ``\n`` at the end of every line and no marks at the beginning of one."""
    parts, last = [], "\n"  # the last character before the parts
    try:
        for text in decoded(path):
            cut = max(text.rfind("\n"), text.rfind(" ")) + 1
            if cut:
                piece = _normalized("".join([*parts, text[:cut]]), last == "\n")
                yield piece
                parts, last = [], piece[-1]
            parts.append(text[cut:])
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); pass the path of a text file") from error
    piece = _normalized("".join(parts), last == "\n")
    yield piece if (last + piece).endswith("\n") else piece + "\n"


def _normalized(text: str, begins_line: bool) -> str:
    if any(end in text for end in "\r\u2028\u2029"):  # which is faster than to substitute nothing
        text = LINE_END.sub("\n", text)
    return re.sub(f"\n{MARK}+", "\n", text.lstrip(MARK) if begins_line else text) if MARK in text else text
