"""Rows: run once, interrupted at the time limit, resumed to the same numbers, refused with other options."""

import dataclasses
import itertools
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from noisin_pyro.recurrence import matmul
from noisin_pyro.reproduction import (
    Record,
    ReproductionOptions,
    figure2,
    icml,
    read_records,
    reproduce,
    rows,
    table2,
    table3,
)
from noisin_pyro.reproduction.studies import noise_claims
from noisin_pyro.search import trial_runner
from noisin_pyro.search.result import Trial
from noisin_pyro.training import Config, Result, train
from noisin_pyro.training.rundir.metrics_log import read as read_log

from ..processes import run_or_fail

TIMES = ("seconds", "tokens_per_second")


def numbers(record: Record) -> dict[str, Any]:
    """A record without the fields that differ between runs."""
    content = dataclasses.asdict(record)
    del content["seconds"]
    content["log"] = [{key: value for key, value in row.items() if key not in TIMES} for row in record.log]
    return content


def test_a_row_keeps_its_configuration_log_and_results(tmp_path: Path, small: dict[str, Any]) -> None:
    assert reproduce([icml("icml-m", "beta")], tmp_path, ReproductionOptions(changes=small))
    (record,) = read_records(tmp_path, "icml-m")
    folder = tmp_path / "icml-m" / "beta" / "seed-11"
    result, config = (json.loads((folder / name).read_text()) for name in ("result.json", "config.json"))
    assert (record.paper_validation_perplexity, record.paper_test_perplexity) == (76.0, 71.4)
    assert record.test_perplexity == result["test"]["perplexity"]
    assert record.validation_perplexity == result["valid"]["perplexity"]
    assert record.ensemble_test_perplexity == result["test_ensemble"]["perplexity"]
    assert record.log == read_log(folder / "log.csv")
    assert record.config["optimization"] == config["optimization"]
    assert record.environment["versions"] == config["versions"]
    assert (record.seed, record.epochs) == (11, 3)
    assert record.spreads == pytest.approx(result["spreads"], rel=1e-5)  # a log has six digits


def test_what_is_chosen_on_validation_is_chosen_once_and_kept_for_every_seed(
    tmp_path: Path, small: dict[str, Any]
) -> None:
    recipe = table2("tanh", 1, "NOISIN")
    assert reproduce([recipe], tmp_path, ReproductionOptions(seeds=2, trials=2, trial_epochs=1, changes=small))
    one, two = read_records(tmp_path, "table2")
    assert one.chosen == two.chosen
    assert one.chosen.keys() == recipe.space.keys()
    assert (one.seed, two.seed) == (11, 12)
    assert one.test_perplexity != two.test_perplexity
    content = json.loads((tmp_path / "table2" / recipe.row / "search" / "search.json").read_text())
    best = min(content["of_each_trial"], key=lambda trial: trial["valid_perplexity"])
    assert len(content["of_each_trial"]) == 2
    assert one.chosen == best["values"]
    trial, row = (json.loads((tmp_path / "table2" / recipe.row / name / "config.json").read_text())
                  for name in (f"search/trial-{best['number']}", "seed-11"))  # fmt: skip
    assert (trial["run"]["seed"], row["run"]["seed"]) == (10, 11)
    assert trial["optimization"]["epochs"] == 1 and trial["optimization"]["patience"] is None
    assert not list((tmp_path / "table2" / recipe.row / "search").rglob("result.json"))  # no trial is tested


def test_candidates_with_several_seeds_are_chosen_by_their_mean(tmp_path: Path, small: dict[str, Any]) -> None:
    recipe = next(recipe for recipe in noise_claims() if recipe.row == "input")
    recipe = dataclasses.replace(recipe, space={"noise.input_spread": (0.25, 1.5)}, trial_seeds=(0, 1), trial_epochs=1)
    assert reproduce([recipe], tmp_path, ReproductionOptions(seeds=2, changes=small))
    made = read_records(tmp_path, recipe.table)
    assert [record.seed for record in made] == [3, 4]
    content = json.loads((tmp_path / recipe.table / recipe.row / "search" / "search.json").read_text())
    trials = content["of_each_trial"]
    assert sorted((trial["values"]["noise.input_spread"], trial["values"]["run.seed"]) for trial in trials) == [
        (0.25, 0), (0.25, 1), (1.5, 0), (1.5, 1),
    ]  # fmt: skip
    mean = {
        value: sum(trial["valid_nats"] for trial in trials if trial["values"]["noise.input_spread"] == value)
        for value in (0.25, 1.5)
    }
    assert made[0].chosen == made[1].chosen == {"noise.input_spread": min(mean, key=mean.__getitem__)}


