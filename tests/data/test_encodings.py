"""Texts in other encodings: read if a mark says which, or else refused with a command that makes them readable."""

import bz2
import gzip
import lzma
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from noisin_pyro.data.text import read_words

needs_iconv = pytest.mark.skipif(not shutil.which("iconv"), reason="iconv is not installed")
LINES = {
    "french": "le café était fermé et l’élève a mangé un gâteau à côté de la fenêtre\n",
    "german": "die Straße über den Fluß führt nach München wo schöne Häuser stehen\n",
    "portuguese": "a nação não sabia que o coração da manhã é também uma canção de verão\n",
    "spanish": "el niño comió una manzana mañana por la mañana en el jardín pequeño\n",
    "italian": "perché la città è così bella e però più lontana di quanto si può dire\n",
    "swedish": "på hösten åker vi över ån till ön där många små fåglar är på väg söderut\n",
    "danish": "en lille dreng gik på vejen ved åen og så på de grønne æbler i æsken\n",
    "polish": "zażółć gęślą jaźń a potem pójdziemy do sklepu kupić książkę\n",
    "czech": "příliš žluťoučký kůň úpěl ďábelské ódy a pak šel domů spát\n",
    "hungarian": "az öreg tűzoltó a hűvös őszi reggelen elment a szép kis házból\n",
    "romanian": "fata a mers în pădure şi a găsit o căprioară rănită lângă pârâu\n",
    "lithuanian": "žąsys plaukė upe o šešios mažos antys ėjo keliu į namus čia pat\n",
    "turkish": "güneşli bir günde çocuklar bahçede oynuyor ve ağaçların altında şarkı söylüyorlardı\n",
    "russian": "кошка сидела на ковре и смотрела в окно на падающий снег\n",
    "greek": "η γάτα κάθισε στο χαλί και κοίταξε έξω από το παράθυρο\n",
    "hebrew": "החתול ישב על השטיח והסתכל מהחלון על השלג היורד לאט\n",
    "arabic": "جلس القط على السجادة ونظر من النافذة إلى الثلج المتساقط\n",
    "japanese": "私は毎日学校へ行きます。 天気がいいですね\n",
    "chinese": "我每天去学校学习中文， 今天天气很好\n",
    "korean": "나는 매일 학교에 갑니다. 오늘은 날씨가 좋네요\n",
    "english": "the cat sat on the mat and the dog looked out of the window\n",
}
EIGHT_BIT = {
    "french": ("cp1252", "latin1", "iso8859-15", "cp850", "cp437", "mac_roman"),
    "german": ("cp1252", "latin1", "cp850", "cp437", "mac_roman"),
    **dict.fromkeys(("portuguese", "italian", "swedish", "danish"), ("cp1252", "cp850", "mac_roman")),
    "spanish": ("cp1252", "cp850", "cp437", "mac_roman"),
    **dict.fromkeys(("polish", "czech", "hungarian", "romanian"), ("cp1250", "iso8859-2")),
    "lithuanian": ("cp1257",),
    "turkish": ("cp1254", "iso8859-9"),
    "russian": ("cp1251", "koi8-r", "iso8859-5", "cp866"),
    "greek": ("cp1253", "iso8859-7"),
    "hebrew": ("cp1255", "iso8859-8"),
    "arabic": ("cp1256", "iso8859-6"),
    "japanese": ("shift_jis", "euc_jp"),
    "chinese": ("gb18030", "big5"),
    "korean": ("euc_kr",),
}


def words(text: str) -> list[str]:
    return text.replace("\n", " <eos> ").split()


