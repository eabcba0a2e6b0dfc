"""The table of the chorales shows the numbers of the folders and marks the best."""

import csv
import json
from pathlib import Path
from typing import Any

from matplotlib.image import imread


def _number(kind: str, nats: float, error: float = 0.0) -> dict[str, Any]:
    errors = {"monte_carlo_error": error, "standard_error": 0.0625}
    return {"kind": kind, "nats_per_step": nats, **errors, "num_samples": 10, "num_steps": 99}


def _contestant(root: Path, name: str, spreads: dict[str, float], **evaluations: dict[str, Any]) -> None:
    (root / name).mkdir()
    run = {"epochs": 9, "best_epoch": 7, "minutes": 1.5, "seed": 3, "command": f"run {name}", "spreads": spreads}
    numbers = {method.replace("_", "-"): number for method, number in evaluations.items()}
    (root / name / "config.json").write_text("{}")
    (root / name / "result.json").write_text(json.dumps(run | {"evaluations": numbers}))


def test_numbers_have_kinds_and_errors_and_the_best_of_a_column_is_bold(chorales_table: Any, tmp_path: Path) -> None:
    _contestant(tmp_path, "plain", {}, mean=_number("exact", 8.5))
    _contestant(
        tmp_path, "noisy", {"gamma_1": 0.25}, mean=_number("predictor", 8.25), importance=_number("bound", 8.125, 0.002)
    )
    _contestant(tmp_path, "other", {}, importance=_number("bound", 7.5, 0.001), particle_filter=_number("estimate", 7))
    (tmp_path / "unfinished").mkdir()
    for name in ("config.json", "result.json"):
        (tmp_path / "unfinished" / name).write_text('{"name": "noisy"}')

    assert chorales_table.write_table(tmp_path, ["plain", "noisy", "unfinished", "other"]) == [
        "plain",
        "noisy",
        "other",
    ]

    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["contestant"], row["method"], row["kind"], float(row["nats_per_step"])) for row in rows] == [
        ("plain", "mean", "exact", 8.5),
        ("noisy", "mean", "predictor", 8.25),
        ("noisy", "importance", "bound", 8.125),
        ("other", "importance", "bound", 7.5),
        ("other", "particle-filter", "estimate", 7.0),
    ]
    text = (tmp_path / "table.md").read_text()
    heads, _, plain, noisy, other = (line for line in text.splitlines() if line.startswith("|"))
    assert "noise off (exact or predictor)" in heads and "importance (bound)" in heads
    assert "| 8.500 ± 0.062 |" in plain and "0.25" in noisy
    assert "| **8.250** ± 0.062 |" in noisy and "| 8.125(2) ± 0.062 |" in noisy
    assert "| **7.500**(1) ± 0.062 |" in other and "| **7.000** ± 0.062 |" in other
    assert "- importance, best first: other 7.500, noisy 8.125" in text and "    run plain" in text
    assert min(imread(tmp_path / "table.png").shape[:2]) > 200


def test_contestants_whose_best_epoch_is_within_annealing_are_named(chorales_table: Any, tmp_path: Path) -> None:
    for name, config in (
        ("early", {"settings": {"annealing_epochs": 8}}),
        ("late", {"inference": {"kl_annealing": 7}}),
        ("none", {"inference": {"kl_annealing": None}}),
    ):
        _contestant(tmp_path, name, {}, elbo=_number("bound", 8.5, 0.001))
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    chorales_table.write_table(tmp_path, ["early", "late", "none"])
    (line,) = (line for line in (tmp_path / "table.md").read_text().splitlines() if "annealing" in line)
    assert line.startswith("- early: its KL annealing takes 8 epochs") and "epoch 7" in line
