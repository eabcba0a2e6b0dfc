"""Every row of the paper's tables, and of its successor's, as a named, readable configuration.

A row is a plain function of the settings that differ between rows. What a paper states is in the configuration; what it
does not specify is listed, and either has one value for all rows of a table or is chosen on validation, among as many
candidates for every method. ``docs/reproduction.md`` has the protocol in words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from noisin_pyro import noise
from noisin_pyro.names import known
from noisin_pyro.training import Config, Data, Model, Noise, Optimisation, Run

Method = Literal["NOISIN", "NOISIN*", "Dropout", "None", "NOISIN, additive", "NOISIN*, additive"]
Cell = Literal["tanh", "sigmoid", "relu"]
Candidates = Mapping[str, tuple[Any, ...]]

DRAFT = "Noise-Based Regularizers for Recurrent Neural Networks (draft)"
PUBLISHED = "Noisin: Unbiased Regularization for Recurrent Neural Networks (ICML 2018, arXiv 1805.01500)"


@dataclass(frozen=True)
class Recipe:
    """One row of a table.

    Attributes:
        table: ``"table2"``, ``"table3"``, ``"figure2"``, ``"zaremba"`` or ``"icml-m"``.
        row: its name in that table, a folder's.
        method: what the paper calls it.
        group: rows of one group differ in the method alone: within it the paper's order is a claim.
        source: the paper, and where in it.
        paper_test: perplexity that the paper reports on the test set, if it does.
        paper_valid: on the validation set.
        unsaid: what the paper leaves open.
        config: what it states, and our choices for what it does not.
        space: what is chosen on validation: dotted names of options, and candidates.
        ladder: for an option in ``space``, all values that may be tried, in order, those of ``space`` among them: while
            the best value is the smallest or the largest that was tried, the next one beyond is tried too.
        further_trials: how many of these at most.
        trial_epochs: epochs of each trial.
        seeds: runs of the row, with the options that were chosen and seeds of their own.
    """

    table: str
    row: str
    method: str
    group: str
    source: str
    config: Config
    paper_test: float | None = None
    paper_valid: float | None = None
    unsaid: Sequence[str] = ()
    space: Candidates = field(default_factory=dict)
    ladder: Candidates = field(default_factory=dict)
    further_trials: int = 0
    trial_epochs: int = 10
    seeds: int = 1


SEARCH_SEED, FIRST_SEED = 10, 11
"""The seed of all trials, and the first of the runs with what was chosen. Version 0.1 had used lower ones."""


TABLE_2: dict[tuple[Cell, int], dict[Method, float]] = {
    ("tanh", 1): {"NOISIN": 131.9, "NOISIN*": 140.9, "Dropout": 138.3, "None": 141.4},
    ("tanh", 2): {"NOISIN": 140.5, "NOISIN*": 142.4, "Dropout": 165.2, "None": 157.9},
    ("sigmoid", 1): {"NOISIN": 166.0, "NOISIN*": 144.7, "Dropout": 146.9, "None": 157.4},
    ("sigmoid", 2): {"NOISIN": 196.8, "NOISIN*": 154.3, "Dropout": 152.2, "None": 164.4},
    ("relu", 1): {"NOISIN": 158.4, "NOISIN*": 149.2, "Dropout": 169.8, "None": 175.3},
    ("relu", 2): {"NOISIN": 171.0, "NOISIN*": 165.9, "Dropout": 168.5, "None": 165.0},
}
"""Test perplexities of the draft's table 2."""

