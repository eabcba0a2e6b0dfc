"""Recipes: every row of the papers' tables, with what they state."""

import dataclasses
import math
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from noisin_pyro import noise
from noisin_pyro.reproduction import Recipe, figure2, icml, table2, table3
from noisin_pyro.reproduction.icml_recipes import ICML
from noisin_pyro.reproduction.recipe import FIRST_SEED, SEARCH_SEED
from noisin_pyro.reproduction.recipes import TABLES
from noisin_pyro.reproduction.studies import BASELINES, CLAIMS, FAMILIES, NOISES
from noisin_pyro.search.search_space import combinations
from noisin_pyro.training import Config
from noisin_pyro.training.build import build_model, dataset, load_corpus
from noisin_pyro.training.config import with_values

ALL = [recipe for make in TABLES.values() for recipe in make()]


def test_every_row_is_there_once() -> None:
    assert {table: len(make()) for table, make in TABLES.items()} == {
        "table2": 26, "table3": 2, "figure2": 2, "zaremba": 1, "icml-m": 18, "icml-l": 6,
        "icml-wikitext-m": 4, "icml-wikitext-l": 4, "pydocs-noises": 26, "pydocs-claims": 8,
    }  # fmt: skip
    assert len({(recipe.table, recipe.row) for recipe in ALL}) == len(ALL)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.slow
def test_methods_of_a_group_differ_in_the_method_alone(table: str) -> None:
    for recipe in TABLES[table]():
        other = next(other for other in TABLES[table]() if other.group == recipe.group)
        one, same = (each.config.deterministic_twin(Path("twin")) for each in (recipe, other))
        assert dataclasses.replace(one, noise=same.noise) == same


def test_every_method_of_a_block_has_as_many_candidates() -> None:
    blocks: dict[str, set[tuple[int, int, int, int]]] = {}
    for recipe in TABLES["table2"]():
        allowance = recipe.further_trials, recipe.trial_epochs, recipe.seeds
        if not recipe.method.endswith("additive"):
            blocks.setdefault(recipe.group, set()).add((len(combinations(recipe.space) or []), *allowance))
    first = {"tanh, 1 layer": {(8, 4, 10, 4)}}
    others = {
        group: {(2, 0, 12 if "sigmoid" in group else 10, 1)}
        for group in ("tanh, 2 layers", "sigmoid, 1 layer", "sigmoid, 2 layers", "relu, 1 layer", "relu, 2 layers")
    }
    assert blocks == first | others


def test_ladders_go_on_from_the_candidates() -> None:
    ladders = 0
    for recipe in TABLES["table2"]():
        for name, ladder in recipe.ladder.items():
            places = [ladder.index(value) for value in recipe.space[name]]
            assert places == sorted(places) and places[0] > 0 and places[-1] < len(ladder) - 1
            ladders += 1
    assert ladders == 9  # batch size of four methods, strength of five


@pytest.mark.parametrize("table", [NOISES, CLAIMS])
def test_every_method_of_a_study_has_as_many_runs(table: str) -> None:
    recipes = TABLES[table]()
    assert {(len(combinations(recipe.trial_space) or []), recipe.trial_epochs, recipe.seeds) for recipe in recipes} == {
        (4 * 3, 14, 3)
    }
    assert all(
        set(recipe.trial_seeds) & set(range(recipe.first_seed, recipe.first_seed + 3)) == set() for recipe in recipes
    )
    assert {each for recipe in recipes for each in BASELINES[table]} <= {recipe.method for recipe in recipes}
    assert set(FAMILIES) == set(noise.families())


def test_no_seed_of_version_0_1_is_used() -> None:
    assert SEARCH_SEED not in range(FIRST_SEED, FIRST_SEED + 10) and min(SEARCH_SEED, FIRST_SEED) > 2


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: f"{recipe.table}-{recipe.row}")
def test_every_candidate_is_a_run_that_can_be_configured(recipe: Recipe) -> None:
    for values in combinations(recipe.trial_space) or []:
        assert isinstance(with_values(recipe.config, values), Config)


def test_gammas_of_the_published_paper_are_standard_deviations_here() -> None:
    spreads = {
        method: icml("icml-m", method).config.noise.spread for method in ("gaussian", "bernoulli", "beta", "D + chi2")
    }
    assert spreads == pytest.approx({
        "gaussian": 1.10, "bernoulli": math.sqrt(0.59 / 0.41), "beta": math.sqrt(1.07), "D + chi2": math.sqrt(0.29),
    })  # fmt: skip


@pytest.mark.skipif(not os.environ.get("NOISIN_DATA"), reason="NOISIN_DATA is not set: no real files")
def test_parameters_of_the_medium_model_are_the_published_papers() -> None:
    recipe = icml("icml-m", "none")
    corpus = load_corpus(recipe.config.data)
    assert sum(1 for _ in dataset(corpus.train, recipe.config.data, "cpu").batches()) == ICML["icml-m"].steps
    model = build_model(recipe.config, corpus)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(13e6, rel=0.03)


def test_a_row_that_the_paper_lacks_is_refused() -> None:
    for row, message in (
        (lambda: icml("icml-m", "poisson"), "method"),
        (lambda: icml("icml-xl", "none"), "table"),
        (lambda: table2("lstm", 1, "None"), "cell"),  # type: ignore[arg-type]
        (lambda: table2("tanh", 3, "None"), "layers"),
        (lambda: table3("Dropout"), "method"),  # type: ignore[arg-type]
        (lambda: figure2("noise"), "method"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=message):
            row()


def test_papers_settings() -> None:
    adam = table2("tanh", 1, "NOISIN*").config
    assert (adam.optimization.optimizer, adam.optimization.learning_rate, adam.noise.learn_spread) == (
        "Adam", 0.001, True,
    )  # fmt: skip
    assert adam.optimization.schedule == "fixed"
    sgd = table3("NOISIN").config
    assert (sgd.optimization.schedule, sgd.data.batch_size, sgd.noise.spread_floor) == ("halve", 32, 0.1)
    averaged = icml("icml-m", "none").config
    for config, units in ((sgd, 200), (averaged, 650)):
        assert (config.model.cell, config.model.num_layers, config.model.hidden_size) == ("lstm", 2, units)
    assert (averaged.optimization.optimizer, averaged.optimization.learning_rate, averaged.optimization.clip) == (
        "ASGD", 30.0, 0.25,
    )  # fmt: skip
    assert (averaged.optimization.schedule, averaged.data.batch_size) == ("divide", 80)
    assert averaged.optimization.epochs == 200


def test_a_step_of_table_3_is_zarembas_of_the_loss_summed_over_a_window() -> None:
    config = table3("None").config
    assert config.data.window is not None
    weight, (inputs, targets) = torch.ones(3, requires_grad=True), torch.randn(2, 4, config.data.window)

    def step(loss: Tensor, rate: float, clip: float | None) -> Tensor:
        (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True)
        assert clip is not None
        return rate * gradient * min(1.0, clip / float(gradient.norm()))

    for scale in (0.01, 100.0):  # far below the largest norm, and far above
        errors = scale * (weight.sum() * inputs - targets) ** 2  # of a batch by steps
        ours = step(errors.mean(), config.optimization.learning_rate, config.optimization.clip)
        torch.testing.assert_close(ours, step(errors.mean(0).sum(), 1.0, 5.0))
