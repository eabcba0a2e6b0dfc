"""The text in a file's bytes, or what they are if they are not a text in UTF-8."""

from __future__ import annotations

import codecs
import contextlib
import itertools
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

CHUNK = 1 << 20
"""Number of bytes, characters or tokens that are processed at a time."""

LINE_END = re.compile("\r\n?|[\n\u2028\u2029]")
_CONTROLS = "".join(map(chr, [*range(9), *range(14, 32), *range(127, 160), 0xFFFE, 0xFFFF]))
_CONTROL = re.compile(f"[{_CONTROLS}]")
_DOS_END = re.compile("\x1a[\x1a\0\\s]*\\Z")

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_ARCHIVE = (b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"%PDF")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
# Encodings that are recognized, and their names in iconv. The first group has bytes that no text in the second has: 0
# and escape. Bytes in the second are valid in several encodings, of which a reader of the language knows the right one.
_SEVEN_BIT = {
    "utf_16_le": "UTF-16LE", "utf_16_be": "UTF-16BE", "utf_32_le": "UTF-32LE", "utf_32_be": "UTF-32BE",
    "iso2022_jp": "ISO-2022-JP", "iso2022_kr": "ISO-2022-KR",
}  # fmt: skip
_EIGHT_BIT = {
    "cp1252": "CP1252", "cp1250": "CP1250", "cp1251": "CP1251", "cp1253": "CP1253", "cp1254": "CP1254",
    "cp1255": "CP1255", "cp1256": "CP1256", "cp1257": "CP1257", "iso8859_6": "ISO8859-6",
    "iso8859_2": "ISO8859-2", "iso8859_5": "ISO8859-5", "koi8_r": "KOI8-R", "mac_roman": "MACINTOSH",
    "cp437": "CP437", "cp850": "CP850", "cp866": "CP866", "cp932": "CP932", "euc_jp": "EUC-JP",
    "gb18030": "GB18030", "big5": "BIG5", "cp949": "CP949",
}  # fmt: skip
_MOST_READINGS = 4


def decoded(path: Path) -> Iterator[str]:
    """What :func:`decode` makes of a file's content, piece by piece. A progress bar appears after a second.

    Raises:
        OSError: the file cannot be read.
        ValueError: as :func:`decode`.
    """
    with path.open("rb") as file, tqdm(
        desc=f"reading {path.name}", total=path.stat().st_size or None, unit="B", unit_scale=True, leave=False,
        delay=1, disable=None,
    ) as bar:  # fmt: skip
        content, end, is_text = file.read(CHUNK), "", True
        decoder = codecs.getincrementaldecoder(_marked_encoding(content) or "utf-8")()
        while is_text:
            try:
                text = end + decoder.decode(content, final=not content)
            except UnicodeDecodeError:
                break
            end = match[0] if (match := _DOS_END.search(text)) else ""
            text = text.removesuffix(end)
            if is_text := not any(control in text for control in _CONTROLS):  # faster than to search for _CONTROL
                yield text
                if not content:
                    return
                bar.update(len(content))
                content = file.read(CHUNK)
    decode(path.read_bytes(), path)  # raises, since its errors need the whole content
    raise ValueError(f"{path} is not a text, and cannot be read again to say why; pass the path of a text file")


def decode(content: bytes, path: Path) -> str:
    """Decode UTF-8, or UTF-16 or UTF-32 with a byte-order mark. A DOS end-of-file character at the end is removed.

    Args:
        path: name of the file in errors.

    Raises:
        ValueError: another encoding, a compressed file, or control characters. The message has the line, what the file
            reads in each encoding that is plausible, and a command that converts it.
    """
    encoding = _marked_encoding(content) or "utf-8"
    try:
        text = _DOS_END.sub("", content.decode(encoding))
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            problem = f"byte {error.start:,} is not {encoding.upper()}, which its byte-order mark says ({error.reason})"
            raise ValueError(f"{path}: {problem}; the file is damaged, restore it") from error
        _refuse(content, error.start, f"not UTF-8 ({error.reason})", _SEVEN_BIT | _EIGHT_BIT, path)
    if control := _CONTROL.search(text):
        before, problem = text[: control.start()], f"control character U+{ord(control[0]):04X}"
        if encoding == "utf-8" and control[0] < "\x80":
            _refuse(content, len(before.encode()), problem, _SEVEN_BIT, path)
        remedy = _undo_conversion(text, control[0], path) if encoding == "utf-8" else "remove it"
        raise ValueError(f"{path}, line {_line(before)}: {problem}; {remedy}")
    return text


def _marked_encoding(content: bytes) -> str | None:
    return next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)


