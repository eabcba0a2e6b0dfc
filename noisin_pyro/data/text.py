"""Text files as words."""

from __future__ import annotations

from pathlib import Path

from noisin_pyro.data.vocabulary import EOS


def read_words(path: Path) -> list[str]:
    r"""The words of a UTF-8 file, separated by white space, with ``<eos>`` after every line.

    A blank line gives an ``<eos>``, and so does a last line without a line break. By this rule the numbers of tokens of
    WikiText-2 are those of the paper's table 1; for each split of Penn Treebank the table has one token more.

    Raises:
        ValueError: a file that is missing, unreadable, not UTF-8, without words, or that contains ``<eos>``.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); pass the path of a text file") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: not UTF-8 ({error.reason}); convert it, for example with iconv -f latin1 -t utf-8"
        ) from error
    if "\0" in text:  # valid UTF-8, but a sign of UTF-16 or of a binary file
        raise ValueError(
            f"{path} contains zero bytes, so it is not a UTF-8 text; if it is UTF-16, convert it with iconv -f utf-16"
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
