"""README: its figures are those of the files that a command wrote."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SPEED = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")


def result(run: str) -> dict[str, Any]:
    return json.loads((ROOT / "results" / run / "result.json").read_text(encoding="utf-8"))


def test_readme_is_short() -> None:
    assert len(README.encode()) < 9000


def test_caption_of_the_figure_has_the_results() -> None:
    noisy, twin = (result(run)["test"]["perplexity"] for run in ("pydocs", "pydocs/deterministic"))
    assert f"{noisy:.1f} against {twin:.1f}" in " ".join(README.split())
    for row, words in (("none", "data: "), ("noise", "with noise ")):
        seeds = [*(ROOT / "results" / "reproduction" / "pydocs-claims" / row).glob("seed-*.json")]
        tuned = [json.loads(path.read_text(encoding="utf-8"))["test_perplexity"] for path in seeds]
        assert len(tuned) == 3
        assert f"{words}[{sum(tuned) / len(tuned):.1f}](results/reproduction/pydocs-claims.md)" in README


def test_cost_of_a_step_is_that_of_the_results() -> None:
    path = ROOT / "results" / "speed" / "cpu" / "table2-1layer.json"
    step = json.loads(path.read_text(encoding="utf-8"))["entries"]["ours"]
    for ratio in (step["ratio_to_noise_free"], step["ratio"]):
        shown = f"{ratio['median']:.2f} (95 % interval {ratio['low']:.2f} to {ratio['high']:.2f}) times"
        assert shown in " ".join(README.split())


@pytest.mark.parametrize("contestant", ["deterministic", "gaussian", "mean-field"])
def test_numbers_of_the_chorales_are_those_of_the_results(contestant: str) -> None:
    number = result(f"chorales/{contestant}")["evaluations"]["particle-filter"]["nats_per_step"]
    assert f"{number:.2f}" in README


@pytest.mark.parametrize(
    ("row", "method", "words"),
    [
        ("tanh", "particle-filter", "without noise scores"),
        ("gaussian", "particle-filter", "with Gaussian noise"),
        ("mean-field", "particle-filter", "with a mean-field guide"),
        ("smoothing", "guided-particle-filter", "with a smoothing guide, which is also the filter's proposal,"),
    ],
)
def test_numbers_of_the_tuned_networks_are_those_of_the_results(row: str, method: str, words: str) -> None:
    seeds = sorted((ROOT / "results" / "music" / "jsb" / row).glob("seed-*.json"))
    scores = [json.loads(seed.read_text(encoding="utf-8"))["evaluations"][method] for seed in seeds]
    mean = sum(score["nats_per_step"] for score in scores) / len(scores)
    assert f"{words} {mean:.2f}" in " ".join(README.split())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_bfloat16_changes_is_that_of_the_results(precision: str) -> None:
    numbers = result(f"matmul_precision/{precision}")
    for part in ("valid", "test"):
        assert f"{numbers[part]['perplexity']:.3f}" in SPEED
