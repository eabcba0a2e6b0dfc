"""Every row of the paper's tables, and of its successor's, as a named, readable configuration.

A row is a plain function of what tells it from its neighbours. What a paper states is in the configuration; what it
leaves unsaid is listed, and set to one value for all rows of a table or chosen on validation, among as many candidates
for every method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from noisin_pyro import noise
from noisin_pyro._lookup import known
from noisin_pyro.training import Config, Data, Model, Noise, Optimisation, Run

__all__ = ["Recipe", "figure2", "icml_m", "table2", "table3"]

Method = Literal["NOISIN", "NOISIN*", "Dropout", "None"]
Cell = Literal["tanh", "sigmoid", "relu"]
Candidates = Mapping[str, tuple[Any, ...]]

DRAFT = "Noise-Based Regularizers for Recurrent Neural Networks (draft)"
PUBLISHED = "Noisin: Unbiased Regularization for Recurrent Neural Networks (ICML 2018, arXiv 1805.01500)"


@dataclass(frozen=True)
class Recipe:
    """One row of a table.

    Attributes:
        table: ``"table2"``, ``"table3"``, ``"figure2"`` or ``"icml-m"``.
        row: its name in that table, a folder's.
        method: what the paper calls it.
        group: rows of one group differ in the method alone: within it the paper's order is a claim.
        source: the paper, and where in it.
        paper_test: perplexity that the paper reports on the test set, if it does.
        paper_valid: on the validation set.
        unsaid: what the paper leaves open.
        config: what it states, and our choices for what it does not.
        space: what is chosen on validation: dotted names of options, and candidates.
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
    "initialisation (the published paper's)",
    "whether embedding and softmax share weights (they do)",
    "clipping (at norm 5, of the mean by step)",
    "form of the noise (multiplicative: in results/ptb better in validation than additive noise)",
    "where a learned γ starts (0.7)",
    "size of a batch (chosen on validation without noise; 40 for the methods that regularise, as a first search chose)",
    "γ, its floor where it is learned, the rate of dropout (chosen on validation)",
    "noise at test time (off; an ensemble of 50 beside it)",
    "number of epochs (the best in validation)",
)


def table2(cell: Cell, layers: int, method: Method) -> Recipe:
    """A row of table 2: Penn Treebank, Adam at 0.001, Gaussian noise; NOISIN* learns γ.

    Raises:
        ValueError: no such row.
    """
    known("cell", cell, [each for each, _ in TABLE_2])
    if layers not in (1, 2):
        raise ValueError(f"layers must be 1 or 2, as in the table, got {layers!r}")
    known("method", method, _SPACES)
    return Recipe(
        table="table2",
        row=f"{cell}-{layers}-{_slug(method)}",
        method=method,
        group=f"{cell}, {layers} layer{'s' if layers > 1 else ''}",
        source=f"{DRAFT}, table 2",
        paper_test=TABLE_2[cell, layers][method],
        unsaid=UNSAID,
        config=_penn_treebank(cell, layers, method),
        space=_SPACES[method],
    )


def figure2(method: Method) -> Recipe:
    """A curve of figure 2: table 2's network of one sigmoid layer, 256 units; the text gives no numbers.

    Raises:
        ValueError: no such method.
    """
    known("method", method, _SPACES)
    return Recipe(
        table="figure2",
        row=_slug(method),
        method=method,
        group="sigmoid, 1 layer",
        source=f"{DRAFT}, figure 2",
        unsaid=(*UNSAID[1:], "data and optimiser (table 2's)", "whether γ is fixed or learned (fixed)"),
        config=_penn_treebank("sigmoid", 1, method),
        space=_SPACES[method],
    )


def _penn_treebank(cell: Cell, layers: int, method: Method) -> Config:
    return Config(
        data=Data(name="ptb", batch_size=40),
        model=Model(
            cell=cell,
            num_layers=layers,
            initialization="published",
            tie_weights=True,
            regularizer="variational-dropout" if method == "Dropout" else "none",
        ),
        noise=Noise(family="gaussian:multiplicative", spread=0.7, learn_spread=method == "NOISIN*")
        if "NOISIN" in method
        else Noise(spread=0.0),
        optimisation=Optimisation(optimizer="Adam", learning_rate=0.001, clip=5.0, epochs=14, patience=3),
        run=Run(twin=False),
    )


_SPACES: dict[Method, dict[str, tuple[Any, ...]]] = {
    "None": {"data.batch_size": (20, 40, 80)},
    "NOISIN": {"noise.spread": (0.3, 0.5, 0.8)},
    "NOISIN*": {"noise.spread_floor": (0.1, 0.3, 0.5)},
    "Dropout": {"model.dropout": (0.05, 0.1, 0.2)},
}
"""Three candidates for every method."""


TABLE_3_WINDOW = 20
"""Steps of truncated backpropagation, Zaremba et al.'s for networks of this size."""


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
            data=Data(name="wikitext-2", batch_size=32, window=TABLE_3_WINDOW),
            model=Model(cell="lstm", num_layers=2, hidden_size=200, initialization="published"),
            noise=learned if method == "NOISIN" else Noise(spread=0.0),
            optimisation=Optimisation(
                optimizer="SGD", learning_rate=1.0 * TABLE_3_WINDOW, schedule="halve", clip=5.0 / TABLE_3_WINDOW,
                epochs=14, patience=None,
            ),
            run=Run(twin=False),
        ),
    )  # fmt: skip


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
            data=Data(name="ptb", batch_size=80),
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
    "table2": lambda: [table2(cell, layers, m) for (cell, layers), rows in TABLE_2.items() for m in reversed(rows)],
    "table3": lambda: [table3("None"), table3("NOISIN")],
    "figure2": lambda: [figure2("None"), figure2("NOISIN")],
    "icml-m": lambda: [icml_m(method) for method in PTB_MEDIUM],
}
"""Each table's rows, in the order in which they are run: what others are compared with comes first."""


def _slug(method: str) -> str:
    return method.lower().replace(" + ", "-").replace("*", "-learned")
