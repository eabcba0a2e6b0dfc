"""Recipes of the draft's table 2 and figure 2: Penn Treebank, networks of plain cells."""

from __future__ import annotations

from typing import Any, Literal

from noisin_pyro._lookup import known
from noisin_pyro.reproduction.recipe import DRAFT, Candidates, Recipe, slug
from noisin_pyro.training import Config, Data, Model, Noise, Optimization, Run

Method = Literal["NOISIN", "NOISIN*", "Dropout", "None", "NOISIN, additive", "NOISIN*, additive"]
Cell = Literal["tanh", "sigmoid", "relu"]

TABLE_2: dict[tuple[Cell, int], dict[Method, float]] = {
    ("tanh", 1): {"NOISIN": 131.9, "NOISIN*": 140.9, "Dropout": 138.3, "None": 141.4},
    ("tanh", 2): {"NOISIN": 140.5, "NOISIN*": 142.4, "Dropout": 165.2, "None": 157.9},
    ("sigmoid", 1): {"NOISIN": 166.0, "NOISIN*": 144.7, "Dropout": 146.9, "None": 157.4},
    ("sigmoid", 2): {"NOISIN": 196.8, "NOISIN*": 154.3, "Dropout": 152.2, "None": 164.4},
    ("relu", 1): {"NOISIN": 158.4, "NOISIN*": 149.2, "Dropout": 169.8, "None": 175.3},
    ("relu", 2): {"NOISIN": 171.0, "NOISIN*": 165.9, "Dropout": 168.5, "None": 165.0},
}
"""Test perplexities of the draft's table 2."""

UNSPECIFIED = (
    "hidden size (256, as in figure 2)",
    "steps of truncated backpropagation (35)",
    "initialization (the published paper's; chosen on validation without noise)",
    "whether embedding and softmax share weights (they do)",
    "clipping (at norm 5, of the mean by step)",
    "form of the noise (multiplicative; two rows have additive noise, as the draft writes it)",
    "where a learned γ starts (0.9, above every floor that is tried; 0.7 for additive noise)",
    "batch size, γ, its floor where it is learned, rate of dropout (chosen on validation)",
    "columns that held-out texts are read in (10)",
    "noise at test time (off; an ensemble of 50 beside it)",
    "number of epochs (the best in validation, until three in a row are not better)",
)


def table2(cell: Cell, layers: int, method: Method) -> Recipe:
    """A row of table 2: Penn Treebank, Adam at 0.001, Gaussian noise; NOISIN* learns γ.

    One tanh layer has eight trials for each method (four with additive noise), more while the best lies at the edge of
    what was tried, and is then trained with four seeds, for at most 20 epochs. The other blocks have two trials and one
    seed, for 10 epochs (12 for sigmoid).

    Raises:
        ValueError: no such row; additive noise is for one tanh layer alone.
    """
    known("cell", cell, [each for each, _ in TABLE_2])
    if layers not in (1, 2):
        raise ValueError(f"layers must be 1 or 2, as in the table, got {layers!r}")
    first, epochs = (cell, layers) == ("tanh", 1), 12 if cell == "sigmoid" else 10
    known("method", method, FIRST_BLOCK if first else TABLE_2[cell, layers])
    space = FIRST_BLOCK[method] if first else _other_block(cell, method)
    config = _penn_treebank(cell, layers, method, 20 if first else epochs)
    return Recipe(
        table="table2",
        row=f"{cell}-{layers}-{slug(method)}",
        method=method,
        group=f"{cell}, {layers} layer{'s' if layers > 1 else ''}",
        source=f"{DRAFT}, table 2",
        paper_test=TABLE_2[cell, layers].get(method),
        unspecified=UNSPECIFIED,
        config=config,
        space=space,
        ladder=_ladder(space, config) if first else {},
        further_trials=4 if first else 0,
        trial_epochs=epochs,
        seeds=4 if first else 1,
    )


