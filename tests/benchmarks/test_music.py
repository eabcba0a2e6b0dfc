"""The contestants on polyphonic music: equal budgets, rows that start from others, records, and the table."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from noisin_pyro.search.search_space import combinations
from noisin_pyro.training import StopTraining
from noisin_pyro.training.config import with_values

_STARTED = {"run.init_from": "start"}


@pytest.mark.parametrize("data", ["jsb", "nottingham", "piano-midi", "musedata"])
def test_all_contestants_have_equal_budgets(music_recipes: Any, data: str) -> None:
    rows = music_recipes.recipes(data)
    tuned = [recipe for row, recipe in rows.items() if row != music_recipes.DMM]
    assert len(tuned) == 18 and (len(rows) == 19) == (data == "jsb")
    assert {len(combinations(recipe.space) or []) for recipe in tuned} == {8}
    for recipe in tuned:
        assert {"optimization.learning_rate", "optimization.weight_decay"} <= recipe.space.keys()
        for values in combinations(recipe.space) or []:
            with_values(recipe.config, values if recipe.config.inference.guide == "prior" else _STARTED | values)
    common = {
        (r.config.data, r.config.optimization.epochs, r.config.optimization.patience, r.trial_epochs, r.trial_patience)
        for r in tuned
    }
    assert len(common) == 1
    assert all(recipe.config.optimization.minutes is None for recipe in tuned)
    starts = {row: start for row in rows if (start := music_recipes.start_of(row))}
    assert len(starts) == 6
    for row, start in starts.items():
        assert rows[start].config.inference.guide == rows[row].config.inference.guide
        assert rows[row].config.optimization.bound == ("elbo" if row.endswith("-further") else "filtering")
        control = rows[f"{start}-further"].space
        for option in ("optimization.learning_rate", "optimization.weight_decay"):
            assert rows[row].space[option] == control[option]


@pytest.mark.slow
def test_a_row_starts_from_the_guide_of_another_and_its_record_is_complete(
    music: Any, small: Any, tmp_path: Path
) -> None:
    def record(row: str, seed: int) -> Any:
        return json.loads((tmp_path / "jsb" / row / f"seed-{seed}.json").read_text())

    assert not small("mean-field-bound")  # the guide is not trained yet
    for row in ("tanh", "mean-field", "mean-field-bound", "mean-field-further"):
        assert small(row) and small(row)
    guides = [music.nz.load(tmp_path / "jsb" / row / "seed-11").guide for row in ("mean-field", "mean-field-bound")]
    for name, value in guides[0].state_dict().items():
        assert (guides[1].state_dict()[name] == value).all(), name
    further = record("mean-field-bound", 11)
    assert list(further["evaluations"]) == [
        "mean", "ensemble", "elbo", "importance", "particle-filter", "guided-particle-filter",
    ]  # fmt: skip
    assert all(math.isfinite(each["nats_per_step"]) for each in further["evaluations"].values())
    trials = json.loads((tmp_path / "jsb" / "mean-field-bound" / "search" / "search.json").read_text())["of_each_trial"]
    assert further["seconds"]["trials"] == sum(trial["seconds"] for trial in trials)
    assert further["parameters"]["guide"] > 0
    assert small("mean-field", seed=12)
    assert record("mean-field", 12)["chosen"] == record("mean-field", 11)["chosen"] != {}
    text = music.write_table(tmp_path / "jsb", music.recipes("jsb"))
    assert "scaled by 0.01" in text and text.count("\n| ") == 6


def test_a_row_stops_at_the_limit_and_resumes(small: Any, tmp_path: Path) -> None:
    def limit(rows: Any) -> None:
        if rows:
            raise StopTraining

    with pytest.raises(StopTraining):
        small("gaussian", limit=limit)
    assert not (tmp_path / "jsb" / "gaussian" / "seed-11.json").exists()
    assert small("gaussian")


def _record(row: str, seed: int, spreads: dict[str, float], **evaluations: dict[str, Any]) -> dict[str, Any]:
    return {
        "row": row, "method": f"the {row}", "seed": seed, "chosen": {"optimization.learning_rate": 0.001},
        "parameters": {"model": 1234}, "spreads": spreads, "epochs": 9, "best_epoch": 7, "scale": 1.0, "commit": "",
        "seconds": {"trials": 1800.0, "training": 900.0, "test": 3.0},
        "evaluations": {method.replace("_", "-"): number for method, number in evaluations.items()},
    }  # fmt: skip


def _number(kind: str, nats: float, error: float = 0.0) -> dict[str, Any]:
    errors = {"monte_carlo_error": error, "standard_error": 0.0625}
    return {"method": "", "kind": kind, "nats_per_step": nats, **errors, "num_samples": 10, "num_steps": 99}


def test_numbers_have_kinds_and_errors_and_the_best_of_a_column_is_bold(music: Any, tmp_path: Path) -> None:
    records = [
        _record("plain", 11, {}, mean=_number("exact", 8.5)),
        _record(
            "noisy", 11, {"gamma_1": 0.25}, mean=_number("predictor", 8.0), importance=_number("bound", 8.0, 0.003)
        ),
        _record(
            "noisy", 12, {"gamma_1": 0.5}, mean=_number("predictor", 8.25), importance=_number("bound", 9.0, 0.004)
        ),
        _record("other", 11, {}, importance=_number("bound", 7.5, 0.001), particle_filter=_number("estimate", 7, 0.12)),
    ]
    for record in records:
        (tmp_path / record["row"]).mkdir(exist_ok=True)
        (tmp_path / record["row"] / f"seed-{record['seed']}.json").write_text(json.dumps(record))
    text = music.write_table(tmp_path, ["plain", "noisy", "unfinished", "other"])
    assert (tmp_path / "table.md").read_text() == text
    heads, _, plain, noisy, other = (line for line in text.splitlines() if line.startswith("|"))
    assert "noise off (exact or predictor)" in heads and "importance (bound)" in heads and "ELBO" not in heads
    assert "| 8.500 ± 0.062 |" in plain and "| 0.75 |" in plain and "1,234" in plain
    assert "| **8.125** ± 0.062 [8.000, 8.250] |" in noisy and "| 0.25, 0.5 |" in noisy and "| 1.00 |" in noisy
    assert "| 8.500(2) ± 0.062 [8.000, 9.000] |" in noisy  # hypot(0.003, 0.004) / 2
    assert "| **7.500**(1) ± 0.062 |" in other and "| **7.000**(120) ± 0.062 |" in other
    assert text.endswith(
        "- estimated bias of the particle filter, if at least 0.02: the other 0.71\n"
    )  # 0.12² · 99 / 2
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["method"], float(row["nats_per_step"])) for row in rows] == [
        ("plain", "mean", 8.5), ("noisy", "mean", 8.0), ("noisy", "importance", 8.0), ("noisy", "mean", 8.25),
        ("noisy", "importance", 9.0), ("other", "importance", 7.5), ("other", "particle-filter", 7.0),
    ]  # fmt: skip
    assert min(imread(tmp_path / "table.png").shape[:2]) > 200


def test_hours_of_a_row_include_those_of_its_start_with_the_same_seeds(music: Any, tmp_path: Path) -> None:
    for row, seeds in (("mean-field", (11, 12)), ("mean-field-further", (11,))):
        (tmp_path / row).mkdir()
        for seed in seeds:
            record = _record(row, seed, {}, mean=_number("predictor", 8.0))
            (tmp_path / row / f"seed-{seed}.json").write_text(json.dumps(record))
    text = music.write_table(tmp_path, ["mean-field", "mean-field-further"])
    _, _, start, further = (line for line in text.splitlines() if line.startswith("|"))
    assert "| 1.00 |" in start and "| 1.50 (0.75) |" in further
    assert "bias of the particle filter" not in text
    assert "k̂" not in text.split("thread")[1]  # no evaluation has one
