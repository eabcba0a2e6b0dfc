"""Text files as words."""

from __future__ import annotations

from pathlib import Path

from noisin_pyro.data.vocabulary import EOS


def read_words(path: Path) -> list[str]:
    r"""The words of a UTF-8 file: one sentence a line, words between white space, ``<eos>`` after every line.

    Blank lines are lines (each gives an ``<eos>``), and so is a last line without an end. By this rule Penn Treebank
    and WikiText-2 have the numbers of tokens of the paper's table 1, but for one more that it prints in each part of
    Penn Treebank.

    Raises:
        ValueError: a file that is missing, unreadable, not UTF-8, without words, or that has ``<eos>`` of its own.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); give the path of a text file") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: not UTF-8 ({error.reason}); convert it first, for instance by "
            f"iconv -f latin1 -t utf-8"
        ) from error
    if "\0" in text:  # what UTF-16 and binary files are full of, and UTF-8 allows
        raise ValueError(
            f"{path} has zero bytes, as no text has in UTF-8; convert it, if it is UTF-16, by iconv -f utf-16"
        )
    if text.isspace() or not text:
        raise ValueError(f"{path} has no words; give a file with at least one sentence")
    if not text.endswith("\n"):
        text += "\n"
    words = text.replace("\n", f" {EOS} ").split()
    if words.count(EOS) > text.count("\n"):
        line = next(number for number, line in enumerate(text.split("\n"), 1) if EOS in line.split())
        raise ValueError(f"{path}, line {line}: {EOS} is in the text; remove it, every line's end is read as one")
    return words
