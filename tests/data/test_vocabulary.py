import pytest
import torch

from noisin_pyro.data import Vocabulary

TEXT = ["b", "a", "<eos>", "a", "c", "d", "<eos>", "a", "b", "<eos>"]


def test_build_orders_by_count_then_by_appearance() -> None:
    vocabulary = Vocabulary.build(TEXT)
    assert vocabulary.words == ("<eos>", "a", "b", "c", "d")
    assert (vocabulary.eos, vocabulary.unk) == (0, None)
    assert len(vocabulary) == 5 and "a" in vocabulary and "z" not in vocabulary


def test_a_text_with_unk_keeps_it() -> None:
    assert Vocabulary.build(["a", "<unk>", "a"]).words == ("<eos>", "<unk>", "a")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_count": 2}, ("<eos>", "<unk>", "a", "b")),
        ({"max_vocabulary": 3}, ("<eos>", "<unk>", "a")),
        ({"max_vocabulary": 5, "min_count": 2}, ("<eos>", "<unk>", "a", "b")),
        ({"max_vocabulary": 99}, ("<eos>", "<unk>", "a", "b", "c", "d")),
    ],
)
def test_options_make_unk(options: dict[str, int], words: tuple[str, ...]) -> None:
    assert Vocabulary.build(TEXT, **options).words == words


def test_encode_and_decode_are_inverse() -> None:
    vocabulary = Vocabulary.build(TEXT)
    tokens = vocabulary.encode(TEXT)
    assert tokens.dtype == torch.long and vocabulary.decode(tokens) == TEXT
    assert torch.equal(vocabulary.encode(" ".join(TEXT)), tokens)
    assert Vocabulary(vocabulary.words) == vocabulary
    assert vocabulary.encode("").shape == (0,)


def test_words_outside_become_unk() -> None:
    vocabulary = Vocabulary.build(TEXT, min_count=2)
    tokens = vocabulary.encode("a z b c")
    assert vocabulary.decode(tokens) == ["a", "<unk>", "b", "<unk>"]
    assert vocabulary.out_of_vocabulary_rate(tokens) == 0.5
    assert Vocabulary.build(TEXT).out_of_vocabulary_rate(tokens) == 0.0


def test_refusals() -> None:
    vocabulary = Vocabulary.build(TEXT)
    with pytest.raises(ValueError, match=r"text, line 2: 'z' is not among the 5 words.*no <unk>.*min_count=2"):
        vocabulary.encode("a <eos> z")
    with pytest.raises(ValueError, match=r"0\.\.4, got 5"):
        vocabulary.decode([1, 5])
    with pytest.raises(ValueError, match="must begin with '<eos>'"):
        Vocabulary(["a"])
    with pytest.raises(ValueError, match="'a' more than once"):
        Vocabulary(["<eos>", "a", "a"])
    with pytest.raises(ValueError, match=r"max_vocabulary must be an integer of at least 3, got 2"):
        Vocabulary.build(TEXT, max_vocabulary=2)
    with pytest.raises(ValueError, match=r"min_count must be a positive integer, got 0"):
        Vocabulary.build(TEXT, min_count=0)


def test_unknown_levels_and_numbers_that_are_not_whole_are_refused() -> None:
    with pytest.raises(ValueError, match="level must be one of word, character, got 'words'; did you mean 'word'"):
        Vocabulary(["<eos>"], level="words")  # type: ignore[arg-type]
    for option in ("min_count", "max_vocabulary"):
        with pytest.raises(ValueError, match=f"{option} must be .* integer.*got 5.5"):
            Vocabulary.build(["a"], **{option: 5.5})  # type: ignore[arg-type]