def refusal(path: Path) -> str:
    with pytest.raises(ValueError, match=re.escape(str(path))) as refused:
        read_words(path)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def follow(advice: str, folder: Path, before: str = ": ") -> Path:
    """Run the command in the message; the file that it makes."""
    command = re.search(f"{re.escape(before)}([^:]* > new.txt)", advice)
    assert command, advice
    subprocess.run(command[1], shell=True, cwd=folder, check=True)
    return folder / "new.txt"


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("language", LINES)
def test_an_encoding_with_a_mark_is_read(tmp_path: Path, language: str, codec: str) -> None:
    text = 3 * LINES[language]
    (tmp_path / "text.txt").write_bytes(text.encode(codec))
    assert read_words(tmp_path / "text.txt") == words(text)


@pytest.mark.parametrize(("mark", "codec"), [("utf-16-be", "utf-16-be"), ("utf-32-be", "utf-32-be")])
def test_big_endian_marks_and_dos_ends_are_read(tmp_path: Path, mark: str, codec: str) -> None:
    (tmp_path / "text.txt").write_bytes("\ufeff".encode(mark) + "a é\r\nb\r\n\x1a".encode(codec))
    assert read_words(tmp_path / "text.txt") == ["a", "é", "<eos>", "b", "<eos>"]


def readings(advice: str) -> dict[str, str]:
    """The encodings that are offered, and what the text reads in each."""
    samples = re.search(r"it reads (.*?)(?: before that)?; convert it from the encoding in which it is right", advice)
    assert samples, advice
    return {name: sample[1:-1] for sample, name in re.findall(r"('.*?'|\".*?\") in ([A-Z0-9-]+)", samples[1])}


def follow_the_right_reading(advice: str, text: str, folder: Path) -> Path:
    """A reader of the language knows the words; the command is then complete."""
    offered = readings(advice)
    assert len(set(offered.values())) == len(offered) <= 4  # the reader can tell them apart
    right = [name for name, sample in offered.items() if set(sample.split()) <= {word[:20] for word in text.split()}]
    assert len(right) == 1, advice
    return follow(advice.replace("ENCODING", right[0]), folder)


@needs_iconv
@pytest.mark.parametrize("copies", [1, 20])
@pytest.mark.parametrize(("language", "codec"), [(one, codec) for one in EIGHT_BIT for codec in EIGHT_BIT[one]])
def test_the_right_encoding_is_among_those_offered(tmp_path: Path, language: str, codec: str, copies: int) -> None:
    text = copies * LINES[language]
    if codec in ("latin1", "iso8859-15", "cp850", "cp437"):
        text = text.replace("’", "'")
    if codec == "big5":
        text = text.replace("学校学习", "學校學習").replace("气", "氣").replace("么", "麼")
    path = tmp_path / "a text's.txt"
    path.write_bytes(text.encode(codec))
    advice = refusal(path)
    assert "line 1: not UTF-8" in advice
    assert read_words(follow_the_right_reading(advice, text, tmp_path)) == words(text)
    for command in re.findall(r": ([^:]* > new.txt)", advice):  # unchanged, it converts nothing
        assert subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True).returncode != 0


@needs_iconv
@pytest.mark.parametrize(
    ("language", "codec"),
    [
        ("japanese", "iso2022_jp"), ("korean", "iso2022_kr"),
        *((language, f"utf-{size}-{order}e") for language in LINES for size in (16, 32) for order in "lb"),
    ],
)  # fmt: skip
def test_the_encoding_is_named_and_the_command_makes_the_text_readable(
    tmp_path: Path, language: str, codec: str
) -> None:
    """The message has the line and what it reads; following it gives the words that were written."""
    text = 20 * LINES[language]
    path = tmp_path / "a text's.txt"
    path.write_bytes(text.encode(codec))
    advice = refusal(path)
    assert "line 1: " in advice and words(text)[0] in advice
    assert read_words(follow(advice, tmp_path)) == words(text)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("codec", ["latin1", "cp850", "koi8-r", "shift_jis"])
