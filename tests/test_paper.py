"""The page that goes through the paper: everything it names exists."""

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`(noisin_pyro[\w.]*)`", PAGE)))
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))
ROWS = [line.strip("|").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("name", NAMES)
def test_code_that_the_page_names_exists(name: str) -> None:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            value = getattr(value, part)
        return
    raise AssertionError(name)


@pytest.mark.parametrize(("file", "test"), TESTS)
def test_tests_that_the_page_names_exist(file: str, test: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert test in functions if test else any(name.startswith("test_") for name in functions)


def test_every_row_has_a_verdict() -> None:
    assert len(ROWS) > 40
    for row in ROWS:
        assert len(row) == 5 and all(cell.strip() for cell in row), row
        if row[0].strip() not in ("paper", "---"):
            assert re.match(r" ?(implemented|holds|does not|open|works)", row[-1]), row
