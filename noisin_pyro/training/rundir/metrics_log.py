"""The log of a run: a CSV file with one row per epoch."""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from pathlib import Path

from noisin_pyro._files import atomic_write, naming

Row = dict[str, float]
COLUMNS = {
    "epoch", "train_nats", "train_perplexity", "valid_nats", "valid_perplexity", "learning_rate", "seconds",
    "tokens_per_second",
}  # fmt: skip
# digits in groups of thousands: 1,234 or 12 345 678, by one of the separators of spreadsheet programs
_GROUPED = re.compile("[+-]?[1-9]\\d{0,2}(?=([.,'’ \xa0\u202f]))(?:\\1\\d{3})+(?!\\d)")


def append(path: Path, row: Row) -> None:
    """Append a row, with six significant digits per number; the first row comes with the column names."""
    with naming(path), path.open("a", newline="", encoding="utf-8") as file:
        file.write(_text([row], titled=file.tell() == 0))


def rounded(rows: list[Row]) -> list[Row]:
    """The rows as they are read from a log, with six significant digits per number."""
    return [{name: float(_cell(value)) for name, value in row.items()} for row in rows]


def rewrite(path: Path, rows: list[Row]) -> None:
    """Replace the log by these rows."""
    if rows:
        with atomic_write(path) as file:
            file.write(_text(rows, titled=True).encode())
    else:
        path.unlink(missing_ok=True)


def read(path: Path) -> list[Row]:
    """All rows, as dictionaries from column to number.

    What spreadsheet programs save is read too: a byte-order mark, UTF-16, empty lines and columns, semicolons or tabs
    between the columns, decimal commas beside these, and thousands separators.

    Raises:
        ValueError: a file that is not a log, or is damaged.
    """
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if is_utf16 else "utf-8-sig", "replace")
    delimiter = next((mark for mark in ";\t" if mark in text.partition("\n")[0]), ",")
    rows: list[Row] = []
    table: list[dict[str, str]] = []
    mark: str | None = None
    try:
        lines = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for line in lines:
            table.append({name: cell for name, cell in line.items() if name or cell})
        mark = _decimal_mark([str(cell) for line in table for cell in line.values()], delimiter)
        for cells in filter(lambda line: any(line.values()), table):
            rows.append({name: _number(name, cell, mark) for name, cell in cells.items()})
    except (ValueError, csv.Error) as error:
        number = len(table if mark is None else rows) + 1
        raise ValueError(
            f"{path} is damaged, row {number}: {error}; restore it, or remove result.json and resume the run, which "
            "writes both again"
        ) from error
    return rows


def _decimal_mark(cells: list[str], delimiter: str) -> str:
    """The decimal mark of a file, by the cells in which it cannot separate thousands; empty if it is not known."""
    ends = [re.search(r"([.,])\d*(e[+-]?\d+)?$", cell.strip(), re.IGNORECASE) for cell in cells]
    marks = {end[1] for end in ends if end and end.string.count(end[1]) == 1 and not _GROUPED.fullmatch(end.string)}
    if len(marks) == 1:
        return marks.pop()
    return "." if not marks and delimiter == "," else ""


def _number(name: str, cell: str, mark: str) -> float:
    """The number in a cell. Without a known decimal mark, what may separate thousands is refused."""
    try:
        digits = cell.strip()
        grouped = _GROUPED.match(digits)
        if grouped and grouped[1] != mark:
            if not mark and grouped[1] in ".,":
                raise ValueError
            digits = grouped[0].replace(grouped[1], "") + digits[grouped.end() :]
        return float(digits.replace(mark, ".") if mark else digits)
    except (ValueError, TypeError, AttributeError):  # also a row with too few or too many cells
        raise ValueError(f"{name} is {cell!r}, not a number") from None


def require_whole(rows: list[Row], source: object = "the log") -> list[Row]:
    """Return the rows if they are those of a run's first epochs, without a gap; errors name ``source``.

    Raises:
        ValueError: they are not.
    """
    for number, row in enumerate(rows, start=1):
        if not row.keys() >= COLUMNS or row["epoch"] != number or not math.isfinite(row["valid_nats"]):
            raise ValueError(f"row {number} of {source} is not that of epoch {number}")
    return rows


def _cell(value: float) -> str:
    return f"{value:.6g}"


def _text(rows: list[Row], titled: bool) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines)
    if titled:
        writer.writerow(rows[0])
    writer.writerows(map(_cell, row.values()) for row in rows)
    return lines.getvalue()
