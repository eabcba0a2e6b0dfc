import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from noisin_pyro.data import Corpus, Vocabulary, load, load_text
from noisin_pyro.data.specs import DatasetSpec

SPLITS = ("train", "valid", "test")


def texts(corpus: Corpus) -> tuple[Vocabulary, list[Tensor]]:
    assert corpus.vocabulary is not None
    tokens = [getattr(corpus, split) for split in SPLITS]
    assert all(isinstance(part, Tensor) for part in tokens)
    return corpus.vocabulary, tokens


@pytest.mark.parametrize(
    ("name", "num_tokens", "vocabulary_size", "rate"),
    [
        # The paper prints one token more in each part of Penn Treebank: 929,590 / 73,761 / 82,431.
        ("ptb", [929_589, 73_760, 82_430], 10_000, 4.8),
        ("wikitext-2", [2_088_628, 217_646, 245_569], 33_278, 2.6),
    ],
)
def test_table_1(root: Path, name: str, num_tokens: list[int], vocabulary_size: int, rate: float) -> None:
    """Table 1 of the paper; its out-of-vocabulary rate is the share of ``<unk>`` among the training tokens."""
    vocabulary, tokens = texts(load(name, root))
    assert [len(part) for part in tokens] == num_tokens
    assert len(vocabulary) == vocabulary_size
    assert round(100 * vocabulary.out_of_vocabulary_rate(tokens[0]), 1) == rate
    assert all(int(part.max()) < vocabulary_size and int(part.min()) == vocabulary.eos for part in tokens)


def test_penn_treebank_decodes_to_its_text(root: Path) -> None:
    vocabulary, tokens = texts(load("ptb", root))
    lines = (root / "ptb" / "ptb.test.txt").read_text(encoding="utf-8").splitlines()
    assert vocabulary.decode(tokens[2]) == [word for line in lines for word in [*line.split(), "<eos>"]]


def test_load_by_name_is_load_text_of_its_files(folder: Path, tmp_path: Path, toy: DatasetSpec) -> None:
    for split in SPLITS:
        shutil.copy(folder / f"{split}.txt", tmp_path / f"ptb.{split}.txt")
    vocabulary, tokens = texts(load("ptb", tmp_path))
    own = load_text(folder)
    assert vocabulary == own.vocabulary and all(map(torch.equal, tokens, texts(own)[1]))


def test_load_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be one of ptb, .*, pydocs, got 'wikitext2'; did you mean 'wikitext-2'"):
        load("wikitext2")
    with pytest.raises(ValueError, match=r"with load_text or load_music\) must be .*, got 'xyz'$"):
        load("xyz")
    with pytest.raises(ValueError, match=r"'jsb' is not in root=.*expected polyphonic/JSB_Chorales.mat"):
        load("jsb", tmp_path)
    with pytest.raises(ValueError, match="leave root out"):
        load("pydocs", tmp_path)


def test_load_text(folder: Path) -> None:
    vocabulary, tokens = texts(load_text(folder))
    assert vocabulary.words == ("<eos>", "the", "cat", "sat", "dog", "on")
    assert [" ".join(vocabulary.decode(part)) for part in tokens] == [
        "the cat sat <eos> <eos> the dog sat on the cat <eos>",
        "the dog sat <eos>",
        "the cat sat on the dog <eos>",
    ]
    by_path = load_text(train=folder / "train.txt", valid=folder / "valid.txt", test=folder / "test.txt")
    assert all(map(torch.equal, texts(by_path)[1], tokens))


def test_load_text_makes_unk(folder: Path) -> None:
    vocabulary, (train, _, test) = texts(load_text(folder, min_count=2))
    assert vocabulary.words == ("<eos>", "<unk>", "the", "cat", "sat")
    assert " ".join(vocabulary.decode(test)) == "the cat sat <unk> the <unk> <eos>"
    assert vocabulary.out_of_vocabulary_rate(train) == 2 / 12
    assert len(texts(load_text(folder, max_vocabulary=4))[0]) == 4


def test_load_text_refuses(folder: Path) -> None:
    with pytest.raises(ValueError, match="missing: train, test"):
        load_text(valid=folder / "valid.txt")
    with pytest.raises(ValueError, match="not both"):
        load_text(folder, test=folder / "test.txt")
    (folder / "valid.txt").write_text("the cat\n\nthe bird sat\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"valid\.txt, line 3: 'bird' is not among.*min_count=2"):
        load_text(folder)
    (folder / "valid.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"valid\.txt has no words"):
        load_text(folder)
    (folder / "valid.txt").unlink()
    with pytest.raises(ValueError, match=r"valid\.txt cannot be read"):
        load_text(folder)
