"""The contestants on polyphonic music, as recipes. ``docs/music.md`` describes the protocol."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from noisin_pyro.reproduction.recipe import Candidates, Recipe
from noisin_pyro.training import Config, Data, Inference, Model, Noise, Optimization, Run

FURTHER = {"-bound": "filtering", "-further": "elbo"}
"""Rows that start from the network and the guide of another row: the suffix and the bound by which they are trained.
Those of the ELBO are controls, with the same start, learning rates, weight decays and number of trials."""

DMM = "dmm"
"""The row of Pyro's Deep Markov Model, which has settings and a program of its own (``dmm.py``)."""

PARTICLES = 8


class Budget(NamedTuple):
    """Limits of trials and of final runs in epochs, the same for all contestants, and the longer KL annealing."""

    trial_epochs: int
    trial_patience: int
    epochs: int
    patience: int
    annealing: int


BUDGETS = {
    "jsb": Budget(400, 30, 2000, 100, 300),
    "nottingham": Budget(40, 6, 200, 20, 30),
    "piano-midi": Budget(80, 10, 400, 30, 60),
    "musedata": Budget(40, 6, 200, 20, 30),
}
NOISES = {
    "gaussian": "gaussian",
    "laplace": "laplace",
    "gamma": "gamma:multiplicative",
    "bernoulli": "bernoulli:multiplicative",  # dropout on the state
}
GUIDES = ("mean-field", "filtering", "smoothing")

_RATE, _DECAY = "optimization.learning_rate", "optimization.weight_decay"
_DECAYS: Candidates = {_DECAY: (0.0, 0.0006)}
_TWO_RATES: Candidates = {_RATE: (0.003, 0.0005), **_DECAYS}
_LEARNED = Noise(spread=0.3, learn_spread=True, spread_floor=0.0)


def recipes(data: str) -> dict[str, Recipe]:
    """The rows in the order in which they are run, by name. Each has eight trials, after those of its start."""
    annealing = BUDGETS[data].annealing
    terms: Candidates = {"optimization.ancestor_term": (True, False)}
    rows: dict[str, Recipe] = {}

    def add(row: str, method: str, space: Candidates, **config: Any) -> None:
        rows[row] = _recipe(data, row, method, space, **config)

    for cell in ("tanh", "lstm", "gru"):
        space = {_RATE: (0.003, 0.002, 0.001, 0.0005), **_DECAYS}
        add(cell, f"{cell}, deterministic", space, cell=cell, noise=Noise(spread=0.0))
    for row, noise in NOISES.items():
        space = {**_TWO_RATES, "noise.spread": (0.15, 0.3)}
        add(row, f"{noise}, equation (1)", space, noise=Noise(noise=noise))
    short = max(1, annealing // 15)
    of_guide = {**_TWO_RATES, "inference.kl_annealing": (short, annealing)}
    for guide in GUIDES:
        add(guide, f"{guide} guide, ELBO", of_guide, guide=guide)
    add("prior-filtered", "filtering bound, prior as proposal", {**_TWO_RATES, **terms}, bound="filtering")
    further: Candidates = {_RATE: (0.001, 0.0002), **_DECAYS}
    for guide in GUIDES:
        space = {**further, **terms}
        add(f"{guide}-bound", f"then filtering bound, {guide} proposal", space, guide=guide, bound="filtering")
    for guide in GUIDES:
        space = {**further, "inference.kl_annealing": (None, short)}
        add(f"{guide}-further", f"then {guide} guide, ELBO again", space, guide=guide)
    if data == "jsb":
        rows[DMM] = dataclasses.replace(rows["smoothing"], row=DMM, method="Deep Markov Model, ELBO", space={})
    add("mean-field-mlp", "mean-field guide, ELBO, hidden layer", of_guide, guide="mean-field", emission_size=100)
    return rows


def start_of(row: str) -> str | None:
    """The row from whose network and guide a row starts; None for random weights."""
    return next((row.removesuffix(suffix) for suffix in FURTHER if row.endswith(suffix)), None)


def _recipe(
    data: str,
    row: str,
    method: str,
    space: Candidates,
    cell: str = "tanh",
    noise: Noise = _LEARNED,
    guide: Any = "prior",
    bound: Any = "elbo",
    emission_size: int | None = None,
) -> Recipe:
    budget = BUDGETS[data]
    return Recipe(
        table=data,
        row=row,
        method=method,
        group=data,
        source="",
        config=Config(
            data=Data(name=data, batch_size=20),
            model=Model(cell=cell, hidden_size=100, emission_hidden_size=emission_size),
            noise=noise,
            inference=Inference(guide),
            optimization=Optimization(
                clip=5.0, epochs=budget.epochs, patience=budget.patience, bound=bound,
                num_particles=PARTICLES if bound == "filtering" else 1,
            ),
            run=Run(twin=False, ensemble_samples=0),
        ),
        space=space,
        trial_epochs=budget.trial_epochs,
        trial_patience=budget.trial_patience,
    )  # fmt: skip
