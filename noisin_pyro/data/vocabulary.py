"""Words and their indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

EOS = "<eos>"
UNK = "<unk>"


class Vocabulary:
    """A two-way table of words and indices: ``<eos>`` is 0, ``<unk>`` 1 if there is one, then the words.

    ``vocabulary.words[index]`` and ``vocabulary.index[word]`` are the two ways.

    Args:
        words: every word once, in the order of the indices, ``<eos>`` first.

    Raises:
        ValueError: a word that comes twice, or another word than ``<eos>`` first.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)
        self.index = {word: index for index, word in enumerate(self.words)}
        if self.words[:1] != (EOS,):
            raise ValueError(f"words must begin with {EOS!r}, got {self.words[:1]}; build makes them from a text")
        if len(self.index) < len(self.words):
            twice = Counter(self.words).most_common(1)[0][0]
            raise ValueError(f"words must differ, got {twice!r} more than once; keep one")

    @classmethod
    def build(cls, words: Collection[str], max_vocabulary: int | None = None, min_count: int = 1) -> Vocabulary:
        """The vocabulary of a training text: the most frequent words first, equally frequent ones as they appear.

        There is an ``<unk>`` if the text has one or an option is given: then it stands for every other word.

        Args:
            words: the text, with ``<eos>`` in it or not.
            max_vocabulary: the most words to have, ``<eos>`` and ``<unk>`` included; the rarest are left out.
            min_count: leave out words that come less often than this.

        Raises:
            ValueError: ``max_vocabulary`` below 3 or ``min_count`` below 1.
        """
        if max_vocabulary is not None and max_vocabulary < 3:
            raise ValueError(f"max_vocabulary must be at least 3 ({EOS}, {UNK} and a word), got {max_vocabulary}")
        if min_count < 1:
            raise ValueError(f"min_count must be at least 1 (keeps every word), got {min_count}")
        counts = Counter(words)
        has_unk = UNK in counts or max_vocabulary is not None or min_count > 1
        special = [EOS, UNK] if has_unk else [EOS]
        kept = [word for word, count in counts.most_common() if count >= min_count and word not in (EOS, UNK)]
        return cls((special + kept)[:max_vocabulary])

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self.index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.words == other.words

    def __hash__(self) -> int:
        return hash(self.words)

    @property
    def eos(self) -> int:
        """Index of ``<eos>``: 0."""
        return self.index[EOS]

    @property
    def unk(self) -> int | None:
        """Index of ``<unk>``, or ``None`` without one."""
        return self.index.get(UNK)

    def encode(self, text: str | Sequence[str], source: str = "text") -> Tensor:
        """Indices of a text, ``(num_words,)``, ``torch.long``; words outside become ``<unk>``.

        Args:
            text: words, or a string to be split at white space.
            source: what an error calls the text, such as its path.

        Raises:
            ValueError: a word outside when there is no ``<unk>``; it names the line, as counted by ``<eos>``.
        """
        words = text.split() if isinstance(text, str) else text
        indices = np.fromiter((self.index.get(word, -1) for word in words), np.int64, len(words))
        outside = indices == -1
        if outside.any():
            if self.unk is None:
                first = int(outside.argmax())
                line = list(words[:first]).count(EOS) + 1
                raise ValueError(
                    f"{source}, line {line}: {words[first]!r} is not among the {len(self)} words of the vocabulary and "
                    f"there is no {UNK}; make one by min_count=2 or max_vocabulary=..., or write {UNK} for the rare "
                    "words of the training text"
                )
            indices[outside] = self.unk
        return torch.from_numpy(indices)

    def decode(self, tokens: Tensor | Iterable[int]) -> list[str]:
        """The words of one-dimensional indices.

        Raises:
            ValueError: an index outside the vocabulary.
        """
        indices = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        wrong = [index for index in indices if not 0 <= index < len(self)]
        if wrong:
            raise ValueError(
                f"tokens must lie in 0..{len(self) - 1}, got {wrong[0]}; decode with the vocabulary that encoded"
            )
        return [self.words[index] for index in indices]

    def out_of_vocabulary_rate(self, tokens: Tensor) -> float:
        """Share of ``<unk>`` among the tokens, ``<eos>`` counted among them.

        Counted so on the training text it gives the paper's table 1: 4.8 % (Penn Treebank) and 2.6 % (WikiText-2).
        """
        return 0.0 if self.unk is None else (tokens == self.unk).double().mean().item()