def test_a_candidate_fails_if_it_fails_with_any_seed() -> None:
    def trial(number: int, spread: float, seed: int, state: str, nats: float | None) -> Trial:
        return Trial(number, {"noise.spread": spread, "run.seed": seed}, state, 1, nats, 1.0)

    trials = [trial(0, 0.3, 0, "complete", 1.0), trial(1, 0.3, 1, "failed", None), trial(2, 0.5, 0, "complete", 2.0),
              trial(3, 0.5, 1, "complete", 4.0)]  # fmt: skip
    failed, complete = rows.mean_over_seeds(trials)
    assert (failed.values, failed.state) == ({"noise.spread": 0.3}, "failed")
    assert (complete.values, complete.state, complete.valid_nats) == ({"noise.spread": 0.5}, "complete", 3.0)


@pytest.mark.slow
def test_out_of_time_the_same_command_resumes(
    tmp_path: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [table3("None"), table3("NOISIN")]
    assert reproduce(recipes, tmp_path / "whole", ReproductionOptions(changes=small))
    calls, looks = 1, itertools.count()
    monkeypatch.setattr(rows, "monotonic", lambda: float(next(looks)))  # each look at the clock takes a second
    while not reproduce(recipes, tmp_path / "parts", ReproductionOptions(minutes=4 / 60, changes=small)):
        calls += 1
        assert calls < 10
    assert calls > 2
    expected, actual = (read_records(tmp_path / name, "table3") for name in ("whole", "parts"))
    assert list(map(numbers, actual)) == list(map(numbers, expected))
    assert (tmp_path / "parts" / "table3.md").read_text() == (tmp_path / "whole" / "table3.md").read_text()


def test_what_has_been_run_is_not_run_again(tmp_path: Path, small: dict[str, Any]) -> None:
    options = ReproductionOptions(changes=small)
    assert reproduce([table3("None")], tmp_path, options)
    (before,) = read_records(tmp_path, "table3")
    assert reproduce([table3("None"), table3("NOISIN")], tmp_path, options)
    assert before in read_records(tmp_path, "table3")


def test_records_of_other_options_are_refused(tmp_path: Path, small: dict[str, Any]) -> None:
    reproduce([table3("None")], tmp_path, ReproductionOptions(changes=small))
    with pytest.raises(ValueError, match=r"other options: epochs 2 \(there: 3\); give the same ones, or another"):
        reproduce([table3("None")], tmp_path, ReproductionOptions(changes=small | {"optimization.epochs": 2}))


def test_a_row_begun_with_other_options_is_refused(
    tmp_path: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = itertools.count()
    with monkeypatch.context() as patch:
        patch.setattr(rows, "monotonic", lambda: float(next(looks)))
        begun = ReproductionOptions(minutes=2 / 60, changes=small)
        assert not reproduce([table3("None")], tmp_path, begun)
    assert (tmp_path / "table3" / "none" / "seed-11" / "last.pt").exists()
    with pytest.raises(ValueError, match=r"other options: hidden size 5 \(there: 4\)"):
        reproduce([table3("None")], tmp_path, ReproductionOptions(changes=small | {"model.hidden_size": 5}))
    assert reproduce([table3("None")], tmp_path, dataclasses.replace(begun, minutes=None))
    (record,) = read_records(tmp_path, "table3")
    assert record.config["model"]["hidden_size"] == 4


def test_a_precision_that_the_machine_lacks_is_refused_before_anything_is_written(
    tmp_path: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matmul, "has_bfloat16", lambda: False)
    options = ReproductionOptions(changes=small | {"model.matmul_precision": "bfloat16"})
    with pytest.raises(ValueError, match="needs a CPU with AVX-512 or AMX, or a GPU; use 'float32'"):
        reproduce([table3("None"), table3("NOISIN")], tmp_path, options)
    assert not list(tmp_path.iterdir())


def test_a_row_chosen_among_other_candidates_is_refused(tmp_path: Path, small: dict[str, Any]) -> None:
    recipe = table2("tanh", 1, "NOISIN")
    assert reproduce([recipe], tmp_path, ReproductionOptions(seeds=1, trials=2, trial_epochs=1, changes=small))
    message = r"other options: trials 8 \(there: 2\), trial epochs 10 \(there: 1\)"
    with pytest.raises(ValueError, match=message):
        reproduce([recipe], tmp_path, ReproductionOptions(changes=small))


@pytest.mark.slow
def test_more_seeds_need_the_first_ones_record_alone(tmp_path: Path, small: dict[str, Any]) -> None:
    recipe, options = table2("tanh", 1, "NOISIN"), ReproductionOptions(seeds=1, trials=2, trial_epochs=1, changes=small)
    assert reproduce([recipe], tmp_path, options)
    where = tmp_path / "table2" / recipe.row
    shutil.rmtree(where / "search")
    assert reproduce([recipe], tmp_path, dataclasses.replace(options, seeds=2))
    first, second = read_records(tmp_path, "table2")
    assert second.chosen == first.chosen and not (where / "search").exists()


def test_a_row_that_diverges_is_reported_and_the_others_run(
    tmp_path: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def diverges(config: Config, **other: Any) -> Result:
        if config.noise.spread == 0:
            raise FloatingPointError("not finite")
        return train(config, **other)

    monkeypatch.setattr(rows, "train", diverges)
    assert not reproduce([table3("None"), table3("NOISIN")], tmp_path, ReproductionOptions(changes=small))
    assert [record.row for record in read_records(tmp_path, "table3")] == ["noisin"]
    assert "table3, none, seed 11: not finite; no record is written" in caplog.messages


def test_a_row_whose_candidates_all_diverge_is_reported_and_the_others_run(
    tmp_path: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def diverges(config: Config, *other: Any) -> Result:
        if config.run.resume is None and config.noise.spread > 0:
            raise FloatingPointError("not finite")
        return train(config, *other)

    monkeypatch.setattr(trial_runner, "train", diverges)
    recipes = [table2("tanh", 1, "NOISIN"), table2("tanh", 1, "Dropout")]
    assert not reproduce(recipes, tmp_path, ReproductionOptions(seeds=1, trials=2, trial_epochs=1, changes=small))
    assert [record.method for record in read_records(tmp_path, "table2")] == ["Dropout"]
    assert "tanh-1-noisin, seed 11: no trial succeeded; the first: not finite; no record" in caplog.text


@pytest.mark.slow
def test_a_finished_row_is_lengthened_to_the_numbers_of_one_that_was_asked_at_once(
    tmp_path: Path, small: dict[str, Any]
) -> None:
    longer = small | {"optimization.epochs": 4}
    assert reproduce([table3("NOISIN")], tmp_path / "parts", ReproductionOptions(changes=small))
    assert reproduce([table3("NOISIN")], tmp_path / "parts", ReproductionOptions(changes=longer))
    assert reproduce([table3("NOISIN")], tmp_path / "whole", ReproductionOptions(changes=longer))
    expected, actual = (read_records(tmp_path / name, "table3") for name in ("whole", "parts"))
    assert actual[0].epochs == 4
    assert list(map(numbers, actual)) == list(map(numbers, expected))


@pytest.mark.slow
def test_a_run_that_another_table_has_is_not_run_again(tmp_path: Path, small: dict[str, Any]) -> None:
    options = ReproductionOptions(seeds=1, trial_epochs=1, changes=small)
    assert reproduce([table2("sigmoid", 1, "NOISIN")], tmp_path, options)
    (of_table,) = read_records(tmp_path, "table2")
    assert reproduce([figure2("NOISIN")], tmp_path, options)
    (of_figure,) = read_records(tmp_path, "figure2")
    assert not (tmp_path / "figure2" / "noisin" / "seed-11").exists()
    assert numbers(of_figure) == numbers(of_table) | {"table": "figure2", "row": "noisin"} | {
        name: getattr(of_figure, name) for name in ("source", "unspecified", "paper_test_perplexity")
    }


def _trial(number: int, nats: float | None, **values: float) -> Trial:
    state = "failed" if nats is None else "complete"
    return Trial(number, {name.replace("__", "."): value for name, value in values.items()}, state, 1, nats, 1.0)


LADDER = {"a__x": (1, 2, 3, 4, 5), "b__y": (10, 20, 40, 80)}


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        # interior in both
        ([(5.0, 2, 20), (4.0, 3, 20), (5.0, 4, 20), (6.0, 3, 10), (6.0, 3, 40)], None),
        # at the upper edge of x: the next x, the best y
        ([(5.0, 2, 20), (4.0, 3, 40)], (4, 40)),
        # at the lower edge of x
        ([(4.0, 2, 20), (5.0, 3, 20)], (1, 20)),
        # beyond x has been tried and is worse: y's turn
        ([(5.0, 2, 20), (4.0, 3, 40), (4.5, 4, 40)], (3, 80)),
        # a trial that diverged beyond the edge counts as tried
        ([(5.0, 2, 20), (4.0, 3, 40), (None, 4, 40), (4.5, 3, 80)], None),
        # the ladders end
        ([(5.0, 4, 40), (4.0, 5, 80)], None),
    ],
)
def test_while_the_best_is_at_an_edge_the_next_value_beyond_is_tried(
    trials: list[tuple[float | None, int, int]], expected: tuple[int, int] | None
) -> None:
    ladder = {name.replace("__", "."): steps for name, steps in LADDER.items()}
    done = [_trial(number, nats, a__x=x, b__y=y) for number, (nats, x, y) in enumerate(trials)]
    actual = rows.next_on_ladder(done, ladder)
    assert actual == (None if expected is None else {"a.x": expected[0], "b.y": expected[1]})


def test_trials_beyond_the_grid_are_run_and_may_be_chosen(tmp_path: Path, small: dict[str, Any]) -> None:
    recipe = dataclasses.replace(
        table2("tanh", 1, "Dropout"), space={"model.dropout": (0.1, 0.2)},
        ladder={"model.dropout": (0.01, 0.1, 0.2, 0.4)}, further_trials=2, trial_epochs=2, seeds=1,
    )  # fmt: skip
    assert reproduce([recipe], tmp_path, ReproductionOptions(changes=small))
    (record,) = read_records(tmp_path, "table2")
    where = tmp_path / "table2" / recipe.row
    actual = [
        trial for path in sorted(where.glob("*/search.json")) for trial in json.loads(path.read_text())["of_each_trial"]
    ]
    assert len(actual) > 2  # of two values each is at an edge
    assert record.chosen == min(actual, key=lambda trial: trial["valid_nats"])["values"]


def test_without_rows_nothing_is_written(tmp_path: Path) -> None:
    assert reproduce([], tmp_path, ReproductionOptions()) and not list(tmp_path.iterdir())


def test_killed_while_it_wrote_its_configuration_a_row_is_restarted(tmp_path: Path, small: dict[str, Any]) -> None:
    where = tmp_path / "table3" / "none" / "seed-11"
    where.mkdir(parents=True)
    (where / ".config.json.1.part").write_text('{"da')
    assert reproduce([table3("None")], tmp_path, ReproductionOptions(changes=small))


def test_a_damaged_record_is_refused(tmp_path: Path, small: dict[str, Any]) -> None:
    reproduce([table3("None")], tmp_path, ReproductionOptions(changes=small))
    path = tmp_path / "table3" / "none" / "seed-11.json"
    path.write_text(path.read_text()[:-50])
    with pytest.raises(ValueError, match="damaged"):
        reproduce([table3("None")], tmp_path, ReproductionOptions(changes=small))


KILLS = 6


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments_the_same_command_gives_the_same_table(tmp_path: Path, text: Path) -> None:
    options = f"table2 --rows tanh-1-none tanh-1-noisin --trials 2 --trial-epochs 1 --data {text}"
    sizes = "--hidden-size 4 --epochs 3 --seeds 2 --matmul-precision float32"
    program = str(Path(__file__).with_name("killed.py"))
    done = run_or_fail([sys.executable, program, str(tmp_path), str(KILLS), *options.split(), *sizes.split()])
    assert done.returncode == 0, done.stderr + "".join(path.read_text() for path in tmp_path.glob("*.err"))
    whole, *broken = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    expected = read_records(whole, "table2")
    assert len(expected) == 4 and broken
    for folder in broken:
        assert list(map(numbers, read_records(folder, "table2"))) == list(map(numbers, expected))
        assert (folder / "table2.md").read_text() == (whole / "table2.md").read_text()
