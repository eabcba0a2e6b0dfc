"""Tables under ``results/`` are those of their records, and so are README's."""

from pathlib import Path

import pytest

from noisin_pyro.recipes import TABLES
from noisin_pyro.reproduction import read_records, table
from noisin_pyro.reproduction.report import text

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "results" / "reproduction"
RUN = [name for name in TABLES if read_records(FOLDER, name)]


@pytest.mark.parametrize("name", RUN)
def test_a_table_is_what_its_records_make(name: str) -> None:
    assert (FOLDER / f"{name}.md").read_text(encoding="utf-8") == text(read_records(FOLDER, name))


@pytest.mark.parametrize("name", RUN)
def test_readme_has_the_table(name: str) -> None:
    assert table(read_records(FOLDER, name)) in (ROOT / "README.md").read_text(encoding="utf-8")
