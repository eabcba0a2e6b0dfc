"""A small text that is part of every Python: the language reference shown by ``help()``."""

from __future__ import annotations

import re

from noisin_pyro.data.vocabulary import EOS

BLOCK = 400
_RULE = re.compile(r"([^\w\s])\1{3,}")
_WORD = re.compile(r"[^\W\d]+|\d+|[^\w\s]")


def read_splits() -> dict[str, list[str]]:
    """The words of the splits ``train``, ``valid`` and ``test``, from ``pydoc_data.topics``.

    The text is lower-cased and split into words, numbers and single punctuation marks. Rules under titles and in tables
    (four or more equal marks) are removed. ``<eos>`` ends a paragraph, because line breaks are only typesetting. Topics
    are in alphabetical order, and repeated paragraphs are removed: some topics are repeated inside others, a fifth of
    the text in total, and the splits must not overlap.

    Of every ten blocks of about 400 tokens (whole paragraphs), eight are training, one validation and one test data, so
    that the splits cover the same subjects. The text differs slightly between versions of Python.

    Raises:
        ValueError: a Python installation without ``pydoc_data``.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ValueError(
            "data set 'pydocs' needs the module pydoc_data, which this Python installation lacks; load your own text "
            "with load_text, or install Python from python.org"
        ) from error
    splits: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    seen: set[tuple[str, ...]] = set()
    position = 0
    for _, topic in sorted(topics.items()):
        for paragraph in re.split(r"\n\s*\n", topic):
            words = _WORD.findall(_RULE.sub(" ", paragraph.lower()))
            if not words or tuple(words) in seen:
                continue
            seen.add(tuple(words))
            split = {8: "valid", 9: "test"}.get(position // BLOCK % 10, "train")
            splits[split] += [*words, EOS]
            position += len(words) + 1
    return splits
