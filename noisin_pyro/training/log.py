"""The log of a run: a CSV file, a row an epoch."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from noisin_pyro.training.checkpoint import replacing

Row = dict[str, float]


def append(path: Path, row: Row) -> None:
    """Add a row, six digits a number; the first one writes the names of its columns above itself."""
    with path.open("a", newline="", encoding="utf-8") as file:
        file.write(_text([row], titled=file.tell() == 0))


def rewrite(path: Path, rows: list[Row]) -> None:
    """The log of these rows alone, whatever it was before."""
    if rows:
        with replacing(path) as file:
            file.write(_text(rows, titled=True).encode())
    else:
        path.unlink(missing_ok=True)


def read(path: Path) -> list[Row]:
    """All rows, a dictionary from column to number each."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _text(rows: list[Row], titled: bool) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines)
    if titled:
        writer.writerow(rows[0])
    writer.writerows([f"{value:.6g}" for value in row.values()] for row in rows)
    return lines.getvalue()
