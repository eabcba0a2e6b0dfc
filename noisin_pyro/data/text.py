"""Text files as words."""

from __future__ import annotations

import re
from pathlib import Path

from noisin_pyro.data.encodings import LINE_END, decode
from noisin_pyro.data.vocabulary import EOS

MARK = "\ufeff"


def read_words(path: Path) -> list[str]:
    r"""The words of a text file, separated by white space, with ``<eos>`` after every line.

    A line ends with ``\n``, ``\r\n``, ``\r``, U+2028 or U+2029. A blank line gives an ``<eos>``, and so does a last
    line without a line break. By this rule the numbers of tokens of WikiText-2 are those of the paper's table 1; for
    each split of Penn Treebank the table has one token more.

    A byte-order mark at the beginning of a line, where files were joined, is removed. Between spaces it is a word:
    WikiText-2 has such words.

    Raises:
        ValueError: a file that is missing, unreadable, in another encoding than :func:`decode` reads, without words,
            or that contains ``<eos>`` or a byte-order mark inside a word.
    """
    try:
        text = decode(path.read_bytes(), path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); pass the path of a text file") from error
    if any(end in text for end in "\r\u2028\u2029"):  # which is faster than to substitute nothing
        text = LINE_END.sub("\n", text)
    text = re.sub(f"\n{MARK}+", "\n", text.lstrip(MARK))
    for number, line in enumerate(text.split("\n") if MARK in text else (), start=1):
        if glued := MARK in line and next((word for word in line.split() if MARK in word and word.strip(MARK)), None):
            raise ValueError(
                f"{path}, line {number}: byte-order mark U+FEFF inside the word {glued!r}; if files were joined there, "
                "put a line break in its place, else remove it"
            )
    if text.isspace() or not text:
        raise ValueError(f"{path} has no words; pass a file with at least one sentence")
    if not text.endswith("\n"):
        text += "\n"
    words = text.replace("\n", f" {EOS} ").split()
    if words.count(EOS) > text.count("\n"):
        line = next(number for number, line in enumerate(text.split("\n"), 1) if EOS in line.split())
        raise ValueError(f"{path}, line {line}: the text contains {EOS}; remove it, every line break is read as one")
    return words
