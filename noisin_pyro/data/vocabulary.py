"""Vocabularies: words and their indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from noisin_pyro._lookup import integer, known

EOS = "<eos>"
UNK = "<unk>"
Level = Literal["word", "character"]


def split(text: str, level: Level) -> list[str]:
    """The words of a string, separated by white space, or its characters, with ``<eos>`` for line breaks."""
    return text.split() if level == "word" else [EOS if character == "\n" else character for character in text]


class Vocabulary:
    """Mapping between words and indices. ``<eos>`` is 0, and ``<unk>`` is 1 if there is one.

    ``vocabulary.words[index]`` is a word and ``vocabulary.index[word]`` its index.

    Args:
        words: the distinct words in the order of their indices, ``<eos>`` first.
        level: whether the words are words or characters of a text.

    Raises:
        ValueError: a word that occurs twice, a first word other than ``<eos>``, or an unknown level.
    """

    def __init__(self, words: Iterable[str], level: Level = "word") -> None:
        known("level", level, get_args(Level))
        self.words = tuple(words)
        self.level: Level = level
        self.index = {word: index for index, word in enumerate(self.words)}
        if self.words[:1] != (EOS,):
            raise ValueError(f"words must begin with {EOS!r}, got {self.words[:1]}; use Vocabulary.build to make them")
        if len(self.index) < len(self.words):
            duplicate = Counter(self.words).most_common(1)[0][0]
            raise ValueError(f"words must be distinct, got {duplicate!r} more than once; remove the duplicate")

    @classmethod
    def build(
        cls,
        words: Collection[str],
        max_vocabulary: int | None = None,
        min_count: int = 1,
        level: Level = "word",
    ) -> Vocabulary:
        """Build the vocabulary of a training text, ordered by frequency and then by first occurrence.

        It has an ``<unk>``, which stands for all other words, if the text has one or if one of the options is given.

        Args:
            words: the text, with or without ``<eos>``; or a dictionary of its words in order of first occurrence, with
                the count of each.
            max_vocabulary: maximum number of words, including ``<eos>`` and ``<unk>``; the rarest are left out.
            min_count: leave out words that occur less often than this.
            level: whether the words are words or characters.

        Raises:
            ValueError: a ``max_vocabulary`` or ``min_count`` that is not an integer, or is below 3 or 1.
        """
        if max_vocabulary is not None:  # <eos>, <unk> and a word
            max_vocabulary = integer("max_vocabulary", max_vocabulary, 3)
        min_count = integer("min_count", min_count)
        counts = Counter(words)
        has_unk = UNK in counts or max_vocabulary is not None or min_count > 1
        special = [EOS, UNK] if has_unk else [EOS]
        frequent = [word for word, count in counts.most_common() if count >= min_count and word not in (EOS, UNK)]
        return cls((special + frequent)[:max_vocabulary], level)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self.index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and (self.words, self.level) == (other.words, other.level)

    def __hash__(self) -> int:
        return hash(self.words)

    @property
    def eos(self) -> int:
        """Index of ``<eos>``: 0."""
        return self.index[EOS]

    @property
    def unk(self) -> int | None:
        """Index of ``<unk>``, or ``None`` if there is none."""
        return self.index.get(UNK)

    def encode(self, text: str | Sequence[str], source: str = "text") -> Tensor:
        """Indices of a text, ``(num_words,)``, ``torch.long``. Unknown words become ``<unk>``.

        Args:
            text: words, or a string, which is split at white space or into characters.
            source: name of the text in errors, such as its path.

        Raises:
            ValueError: an unknown word if there is no ``<unk>``. The message has the line number, counted by ``<eos>``.
        """
        words = split(text, self.level) if isinstance(text, str) else text
        indices = np.fromiter((self.index.get(word, -1) for word in words), np.int64, len(words))
        unknown = indices == -1
        if unknown.any():
            if self.unk is None:
                first = int(unknown.argmax())
                raise self.unknown(words[first], f"{source}, line {list(words[:first]).count(EOS) + 1}")
            indices[unknown] = self.unk
        return torch.from_numpy(indices)

    def unknown(self, word: str, place: str) -> ValueError:
        """The error for a word outside a vocabulary without ``<unk>``."""
        return ValueError(
            f"{place}: {word!r} is not among the {len(self)} {self.level}s of the vocabulary and there is no {UNK}; "
            f"train with min_count=2 or max_vocabulary=..., which make one, or replace rare {self.level}s of the "
            f"training text by {UNK}"
        )

    def join(self, words: Iterable[str]) -> str:
        r"""Words as a string, with ``\n`` for ``<eos>``: the inverse of reading."""
        if self.level == "character":
            return "".join("\n" if word == EOS else word for word in words)
        return "\n".join(line.strip() for line in " ".join(words).split(EOS))

    def decode(self, tokens: Tensor | Iterable[int]) -> list[str]:
        """The words of a one-dimensional sequence of indices.

        Raises:
            ValueError: an index outside the vocabulary.
        """
        indices = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        invalid = [index for index in indices if not 0 <= index < len(self)]
        if invalid:
            raise ValueError(
                f"tokens must be in 0..{len(self) - 1}, got {invalid[0]}; decode with the vocabulary that encoded them"
            )
        return [self.words[index] for index in indices]

    def out_of_vocabulary_rate(self, tokens: Tensor) -> float:
        """Proportion of ``<unk>`` among the tokens, including ``<eos>``.

        On the training text this gives the values of the paper's table 1: 4.8% (Penn Treebank) and 2.6% (WikiText-2).
        """
        return 0.0 if self.unk is None else (tokens == self.unk).double().mean().item()
