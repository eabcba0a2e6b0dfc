"""README: its figures are those of the files that a command wrote."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def result(run: str) -> dict[str, Any]:
    return json.loads((ROOT / "results" / run / "result.json").read_text(encoding="utf-8"))


def test_caption_of_the_picture_is_that_of_the_results() -> None:
    for run in ("pydocs", "pydocs/deterministic"):
        assert f"{result(run)['test']['perplexity']:.1f}" in README


@pytest.mark.parametrize("products", ["float32", "bfloat16"])
def test_what_bfloat16_changes_is_that_of_the_results(products: str) -> None:
    numbers = result(f"products/{products}")
    for part in ("valid", "test"):
        assert f"{numbers[part]['perplexity']:.3f}" in README


@pytest.mark.parametrize("name", ["table2-1layer", "table2-2layers", "table3", "medium", "chorales"])
def test_what_a_step_costs_is_that_of_the_results(name: str) -> None:
    entries = json.loads((ROOT / "results" / "speed" / "cpu" / f"{name}.json").read_text(encoding="utf-8"))["entries"]
    names = ("ours", "ours-learned", "ours-multiplicative", "ours-bfloat16")
    ratios = [entries[who]["ratio"] if who in entries else None for who in names]
    texts = [f"{it['median']:.2f} ({it['low']:.2f} to {it['high']:.2f})" if it else "–" for it in ratios]
    cells = " | ".join(texts)
    assert f" | {cells} |" in README


@pytest.mark.parametrize("contestant", ["deterministic", "gaussian", "mean-field"])
def test_numbers_of_the_chorales_are_those_of_the_results(contestant: str) -> None:
    number = result(f"chorales/{contestant}")["evaluations"]["particle-filter"]["nats_per_step"]
    assert f"{number:.2f}" in README


def test_the_volatility_result_is_that_of_the_notebook() -> None:
    path = ROOT / "results" / "notebooks" / "4-posterior" / "volatility.json"
    worth, error = json.loads(path.read_text(encoding="utf-8"))["worth"]["100"]
    assert f"{worth:.3f} nats a day (standard error {error:.3f})" in " ".join(README.split())