UNSAID = (
    "hidden size (256, as in figure 2)",
    "steps of truncated backpropagation (35)",
    "initialisation (the published paper's; chosen on validation without noise)",
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
    known("method", method, _FIRST_BLOCK if first else TABLE_2[cell, layers])
    space = _FIRST_BLOCK[method] if first else _other_block(cell, method)
    return Recipe(
        table="table2",
        row=f"{cell}-{layers}-{_slug(method)}",
        method=method,
        group=f"{cell}, {layers} layer{'s' if layers > 1 else ''}",
        source=f"{DRAFT}, table 2",
        paper_test=TABLE_2[cell, layers].get(method),
        unsaid=UNSAID,
        config=_penn_treebank(cell, layers, method, 20 if first else epochs),
        space=space,
        ladder={name: _LADDERS[name] for name in space if name in _LADDERS} if first else {},
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
        row=_slug(method),
        method=method,
        group="sigmoid, 1 layer",
        source=f"{DRAFT}, figure 2",
        unsaid=(*UNSAID[1:], "data and optimiser (table 2's)", "whether γ is fixed or learned (fixed)"),
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
            products="bfloat16",
        ),
        noise=Noise(family=f"gaussian:{form}", spread=start, learn_spread="*" in method)
        if "NOISIN" in method
        else Noise(spread=0.0),
        optimisation=Optimisation(optimizer="Adam", learning_rate=0.001, clip=5.0, epochs=epochs, patience=3),
        run=Run(twin=False),
    )


_BATCH, _GAMMA, _FLOOR, _RATE = "data.batch_size", "noise.spread", "noise.spread_floor", "model.dropout"

