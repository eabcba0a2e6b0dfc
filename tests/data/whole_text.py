"""Reads a text file as a whole: the rules of ``read_words`` without pieces."""

import re
from pathlib import Path

from noisin_pyro.data.encodings import LINE_END, decode
from noisin_pyro.data.vocabulary import EOS

MARK = "\ufeff"


def read_whole(path: Path) -> list[str]:
    """The words of a file; raises what ``read_words`` raises."""
    text = LINE_END.sub("\n", decode(path.read_bytes(), path))
    text = re.sub(f"\n{MARK}+", "\n", text.lstrip(MARK))
    for number, line in enumerate(text.split("\n"), start=1):
        for word in line.split():
            if MARK in word and word.strip(MARK):
                raise ValueError(
                    f"{path}, line {number}: byte-order mark U+FEFF inside the word {word!r}; if files were joined "
                    "there, put a line break in its place, else remove it"
                )
    if text.isspace() or not text:
        raise ValueError(f"{path} has no words; pass a file with at least one sentence")
    if not text.endswith("\n"):
        text += "\n"
    for number, line in enumerate(text.split("\n"), start=1):
        if EOS in line.split():
            raise ValueError(
                f"{path}, line {number}: the text contains {EOS}; remove it, every line break is read as one"
            )
    return text.replace("\n", f" {EOS} ").split()
