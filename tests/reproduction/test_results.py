"""Tables under ``results/`` are those of their records, and so are the numbers in the docs."""

import json
from pathlib import Path

import pytest

from noisin_pyro.reproduction import read_records
from noisin_pyro.reproduction.recipes import TABLES
from noisin_pyro.reproduction.report import text

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "results" / "reproduction"
EARLIER = ROOT / "results" / "reproduction-0.1"


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_what_its_records_make(name: str) -> None:
    records, path = read_records(FOLDER, name), FOLDER / f"{name}.md"
    assert path.exists() == bool(records)
    assert not records or path.read_text(encoding="utf-8") == text(records)


def test_the_history_has_the_numbers_of_the_records() -> None:
    def of(path: str, number: str = "test") -> str:
        return f"{json.loads((ROOT / 'results' / path / 'result.json').read_text())[number]['perplexity']:.1f}"

    rows = "reproduction-0.1/table2/tanh-1"
    page = " ".join((ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8").split())
    additive, none = "ptb/additive-0.3", "ptb/none"
    first, dropout = f"{rows}-noisin/search/trial-0", f"{rows}-dropout/search/trial-0"
    for sentence in (
        f"with the noise off {of(additive)} against {of(none)} without noise, as an ensemble "
        f"{of(additive, 'test_ensemble')}",
        f"with γ 0.3 scored {of(first)} on test, as an ensemble {of(first, 'test_ensemble')}; dropout scored "
        f"{of(dropout)} and {of(dropout, 'test_ensemble')}; none {of(f'{rows}-none/search/trial-1')}",
        f"its test perplexity ({of(f'{rows}-noisin/search/trial-1')}) was read",
        f"with the floor 0.1 it scored {of(f'{rows}-noisin-learned/search/trial-0')} on test",
        f"({of('reproduction-0.1/figure2/noisin/search/trial-0')} against "
        f"{of('reproduction-0.1/figure2/none/search/trial-0')})",
    ):
        assert sentence in page
