"""The log of a run: a CSV file, a row an epoch."""

from __future__ import annotations

import csv
from pathlib import Path

Row = dict[str, float]


def append(path: Path, row: Row) -> None:
    """Add a row, six digits a number; the first one writes the names of its columns above itself."""
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(row)
        writer.writerow(f"{value:.6g}" for value in row.values())


def read(path: Path) -> list[Row]:
    """All rows, a dictionary from column to number each."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