def figure2(method: Literal["NOISIN", "None"]) -> Recipe:
    """A curve of figure 2: table 2's network of one sigmoid layer, 256 units; the text gives no numbers.

    Its batch size is 20, and γ has table 2's candidates; a run that table 2 has too is not run twice.

    Raises:
        ValueError: no such method.
    """
    known("method", method, ["NOISIN", "None"])
    return Recipe(
        table="figure2",
        row=slug(method),
        method=method,
        group="sigmoid, 1 layer",
        source=f"{DRAFT}, figure 2",
        unspecified=(*UNSPECIFIED[1:], "data and optimizer (table 2's)", "whether γ is fixed or learned (fixed)"),
        config=_penn_treebank("sigmoid", 1, method, epochs=12),
        space=_other_block("sigmoid", method) if method == "NOISIN" else {},
        trial_epochs=12,
        seeds=3,
    )


def _penn_treebank(cell: Cell, layers: int, method: Method, epochs: int) -> Config:
    form = "additive" if method.endswith("additive") else "multiplicative"
    start = 0.7 if form == "additive" else 0.9  # of a learned γ; a fixed one is always chosen on validation
    return Config(
        data=Data(name="ptb", batch_size=20 if cell == "sigmoid" else 40, eval_batch_size=10),
        model=Model(
            cell=cell,
            num_layers=layers,
            initialization="published",
            tie_weights=True,
            regularizer="variational-dropout" if method == "Dropout" else "none",
            matmul_precision="bfloat16",
        ),
        noise=Noise(noise=f"gaussian:{form}", spread=start, learn_spread="*" in method)
        if "NOISIN" in method
        else Noise(spread=0.0),
        optimization=Optimization(optimizer="Adam", learning_rate=0.001, clip=5.0, epochs=epochs, patience=3),
        run=Run(twin=False),
    )


_BATCH, _GAMMA, _FLOOR, _RATE = "data.batch_size", "noise.spread", "noise.spread_floor", "model.dropout"

FIRST_BLOCK: dict[Method, dict[str, tuple[Any, ...]]] = {
    "None": {_BATCH: (20, 40, 80, 160), "model.initialization": ("published", "torch")},
    "Dropout": {_RATE: (0.02, 0.05, 0.1, 0.2), _BATCH: (40, 80)},
    "NOISIN*": {_FLOOR: (0.1, 0.3, 0.5, 0.7), _BATCH: (40, 80)},
    "NOISIN": {_GAMMA: (0.3, 0.5, 0.7, 1.0), _BATCH: (40, 80)},
    "NOISIN*, additive": {_FLOOR: (0.1, 0.2, 0.3, 0.5)},
    "NOISIN, additive": {_GAMMA: (0.2, 0.3, 0.5, 0.7)},
}
"""Candidates for one tanh layer: eight for every method of the draft, four for additive noise."""

_LADDERS: dict[str, tuple[Any, ...]] = {
    _RATE: (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4),
    _GAMMA: (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0),
    _FLOOR: (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8),
    _BATCH: (5, 10, 20, 40, 80, 160, 320, 640),
}
"""The values that may be tried beyond these candidates."""


def _ladder(space: Candidates, config: Config) -> Candidates:
    """The ladder of each option in ``space`` that has one. A floor must be below the start of the learned γ."""
    ladders = {name: _LADDERS[name] for name in space if name in _LADDERS}
    if _FLOOR in ladders:
        ladders[_FLOOR] = tuple(floor for floor in ladders[_FLOOR] if floor < config.noise.spread)
    return ladders


def _other_block(cell: Cell, method: Method) -> dict[str, tuple[Any, ...]]:
    """Two candidates for every method."""
    match method:
        case "None":
            return {_BATCH: (20, 40) if cell == "sigmoid" else (40, 80)}
        case "Dropout":
            return {_RATE: (0.05, 0.1)}
        case "NOISIN":
            return {_GAMMA: (0.5, 0.7)}
        case _:
            return {_FLOOR: (0.3, 0.5)}
