"""Recipes of two studies on the built-in text: which noise, and the paper's claims that have no table."""

from __future__ import annotations

import dataclasses
from typing import Any

from noisin_pyro.reproduction.recipe import DRAFT, Candidates, Recipe
from noisin_pyro.training import Config, Data, Model, Noise, Optimization, Run

NOISES, CLAIMS = "pydocs-noises", "pydocs-claims"

BASELINES = {NOISES: ("None", "Dropout"), CLAIMS: ("None", "Noise")}
"""The methods of each study that every other method is compared with."""

FAMILIES = (
    "gaussian", "laplace", "logistic", "gumbel", "gamma", "exponential", "chi2", "beta", "bernoulli", "poisson",
    "categorical", "dirichlet",
)  # fmt: skip
_GAMMAS = {"additive": (0.1, 0.2, 0.4, 0.8), "multiplicative": (0.25, 0.5, 1.0, 1.5)}
_NONE: Candidates = {"data.batch_size": (20, 40), "model.initialization": ("torch", "published")}


def noise_families() -> list[Recipe]:
    """The draft's closing question, which noise is the right one: every family, additive and multiplicative.

    Each row has four candidates (γ, the rate of dropout, or batch size and initialization without noise), each trained
    with seeds 0, 1 and 2, and is tested with seeds 3, 4 and 5.
    """
    noisy = [
        _recipe(
            NOISES, f"{family}-{form}", f"{family}, {form}", {"noise.spread": gammas}, Noise(noise=f"{family}:{form}")
        )
        for form, gammas in _GAMMAS.items()
        for family in FAMILIES
    ]
    dropout = {"model.dropout": (0.05, 0.1, 0.2, 0.4)}
    return [
        _recipe(NOISES, "none", "None", _NONE),
        _recipe(NOISES, "dropout", "Dropout", dropout, regularizer="variational-dropout"),
        *noisy,
    ]


def noise_claims() -> list[Recipe]:
    """Claims of the draft that it shows no numbers for, with multiplicative Gaussian noise; seeds as above."""
    gamma, gammas = Noise(noise="gaussian:multiplicative"), _GAMMAS["multiplicative"]
    inputs = dataclasses.replace(gamma, spread=0.0)
    learned = dataclasses.replace(gamma, spread=0.9, learn_spread=True)
    output = dataclasses.replace(gamma, feedback=False)
    spreads: Candidates = {"noise.spread": gammas}
    return [
        _recipe(CLAIMS, "none", "None", _NONE),
        _recipe(CLAIMS, "noise", "Noise", spreads, gamma),
        _recipe(CLAIMS, "input", "Noise on the inputs", {"noise.input_spread": gammas}, inputs),
        _recipe(CLAIMS, "output", "Noise on the output", spreads, output),
        _recipe(CLAIMS, "weights", "Weights with a prior", _NONE, weight_prior="normal"),
        _recipe(CLAIMS, "weights-noise", "Weights with a prior, noise", spreads, gamma, weight_prior="normal"),
        _recipe(CLAIMS, "floor", "γ learned above a floor", {"noise.spread_floor": (0.1, 0.3, 0.5, 0.7)}, learned),
        _recipe(
            CLAIMS,
            "no-floor",
            "γ learned, early stopping",
            {"noise.spread": (0.3, 0.5, 0.9, 1.4)},
            dataclasses.replace(learned, spread_floor=0.0),
        ),
    ]


def _recipe(table: str, row: str, method: str, space: Candidates, noise: Noise | None = None, **model: Any) -> Recipe:
    """A row with the settings of ``noisin train``: one tanh layer of 256 units, Adam at 0.001, at most 14 epochs."""
    return Recipe(
        table=table,
        row=row,
        method=method,
        group="tanh, 1 layer",
        source=f"{DRAFT}, section {'5' if table == NOISES else '3'}",
        unspecified=("everything: the settings of the command without options",),
        config=Config(
            data=Data(name="pydocs", eval_batch_size=10),
            model=Model(**model),
            noise=noise or Noise(spread=0.0),
            optimization=Optimization(epochs=14, patience=5),
            run=Run(twin=False),
        ),
        space=space,
        trial_epochs=14,
        trial_seeds=(0, 1, 2),
        seeds=3,
        first_seed=3,
    )
