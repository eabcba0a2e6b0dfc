from pathlib import Path

import pytest

from noisin_pyro.data.text import read_words


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a b\nc\n", "a b <eos> c <eos>"),
        (b"a b\nc", "a b <eos> c <eos>"),
        (b" \n a  b \n\n", "<eos> a b <eos> <eos>"),
        (b"a b\r\nc\r\n", "a b <eos> c <eos>"),
        ("\ufeffcaf\u00e9\n".encode(), "caf\u00e9 <eos>"),
        ("a\u2028b\x0cc\n".encode(), "a b c <eos>"),
    ],
)
def test_lines_become_sentences(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "text.txt").write_bytes(content)
    assert read_words(tmp_path / "text.txt") == words.split()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no words"),
        (b" \n\n", "has no words"),
        (b"a\nb\ncaf\xe9\n", "line 3: not UTF-8.*iconv"),
        ("a b\n".encode("utf-16"), "line 1: not UTF-8"),
        ("a b\n".encode("utf-16-le"), "contains zero bytes.*iconv -f utf-16"),
        (b"a\nb <eos>\n", "line 2: the text contains <eos>; remove it"),
    ],
)
def test_refused_content_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"text\.txt.*{message}"):
        read_words(tmp_path / "text.txt")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing.txt cannot be read .*pass the path"):
        read_words(tmp_path / "nothing.txt")
    with pytest.raises(ValueError, match="cannot be read"):
        read_words(tmp_path)