def _refuse(content: bytes, start: int, problem: str, candidates: dict[str, str], path: Path) -> NoReturn:
    """Raise, with what the content is if it is not UTF-8 from byte ``start`` on."""
    quoted = shlex.quote(str(path))
    if content.startswith(_ARCHIVE):
        raise ValueError(f"{path} is an archive or a document, not a text; save what it contains as a text in UTF-8")
    if tool := next((tool for magic, tool in _COMPRESSED.items() if content.startswith(magic)), None):
        raise ValueError(f"{path} is compressed with {tool}; decompress it: {tool} -dc {quoted} > new.txt")
    encoding, text = "utf-8", content.decode("utf-8", "replace")
    valid, invalid = len(re.findall("[^\0-\x7f\ufffd]", text)), text.count("\ufffd")
    command = f"iconv -f ENCODING -t UTF-8 {quoted} > new.txt"
    if valid > invalid > 0:
        remedy = "the rest of the file is UTF-8: correct this line, or restore the file"
    elif readings := _readings(content, candidates):
        if set(readings) - set(_SEVEN_BIT):
            raise ValueError(
                f"{path}, line {_line(content[:start].decode())}: {problem}; it reads {_samples(content, readings)}; "
                f"convert it from the encoding in which it is right: {command}; if none is, restore the file"
            )
        ((encoding, text),) = readings.items()
        problem += f"; probably {candidates[encoding]}, in which it reads"
        remedy = f"if that is right, convert it: {command.replace('ENCODING', candidates[encoding])}"
        remedy += "; if not, give iconv the right encoding, or restore the file"
    elif invalid:
        remedy = f"its encoding is not recognized: convert it, {command}"
    else:
        remedy = "remove it, or pass a text file"
    before = content[:start].decode(encoding, "ignore")
    excerpt = LINE_END.split(before)[-1][-20:] + LINE_END.split(text[len(before) :][:20])[0]
    at = " at" if encoding == "utf-8" else ""
    raise ValueError(f"{path}, line {_line(before)}: {problem}{at} {excerpt!r}; {remedy}")


def _readings(content: bytes, candidates: dict[str, str]) -> dict[str, str]:
    """Different texts that the content may be, with their encodings, the most probable first."""
    from charset_normalizer import from_bytes  # only needed for errors

    # one encoding at a time: of similar ones together it leaves out all that follow an improbable one
    matches = sorted(match for name in candidates for match in from_bytes(content, cp_isolation=[name]))
    readings: dict[str, str] = {}
    for match in matches:
        text = _DOS_END.sub("", content.decode(match.encoding))
        # Bytes of other files make characters of UTF-16 too, but hardly any spaces.
        is_text = match.encoding not in _SEVEN_BIT or len(re.findall("[ \n\u3000]", text)) > 0.01 * len(text)
        if is_text and text not in readings.values() and not _CONTROL.search(text):
            readings[match.encoding] = text
    return dict(itertools.islice(readings.items(), _MOST_READINGS))


def _samples(content: bytes, encodings: Iterable[str]) -> str:
    """Words that differ between each two encodings, as each of these reads them."""
    words = list(dict.fromkeys(word for word in content.split() if not word.isascii()))
    chosen = words[:1]
    for one, other in itertools.combinations(encodings, 2):
        different = (word for word in chosen + words if word.decode(one)[:20] != word.decode(other)[:20])
        chosen += [word for word in itertools.islice(different, 1) if word not in chosen]
    names = _SEVEN_BIT | _EIGHT_BIT
    return ", ".join(f"{' '.join(w.decode(each)[:20] for w in chosen)!r} in {names[each]}" for each in encodings)


def _undo_conversion(text: str, control: str, path: Path) -> str:
    """The remedy for what is left where a text was converted from Latin-1, but was not Latin-1."""
    undo, remedies = f"iconv -f UTF-8 -t LATIN1 {shlex.quote(str(path))}", []
    with contextlib.suppress(UnicodeEncodeError):
        original = text.encode("latin1")
        try:
            original.decode()
            remedies.append(f"if it was UTF-8, and converted as if it were Latin-1, undo that: {undo} > new.txt")
        except UnicodeDecodeError:
            if readings := _readings(original, _EIGHT_BIT):
                remedies.append(
                    f"if it was converted as if it were Latin-1, it reads {_samples(original, readings)} before that; "
                    f"convert it from the encoding in which it is right: {undo} | iconv -f ENCODING -t UTF-8 > new.txt"
                )
    if control == "\x85":
        newline = f"perl -CSD -pe 's/\\x{{85}}/\\n/g' {shlex.quote(str(path))} > new.txt"
        remedies.append(f"if it ends lines, replace it: {newline}")
    return "; ".join(remedies) or "remove it, or pass a text file"


def _line(before: str) -> int:
    """Number of the line, from 1, that follows this text."""
    return len(LINE_END.findall(before)) + 1
