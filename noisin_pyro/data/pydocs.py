"""A small benchmark that every Python carries: the language reference behind ``help()``."""

from __future__ import annotations

import re

from noisin_pyro.data.vocabulary import EOS

BLOCK = 400
_RULING = re.compile(r"([^\w\s])\1{3,}")
_WORD = re.compile(r"[^\W\d]+|\d+|[^\w\s]")


def read_splits() -> dict[str, list[str]]:
    """The words of ``train``, ``valid`` and ``test``, cut from ``pydoc_data.topics``.

    The text is lower-cased and split into words, numbers and single marks, without the rulings under titles and in
    tables (four and more equal marks). What ``<eos>`` ends is a paragraph: the line breaks are typesetting. Topics come
    in alphabetical order, and a paragraph that was there before is left out: whole topics are repeated inside others,
    a fifth of the text in all, and what is tested on must not have been trained on.

    Of every ten blocks of about 400 tokens (whole paragraphs) eight are for training, one for validation and one for
    test, so that all three treat the same matters. The text differs a little between versions of Python.

    Raises:
        ValueError: a Python without ``pydoc_data``.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ValueError(
            "this Python comes without pydoc_data; use text files of your own (load_text) or a complete "
            "Python from python.org"
        ) from error
    splits: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    seen: set[tuple[str, ...]] = set()
    position = 0
    for _, topic in sorted(topics.items()):
        for paragraph in re.split(r"\n\s*\n", topic):
            words = _WORD.findall(_RULING.sub(" ", paragraph.lower()))
            if not words or tuple(words) in seen:
                continue
            seen.add(tuple(words))
            split = {8: "valid", 9: "test"}.get(position // BLOCK % 10, "train")
            splits[split] += [*words, EOS]
            position += len(words) + 1
    return splits
