"""Tokens of texts: the same as by reading a text at once, from the cache or not, and in bounded memory."""

import io
import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
import torch

from noisin_pyro.data import Vocabulary, encodings, load_text, tokens
from noisin_pyro.data.catalog import Corpus

from .whole_text import read_whole

SPLITS = ("train", "valid", "test")


@pytest.fixture
def texts(tmp_path: Path) -> list[Path]:
    """Random words, of which the first part lacks a few."""
    generator = random.Random(0)
    paths = []
    for size, most, split in zip((900, 200, 200), (60, 70, 70), SPLITS, strict=True):
        words = [f"w{min(generator.randrange(1, most), generator.randrange(1, most))}" for _ in range(size)]
        words = [word + generator.choice([" ", " ", " ", "\n", "\r\n", "  "]) for word in words]
        paths.append(tmp_path / f"{split}.txt")
        paths[-1].write_bytes("".join(words).encode())
    return paths


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, which small texts use too; they are read in small pieces."""
    monkeypatch.setenv("NOISIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tokens, "LARGE", 1)
    for module in (tokens, encodings):
        monkeypatch.setattr(module, "CHUNK", 50)
    yield tmp_path / "cache" / "texts"


def parts(corpus: Corpus) -> list[list[int]]:
    assert all(part.dtype == torch.int32 for part in (corpus.train, corpus.valid, corpus.test))  # type: ignore[union-attr]
    return [getattr(corpus, split).tolist() for split in SPLITS]


@pytest.mark.parametrize("options", [{"min_count": 2}, {"max_vocabulary": 20}, {"min_count": 3, "max_vocabulary": 50}])
def test_tokens_are_those_of_the_whole_text_from_the_cache_or_not(
    texts: list[Path], cache: Path, options: dict
) -> None:
    words = [read_whole(path) for path in texts]
    vocabulary = Vocabulary.build(words[0], **options)
    expected = [vocabulary.encode(part).tolist() for part in words]
    for _ in range(2):
        corpus = load_text(texts[0].parent, **options)
        assert corpus.vocabulary == vocabulary and parts(corpus) == expected
    assert len(list(cache.iterdir())) == 2


def test_an_unknown_word_is_named_with_its_file_and_line(texts: list[Path], cache: Path) -> None:
    vocabulary = Vocabulary.build(read_whole(texts[0]))
    with pytest.raises(ValueError) as expected:
        vocabulary.encode(read_whole(texts[1]), str(texts[1]))
    assert "valid.txt, line " in str(expected.value)
    with pytest.raises(ValueError) as refused:
        load_text(texts[0].parent)
    assert str(refused.value) == str(expected.value)
    assert not list(cache.iterdir())


def test_the_cache_depends_on_content_and_options(texts: list[Path], cache: Path) -> None:
    load_text(texts[0].parent, min_count=2)
    load_text(texts[0].parent, min_count=3)
    assert len(list(cache.glob("*.tokens"))) == 2
    texts[2].write_bytes(texts[2].read_bytes() + b" w1")
    changed = load_text(texts[0].parent, min_count=2)
    assert len(list(cache.glob("*.tokens"))) == 3
    assert parts(changed)[2][-2:] == [changed.vocabulary.index["w1"], 0]  # type: ignore[union-attr]


@pytest.mark.parametrize("suffix", [".tokens", ".json"])
@pytest.mark.parametrize("damage", ["cut", "longer", "flipped", "empty", "removed"])
def test_a_damaged_cache_is_rebuilt(texts: list[Path], cache: Path, suffix: str, damage: str) -> None:
    before = load_text(texts[0].parent, min_count=2)
    (path,) = cache.glob(f"*{suffix}")
    content = path.read_bytes()
    path.unlink()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    changes = {"cut": content[:-4], "longer": content + b"\0\0\0\0", "flipped": flipped, "empty": b""}
    if damage != "removed":
        path.write_bytes(changes[damage])
    after = load_text(texts[0].parent, min_count=2)
    assert parts(after) == parts(before) and after.vocabulary == before.vocabulary
    assert path.read_bytes() == content


def test_a_cache_that_cannot_be_written_is_done_without(
    texts: list[Path], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = parts(load_text(texts[0].parent, min_count=2))
    for path in cache.iterdir():
        path.unlink()
    cache.rmdir()
    cache.write_text("a file")
    with caplog.at_level(logging.WARNING, "noisin_pyro"):
        assert parts(load_text(texts[0].parent, min_count=2)) == expected
    assert "tokens cannot be cached (" in caplog.text


def test_small_texts_are_not_cached(texts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOISIN_CACHE", str(tmp_path / "cache"))
    load_text(texts[0].parent, min_count=2)
    assert not (tmp_path / "cache").exists()


class TestOneFile:
    def test_parts_are_contiguous_and_end_with_lines(
        self, texts: list[Path], cache: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        words = read_whole(texts[0])
        with caplog.at_level(logging.INFO, "noisin_pyro"):
            corpus = load_text(texts[0], valid_fraction=0.15, test_fraction=0.25, min_count=1, max_vocabulary=30)
        assert corpus.vocabulary is not None
        sizes = [len(part) for part in parts(corpus)]
        ends = [position + 1 for position, word in enumerate(words) if word == "<eos>"]
        for size, fraction in ((sizes[0], 0.6), (sizes[0] + sizes[1], 0.75)):
            assert size == min(end for end in ends if end >= round(fraction * len(words)))
        assert corpus.vocabulary == Vocabulary.build(words[: sizes[0]], 30)
        assert [*chain(*parts(corpus))] == corpus.vocabulary.encode(words).tolist()
        assert (
            "train.txt is split into {:,} tokens for training, {:,} tokens for validation".format(*sizes) in caplog.text
        )

    def test_a_text_of_one_line_is_split_inside_it(self, tmp_path: Path, cache: Path) -> None:
        (tmp_path / "line.txt").write_text("a b " * 100)
        assert [len(part) for part in parts(load_text(tmp_path / "line.txt"))] == [161, 20, 20]

    def test_words_that_occur_once_are_unknown_by_default(self, tmp_path: Path, caplog) -> None:
        (tmp_path / "book.txt").write_text("once a\n" + "a b\n" * 23 + "new\n")
        with caplog.at_level(logging.INFO, "noisin_pyro"):
            corpus = load_text(tmp_path / "book.txt")
        assert corpus.vocabulary is not None and corpus.vocabulary.words == ("<eos>", "<unk>", "a", "b")
        assert "words that occur once in the first part become <unk>" in caplog.text
        with pytest.raises(ValueError, match=r"book\.txt, line 25: 'new' is not among .* train with min_count=2"):
            load_text(tmp_path / "book.txt", min_count=1)

    def test_refusals(self, texts: list[Path], tmp_path: Path) -> None:
        (tmp_path / "short.txt").write_text("a b")
        with pytest.raises(ValueError, match=r"of 3 tokens leave a part of .*short\.txt empty"):
            load_text(tmp_path / "short.txt")
        with pytest.raises(ValueError, match=r"must be positive, with a sum below 1, got 0\.5 and 0\.5"):
            load_text(texts[0], valid_fraction=0.5, test_fraction=0.5)
        with pytest.raises(ValueError, match="level must be one of word, character, got 'char'"):
            load_text(texts[0], level="char")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="valid_fraction and test_fraction are for one file, got 3"):
            load_text(texts[0].parent, valid_fraction=0.5)


def test_characters_are_tokens(tmp_path: Path) -> None:
    text = "ab  a\nba\n" * 20
    (tmp_path / "text.txt").write_text(text)
    corpus = load_text(tmp_path / "text.txt", level="character")
    assert corpus.vocabulary is not None and set(corpus.vocabulary.words) == {"<eos>", "<unk>", "a", "b", " "}
    assert corpus.vocabulary.encode(text).tolist() == [*chain(*parts(corpus))]
    assert corpus.vocabulary.join(corpus.vocabulary.decode(corpus.train)) == text[: len(corpus.train)]
    vocabulary = load_text(tmp_path / "text.txt", level="character", min_count=1).vocabulary
    assert vocabulary is not None
    with pytest.raises(ValueError, match=r"'c' is not among the 4 characters .*rare characters of the training text"):
        vocabulary.encode("abc")
    (tmp_path / "text.txt").write_text(text + "new\n")  # ordinary texts have characters that the first part lacks
    vocabulary = load_text(tmp_path / "text.txt", level="character").vocabulary
    assert vocabulary is not None and set(vocabulary.words) == set(corpus.vocabulary.words)


READ = """
import json, sys
from pathlib import Path
from noisin_pyro.data import load_text
def peak():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
before = peak()
corpus = load_text(sys.argv[1])
print(json.dumps([peak() - before, len(corpus.train), len(corpus.vocabulary), int(corpus.train[-1])]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/status tells the peak memory")
@pytest.mark.parametrize("writable", [True, False])
def test_half_a_gigabyte_is_read_in_three_bytes_of_memory_a_byte(tmp_path: Path, writable: bool) -> None:
    """Beside the vocabulary, with the tokens in the cache or in memory."""
    generator = random.Random(0)
    lines = [
        " ".join(f"w{int(generator.paretovariate(0.6)) % 100_000}" for _ in range(20)) + "\n" for _ in range(50_000)
    ]
    block = "".join(lines).encode()
    path, cache = tmp_path / "text.txt", tmp_path / "cache"
    with path.open("wb") as file:
        while file.tell() < 500_000_000:
            file.write(block)
    if not writable:
        cache.write_text("not a folder")
    environment = os.environ | {"NOISIN_CACHE": str(cache)}
    for _ in range(2):
        command = [sys.executable, "-c", READ, str(path)]
        output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        memory, size, _, last = json.loads(output)
        assert 0 < memory < 3 * path.stat().st_size
        assert size > 60_000_000 and last == 0
    path.unlink()


@pytest.mark.parametrize("large", [1, 10**9])
def test_a_part_is_saved_without_the_others(
    texts: list[Path], cache: Path, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "LARGE", large)
    corpus = load_text(texts[0].parent, min_count=2)
    for split in SPLITS:
        part = getattr(corpus, split)
        saved, alone = io.BytesIO(), io.BytesIO()
        torch.save(part, saved)
        torch.save(part.clone(), alone)
        assert len(saved.getvalue()) == len(alone.getvalue())
