"""The table: means and ranges over seeds, and the paper's ranking of methods against ours."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from noisin_pyro.reproduction import Recipe, Record, claims, figure2, table, table2
from noisin_pyro.reproduction.records import options
from noisin_pyro.reproduction.report import body, dots, figure, order, rows, text
from noisin_pyro.reproduction.studies import noise_families
from noisin_pyro.search.search_space import with_values

NONE = table2("tanh", 1, "None")  # the paper: 141.4
NOISIN = table2("tanh", 1, "NOISIN")  # 131.9
DROPOUT = table2("tanh", 1, "Dropout")  # 138.3


def record(recipe: Recipe, test: float, seed: int = 0, ensemble: float | None = None, **other: Any) -> Record:
    rows = [{"epoch": epoch, "valid_perplexity": 200.0 / epoch, "train_perplexity": 190.0 / epoch} for epoch in (1, 2)]
    values: dict[str, Any] = {
        "unspecified": [], "paper_test_perplexity": recipe.paper_test, "paper_validation_perplexity": None,
        "test_perplexity": test, "validation_perplexity": test + 5, "ensemble_test_perplexity": ensemble,
        "seed": seed, "epochs": 7, "best_epoch": 4, "seconds": 1.0, "spreads": {}, "chosen": {},
        "config": options(recipe.config),
        "log": rows, "environment": {},
    }  # fmt: skip
    names = ("table", "row", "method", "group", "source")
    return Record(**{name: getattr(recipe, name) for name in names}, **(values | other))


def test_a_line_has_the_papers_number_and_the_mean_and_range_over_seeds() -> None:
    made = [record(NOISIN, 130.0, 0, 128.0, spreads={"gamma_1": 0.6}), record(NOISIN, 133.0, 1, 129.0,
             spreads={"gamma_1": 0.6})]  # fmt: skip
    line = table(made).splitlines()[2]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:6] == [
        "tanh-1-noisin", "131.9", "131.5 (130.0 to 133.0)", "128.5 (128.0 to 129.0)", "136.5 (135.0 to 138.0)", "0.60",
    ]  # fmt: skip
    assert cells[-1] == "2"


def test_rows_come_in_the_tables_order_whatever_the_records() -> None:
    made = [record(recipe, 140.0) for recipe in (NOISIN, NONE, DROPOUT)]
    assert [row.first.method for row in rows(made)] == ["None", "Dropout", "NOISIN"]


def test_claims_are_the_papers_order_of_every_pair() -> None:
    made = [record(NONE, 140.0), record(NOISIN, 135.0), record(DROPOUT, 141.0)]
    results = {(claim.better.method, claim.worse.method): (claim.verdict, claim.difference) for claim in claims(made)}
    assert results == {
        ("NOISIN", "None"): ("ahead", 5.0),
        ("Dropout", "None"): ("behind", -1.0),
        ("NOISIN", "Dropout"): ("ahead", 6.0),
    }


def test_two_methods_are_tied_where_the_ranges_of_seeds_overlap() -> None:
    made = [record(NONE, 140.0), record(NONE, 142.0, 1), record(NOISIN, 141.0), record(NOISIN, 138.0, 1)]
    (claim,) = claims(made)
    assert claim.verdict == "tie"
    assert claim.difference == pytest.approx(1.5)
    assert "| tie: +1.5 |" in order(made)


@pytest.mark.parametrize(("error", "verdict"), [(0.0, "better"), (0.5, "better"), (0.8, "tie")])
def test_one_method_is_better_only_beyond_the_monte_carlo_error(error: float, verdict: str) -> None:
    """The two ensembles that are nearest lie 1.0 apart; errors of 0.8 each are 1.13 together."""
    made = [
        record(recipe, 150.0, seed, ensemble, ensemble_monte_carlo_error=error)
        for recipe, ensembles in ((DROPOUT, (141.0, 142.0)), (NOISIN, (140.0, 139.0)))
        for seed, ensemble in enumerate(ensembles)
    ]
    (claim,) = claims(made, "ensemble_test_perplexity")
    assert claim.verdict == verdict
    assert claims(made)[0].verdict == "tie"  # noise off, the numbers are equal


def test_a_method_that_is_worse_with_every_seed_is_worse() -> None:
    made = [record(NONE, 140.0), record(NONE, 141.0, 1), record(NOISIN, 141.5), record(NOISIN, 143.0, 1)]
    assert claims(made)[0].verdict == "worse"


def test_a_table_states_in_how_many_columns_texts_were_read() -> None:
    assert "Held-out texts are read in 10 columns." in text([record(NONE, 140.0)])
    config = options(NONE.config)
    del config["data"]["eval_batch_size"]  # as in version 0.1
    old = [record(NONE, 140.0, config=config), record(NONE, 141.0, 1, config={**config, "data": {"batch_size": 80}})]
    assert [each.columns for each in old] == [40, 80]
    assert "in as many columns as a row's batches in training have" in body(old)


def test_without_an_ensemble_its_cell_is_empty() -> None:
    made = [record(NONE, 140.0), record(NOISIN, 135.0)]
    assert order(made).splitlines()[2].split(" | ")[-2:] == ["ahead: +5.0", "– |"]


def test_a_row_without_noise_is_compared_with_ensembles_by_its_only_number() -> None:
    (claim,) = claims([record(NONE, 140.0), record(NOISIN, 141.0, ensemble=139.0)], "ensemble_test_perplexity")
    assert claim.verdict == "ahead"
    assert claim.difference == pytest.approx(1.0)


def test_rows_of_other_groups_are_not_compared() -> None:
    assert claims([record(NONE, 140.0), record(table2("relu", 1, "NOISIN"), 150.0)]) == []


def test_figure_2_shows_every_row(tmp_path: Path) -> None:
    made = [record(figure2("None"), 150.0), record(figure2("NOISIN"), 140.0, spreads={"gamma_1": 0.3})]
    labels = [line.get_label() for line in figure(made).axes[0].lines]
    assert labels == ["None", "NOISIN, γ = 0.3"]
    assert "order" not in text(made)  # the paper gives no numbers


def test_a_table_names_the_options_that_differ_from_its_recipes() -> None:
    there = {"data.name": "there/pydocs", "model.hidden_size": 8, "data.batch_size": 20}
    other = dataclasses.replace(NONE, config=with_values(NONE.config, there))
    assert "other than" not in text([record(NONE, 140.0)])
    report = text([record(other, 140.0, chosen={"data.batch_size": 20}), record(NOISIN, 140.0)])
    assert "\n\nOptions other than the recipes': data pydocs, hidden size 8.\n\n" in report


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    from noisin_pyro.reproduction import records

    made = record(NONE, 140.0)
    records.write(tmp_path / "seed-0.json", made)
    assert dataclasses.asdict(records.read(tmp_path / "seed-0.json")) == dataclasses.asdict(made)


def test_a_study_is_compared_with_its_baselines() -> None:
    recipes = {recipe.row: recipe for recipe in noise_families()}
    made = [
        record(recipes[row], value + seed / 10, seed)
        for row, value in (("none", 50.0), ("dropout", 48.0), ("gamma-additive", 40.0))
        for seed in range(3)
    ]
    report = text(made)
    assert "corrected for 2 comparisons" in report
    assert "| gamma, additive | None |" in report and "| gamma, additive | Dropout |" in report
    assert {line.get_label() for line in dots(made).axes[0].lines} >= {"None", "Dropout"}
    assert "corrected" not in text(made[:1])  # one seed
