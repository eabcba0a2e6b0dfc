import sys
from itertools import groupby

import pytest
from torch import Tensor

from noisin_pyro.data import load
from noisin_pyro.data.pydocs import read_splits


def sentences(words: list[str]) -> list[tuple[str, ...]]:
    return [tuple(group) for ended, group in groupby(words, lambda word: word == "<eos>") if not ended]


def test_sizes() -> None:
    """About 80,000 tokens (Python 3.11: 64,885 / 8,026 / 7,835), split 80 / 10 / 10 to within 2 % of the whole."""
    sizes = {split: len(words) for split, words in read_splits().items()}
    total = sum(sizes.values())
    assert 60_000 < total < 150_000
    assert sizes["train"] / total == pytest.approx(0.8, abs=0.02)
    assert sizes["valid"] / total == pytest.approx(0.1, abs=0.02)
    assert sizes["test"] / total == pytest.approx(0.1, abs=0.02)


def test_splits_do_not_overlap() -> None:
    splits = {split: sentences(words) for split, words in read_splits().items()}
    everything = [sentence for part in splits.values() for sentence in part]
    assert len(set(everything)) == len(everything)


def test_words_are_lower_case_words_numbers_or_marks() -> None:
    words = set(read_splits()["train"])
    assert all(word == word.lower() for word in words)
    assert {"the", "__init__", "(", "1"} <= words
    assert all(word.isdecimal() or not any(c.isdecimal() for c in word) for word in words)


def test_corpus_is_deterministic_and_covered_by_its_vocabulary() -> None:
    first, second = load("pydocs"), load("pydocs")
    vocabulary = first.vocabulary
    assert vocabulary is not None and vocabulary == second.vocabulary
    assert 1_500 < len(vocabulary) < 4_000
    for split in ("train", "valid", "test"):
        tokens, again = getattr(first, split), getattr(second, split)
        assert isinstance(tokens, Tensor) and bool((tokens == again).all())
        assert int(tokens.max()) < len(vocabulary)
        assert 0 < vocabulary.out_of_vocabulary_rate(tokens) < 0.06


def test_a_python_without_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ValueError, match=r"needs the module pydoc_data.*load_text"):
        load("pydocs")


def test_root_is_refused() -> None:
    with pytest.raises(ValueError, match="leave root out"):
        load("pydocs", root="somewhere")
