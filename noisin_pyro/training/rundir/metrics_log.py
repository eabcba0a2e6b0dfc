"""The log of a run: a CSV file with one row per epoch."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from noisin_pyro._files import atomic_write

Row = dict[str, float]
COLUMNS = {
    "epoch", "train_nats", "train_perplexity", "valid_nats", "valid_perplexity", "learning_rate", "seconds",
    "tokens_per_second",
}  # fmt: skip


def append(path: Path, row: Row) -> None:
    """Append a row, with six significant digits per number; the first row comes with the column names."""
    with path.open("a", newline="", encoding="utf-8") as file:
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

    Raises:
        ValueError: a file that is no log, or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file, strict=True)]
    except (
        ValueError,
        TypeError,
        csv.Error,
    ) as error:  # not text, not a number, a row with missing or extra cells
        raise ValueError(f"{path} is damaged: a row is not of numbers, one for each column") from error


def require_whole(rows: list[Row]) -> list[Row]:
    """Return the rows if they are those of a run's first epochs, without a gap.

    Raises:
        ValueError: they are not.
    """
    for number, row in enumerate(rows, start=1):
        if not row.keys() >= COLUMNS or row["epoch"] != number or not math.isfinite(row["valid_nats"]):
            raise ValueError(f"row {number} of the log is not that of epoch {number}")
    return rows


def _text(rows: list[Row], titled: bool) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines)
    if titled:
        writer.writerow(rows[0])
    writer.writerows([f"{value:.6g}" for value in row.values()] for row in rows)
    return lines.getvalue()
