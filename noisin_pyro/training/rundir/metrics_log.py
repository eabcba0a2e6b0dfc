"""The log of a run: a CSV file with one row per epoch."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from noisin_pyro._files import atomic_write, naming

Row = dict[str, float]
COLUMNS = {
    "epoch", "train_nats", "train_perplexity", "valid_nats", "valid_perplexity", "learning_rate", "seconds",
    "tokens_per_second",
}  # fmt: skip


def append(path: Path, row: Row) -> None:
    """Append a row, with six significant digits per number; the first row comes with the column names."""
    with naming(path), path.open("a", newline="", encoding="utf-8") as file:
        file.write(_text([row], titled=file.tell() == 0))


def rewrite(path: Path, rows: list[Row]) -> None:
    """Replace the log by these rows."""
    if rows:
        with atomic_write(path) as file:
            file.write(_text(rows, titled=True).encode())
    else:
        path.unlink(missing_ok=True)


def read(path: Path) -> list[Row]:
    """All rows, as dictionaries from column to number.

    What spreadsheet programs save is read too: a byte-order mark, empty lines and columns, semicolons or tabs between
    the columns, and decimal commas beside these.

    Raises:
        ValueError: a file that is no log, or damaged.
    """
    text = path.read_bytes().decode("utf-8-sig", "replace")
    delimiter = next((mark for mark in ";\t" if mark in text.partition("\n")[0]), ",")
    rows: list[Row] = []
    try:
        for line in csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True):
            cells = {name: cell for name, cell in line.items() if name or cell}
            if any(cells.values()):
                rows.append({name: _number(name, cell, delimiter != ",") for name, cell in cells.items()})
    except (ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} is damaged, row {len(rows) + 1}: {error}; restore it, or remove result.json and resume the run, "
            "which writes both again"
        ) from error
    return rows


def _number(name: str, cell: str, decimal_comma: bool) -> float:
    try:
        return float(cell.replace(",", ".") if decimal_comma else cell)
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


def _text(rows: list[Row], titled: bool) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines)
    if titled:
        writer.writerow(rows[0])
    writer.writerows([f"{value:.6g}" for value in row.values()] for row in rows)
    return lines.getvalue()