_FIRST_BLOCK: dict[Method, dict[str, tuple[Any, ...]]] = {
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
"""What lies beyond these candidates."""


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


ZAREMBA_WINDOW = 20
"""Steps of truncated backpropagation, Zaremba et al.'s for networks of this size."""

_ZAREMBA_MODEL = Model(cell="lstm", num_layers=2, hidden_size=200, initialization="published", products="bfloat16")
_ZAREMBA_OPTIMISATION = Optimisation(
    optimizer="SGD", learning_rate=1.0 * ZAREMBA_WINDOW, schedule="halve", clip=5.0 / ZAREMBA_WINDOW, epochs=13,
    patience=None,
)  # fmt: skip


def table3(method: Literal["NOISIN", "None"]) -> Recipe:
    """A row of table 3: WikiText-2, a two-layer LSTM of 200, SGD from 1.0 halved after four epochs, γ learned.

    The draft follows Zaremba et al. (2014), whose loss is summed over a window's 20 steps. Ours is the mean by step,
    and its gradient a 20th of theirs: for the same update the rate is 20 times 1.0, and the largest norm a 20th of 5.

    Raises:
        ValueError: no such method.
    """
    known("method", method, ["NOISIN", "None"])
    learned = Noise(spread=0.5, learn_spread=True, spread_floor=0.1)
    return Recipe(
        table="table3",
        row=_slug(method),
        method=method,
        group="lstm, 2 layers",
        source=f"{DRAFT}, table 3",
        paper_test={"NOISIN": 104.7, "None": 105.8}[method],
        unsaid=(
            "steps of truncated backpropagation (20, as in the setup that it follows, Zaremba et al., 2014)",
            "whether rate 1.0 and norm 5 are of a loss summed over these steps (as there, so 20 and 0.25 of a mean)",
            "initialisation (the published paper's, where Zaremba et al. have U(±0.1))",
            "whether embedding and softmax share weights (they do not)",
            "form of the noise (additive) and where γ starts (0.5)",
            "noise at test time (off; an ensemble of 50 beside it)",
            "number of epochs (14; Zaremba et al. have 13)",
        ),
        config=Config(
            data=Data(name="wikitext-2", batch_size=32, eval_batch_size=10, window=ZAREMBA_WINDOW),
            model=_ZAREMBA_MODEL,
            noise=learned if method == "NOISIN" else Noise(spread=0.0),
            optimisation=dataclasses.replace(_ZAREMBA_OPTIMISATION, epochs=14),
            run=Run(twin=False),
        ),
    )


def zaremba() -> Recipe:
    """The small network of Zaremba et al. (2014), without dropout: Penn Treebank, LSTM 2 × 200, batch 20, 13 epochs.

    An anchor that others published: it shows that the training loop and table 3's reading of the learning rate are
    right.
    """
    return Recipe(
        table="zaremba",
        row="small",
        method="None",
        group="lstm, 2 layers",
        source="Recurrent Neural Network Regularization (Zaremba et al., 2014), table 1, non-regularized LSTM",
        paper_test=114.5,
        unsaid=("initialisation is the published NOISIN paper's, U(±1/√H), where theirs is U(±0.1)",),
        config=Config(
            data=Data(name="ptb", batch_size=20, eval_batch_size=10, window=ZAREMBA_WINDOW),
            model=_ZAREMBA_MODEL,
            noise=Noise(spread=0.0),
            optimisation=_ZAREMBA_OPTIMISATION,
            run=Run(twin=False),
        ),
    )


PTB_MEDIUM: dict[str, tuple[float | None, float, float]] = {
    "none": (None, 115.0, 109.0),
    "gaussian": (1.10, 76.2, 71.8),
    "logistic": (1.06, 76.4, 72.3),
    "laplace": (1.06, 76.6, 72.4),
    "gamma": (1.06, 78.2, 74.5),
    "bernoulli": (0.41, 75.7, 71.4),
    "gumbel": (1.06, 76.2, 72.7),
    "beta": (1.07, 76.0, 71.4),
    "chi2": (1.50, 84.5, 80.7),
    "D": (None, 80.2, 77.0),
    "D + gaussian": (0.53, 73.4, 70.4),
    "D + logistic": (0.53, 73.0, 69.9),
    "D + laplace": (0.53, 73.1, 70.0),
    "D + gamma": (0.38, 73.5, 70.3),
    "D + bernoulli": (0.80, 73.3, 70.1),
    "D + gumbel": (0.46, 74.5, 71.2),
    "D + beta": (0.20, 73.0, 69.2),
    "D + chi2": (0.29, 76.1, 72.8),
}
"""The published paper's medium model on Penn Treebank: its γ (of its own kind), validation and test perplexity."""


ICML_STEPS = 332
"""Gradient steps of an epoch: 929,589 tokens in 80 columns and windows of 35."""


def icml_m(method: str) -> Recipe:
    """A row of the published paper's PTB-M: LSTM 2 × 650, tied, averaged SGD; multiplicative noise, dropout D, or both.

    Raises:
        ValueError: no such row.
    """
    gamma, valid, test = PTB_MEDIUM[known("method", method, PTB_MEDIUM)]
    family = method.removeprefix("D + ")
    return Recipe(
        table="icml-m",
        row=_slug(method),
        method=method,
        group="LSTM 2 × 650",
        source=f"{PUBLISHED}, Penn Treebank, medium",
        paper_test=test,
        paper_valid=valid,
        unsaid=(
            "whether embedding and softmax share weights (they do: so the parameters are 13 million)",
            "whether D's masks are fixed over time (they are)",
            "when averaging begins (after 50 epochs: a mean from the first step on would hold the first, poor weights)",
            "noise at test time (off; an ensemble of 50 beside it)",
        ),
        config=Config(
            data=Data(name="ptb", batch_size=80, eval_batch_size=10),
            model=Model(
                cell="lstm", num_layers=2, hidden_size=650, initialization="published", tie_weights=True,
                regularizer="D" if method.startswith("D") else "none",
            ),
            noise=Noise(spread=0.0)
            if gamma is None
            else Noise(family=f"{family}:multiplicative", spread=noise.from_published(family, gamma)),
            optimisation=Optimisation(
                optimizer="ASGD", learning_rate=30.0, schedule="divide", average_after=50 * ICML_STEPS, clip=0.25,
                epochs=200, patience=None,
            ),
            run=Run(twin=False),
        ),
    )  # fmt: skip


TABLES: dict[str, Callable[[], list[Recipe]]] = {
    "table2": lambda: [
        *(table2("tanh", 1, method) for method in _FIRST_BLOCK),
        *(
            table2(cell, layers, method)
            for (cell, layers), numbers in TABLE_2.items()
            if (cell, layers) != ("tanh", 1)
            for method in reversed(numbers)
        ),
    ],
    "table3": lambda: [table3("None"), table3("NOISIN")],
    "figure2": lambda: [figure2("None"), figure2("NOISIN")],
    "zaremba": lambda: [zaremba()],
    "icml-m": lambda: [icml_m(method) for method in PTB_MEDIUM],
}
"""Each table's rows, in the order in which they are run: what others are compared with comes first."""


def _slug(method: str) -> str:
    return method.lower().replace(" + ", "-").replace(", ", "-").replace("*", "-learned")
