from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisin_pyro.data import encodings, load_text
from noisin_pyro.data.text import read_words

from .whole_text import read_whole

ODD = [
    "\r",
    "\n",
    "\r\n",
    "\u2028",
    "\u2029",
    "\ufeff",
    "\x1a",
    "\0",
    "\x85",
    "\x0c",
    "\u3000",
    "\u00a0",
    " ",
    "\t",
    "<eos>",
]
PLAIN = ["a", "bc", "é", "学", "😀", "<eos", "\udcff"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a b\nc\n", "a b <eos> c <eos>"),
        (b"a b\nc", "a b <eos> c <eos>"),
        (b" \n a  b \n\n", "<eos> a b <eos> <eos>"),
        (b"a b\r\nc\r\n", "a b <eos> c <eos>"),
        (b"a b\rc\r", "a b <eos> c <eos>"),
        (b"a\r\rb\r\nc\nd", "a <eos> <eos> b <eos> c <eos> d <eos>"),
        ("a b\u2028c\u2029d\n".encode(), "a b <eos> c <eos> d <eos>"),
        ("a\u00a0b\x0cc\u3000d\n".encode(), "a b c d <eos>"),
        ("\ufeffcaf\u00e9\n".encode(), "caf\u00e9 <eos>"),
        ("\ufeffa\n\ufeffb\r\ufeff\ufeffc\n".encode(), "a <eos> b <eos> c <eos>"),
        ("a \ufeff b\n".encode(), "a \ufeff b <eos>"),
        (b"a\r\nb\r\n\x1a", "a <eos> b <eos>"),
        (b"a b\x1a\x1a\r\n", "a b <eos>"),
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
        ("\ufeff\n".encode(), "has no words"),
        (b"a\nb <eos>\n", "line 2: the text contains <eos>; remove it"),
        ("a\rb\u2028 <eos>\r".encode(), "line 3: the text contains <eos>; remove it"),
        ("a\rx b\ufeffc\n".encode(), r"line 2: byte-order mark U\+FEFF inside the word 'b\\ufeffc'"),
        ("a\n\nb \ufeffc\n".encode(), r"line 3: byte-order mark U\+FEFF inside the word '\\ufeffc'"),
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


def _outcome(read, path: Path) -> list[str] | str:
    try:
        return read(path)
    except ValueError as error:
        return str(error)


@given(
    st.lists(st.sampled_from(PLAIN) | st.sampled_from(ODD[:6] + ODD[9:14]) | st.sampled_from(ODD), max_size=30),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin1"]),
    st.integers(4, 9),
)
def test_pieces_are_read_as_the_whole(words: list[str], codec: str, size: int) -> None:
    """The same words or the same refusal, whatever is at the border of two pieces; ``\udcff`` becomes a bad byte."""
    errors = "surrogateescape" if codec.startswith("utf-8") else "ignore"
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder, "text.txt")
        path.write_bytes("".join(words).encode(codec, errors))
        expected = _outcome(read_whole, path)
        patch.setattr(encodings, "CHUNK", size)
        assert _outcome(read_words, path) == expected


def test_characters(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes("\ufeffa  b\r\n\r<eos>\tc".encode())
    assert read_words(tmp_path / "text.txt", "character") == [*"a  b", "<eos>", "<eos>", *"<eos>\tc", "<eos>"]


def test_a_path_that_does_not_exist_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nope\.txt does not exist"):
        load_text(tmp_path / "nope.txt")