def test_the_line_of_the_first_bad_byte_is_counted_by_any_line_ends(tmp_path: Path, codec: str, end: str) -> None:
    word = {"koi8-r": "кошка", "shift_jis": "学校"}.get(codec, "café")
    (tmp_path / "text.txt").write_bytes(end.join(["one", "", f"two {word} three", "four"]).encode(codec))
    assert "text.txt, line 3: not UTF-8" in refusal(tmp_path / "text.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            40 * LINES["french"].encode() + b"caf\xe9 one\n",
            r"line 41: not UTF-8 .*the rest of the file is UTF-8: correct",
        ),
        ((3 * LINES["russian"]).encode()[:-2], "line 3: not UTF-8 .*the rest of the file is UTF-8"),
        (b"a\nb\0c d\n", r"line 2: control character U\+0000 at 'b\\x00c d'; remove it"),
        (b"a\n\x1b[31mred\n", r"line 2: control character U\+001B"),
        (b"a\n\x1ab\n", r"line 2: control character U\+001A"),
        ("a\n\nb\x1bc\n".encode("utf-16"), r"line 3: control character U\+001B; remove it"),
        ("a\n".encode("utf-16") + b"\xfe\xff\0b", r"line 2: control character U\+FFFE; remove it"),
        ("a\nb\x93c\n".encode("utf-16"), r"line 2: control character U\+0093; remove it"),
        (bytes(range(256)) * 9, "not UTF-8 .*its encoding is not recognized"),
        ("a b\n".encode("utf-16")[:-1], "byte 8 is not UTF-16, which its byte-order mark says .*damaged"),
        (b"\xff\xfe\0\0" + b"\xff" * 4, "byte 4 is not UTF-32, which its byte-order mark says"),
    ],
)
def test_damage_is_not_taken_for_an_encoding(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "text.txt").write_bytes(content)
    advice = refusal(tmp_path / "text.txt")
    assert re.search(message, advice), advice
    assert "probably" not in advice and "it reads" not in advice


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_text_is_named(tmp_path: Path, compress) -> None:
    text = 3 * LINES["english"]
    path = tmp_path / "a text.txt"
    path.write_bytes(compress(text.encode()))
    advice = refusal(path)
    tool = advice.partition("compressed with ")[2].partition(";")[0]
    if shutil.which(tool):
        assert read_words(follow(advice, tmp_path)) == words(text)


@pytest.mark.parametrize("archive", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_is_named(tmp_path: Path, archive: int) -> None:
    """Documents of word processors are such archives."""
    with zipfile.ZipFile(tmp_path / "text.txt", "w", archive) as file:
        file.writestr("text.txt", 20 * LINES["french"])
    assert "is an archive or a document, not a text; save what it contains" in refusal(tmp_path / "text.txt")


@needs_iconv
@pytest.mark.parametrize(
    ("language", "codec"),
    [("french", "cp1252"), ("french", "utf-8"), ("polish", "utf-8"), ("polish", "cp1250"), ("french", "cp850")],
)
def test_a_wrong_conversion_from_latin_1_is_undone(tmp_path: Path, language: str, codec: str) -> None:
    """What iconv -f latin1 makes of another encoding has control characters, and is never read as words."""
    text = "one\n" + LINES[language].replace("’", "’" if codec in ("utf-8", "cp1252") else "'")
    (tmp_path / "text.txt").write_text(text.encode(codec).decode("latin1"), encoding="utf-8", newline="")
    advice = refusal(tmp_path / "text.txt")
    assert "line 2: control character U+00" in advice
    new = follow(advice, tmp_path) if codec == "utf-8" else follow_the_right_reading(advice, text, tmp_path)
    assert read_words(new) == words(text)


@pytest.mark.skipif(not shutil.which("perl"), reason="perl is not installed")
def test_a_next_line_character_is_an_ellipsis_or_a_line_end(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a b\x85c\x85", encoding="utf-8")
    advice = refusal(tmp_path / "text.txt")
    assert "line 1: control character U+0085; if it" in advice
    assert read_words(follow(advice, tmp_path, "replace it: ")) == ["a", "b", "<eos>", "c", "<eos>"]
