"""Every row of the paper's tables, and of its successor's, as a named, readable configuration.

Each row is made by a plain function of the settings that differ between rows. The configuration has what a paper
states. What it does not specify is listed, and either has one value for all rows of a table, or is chosen on validation
among as many candidates for every method. ``docs/reproduction.md`` describes the protocol.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Literal

from noisin_pyro._lookup import known
from noisin_pyro.reproduction.icml_recipes import ICML, icml
from noisin_pyro.reproduction.recipe import DRAFT, Recipe, slug
from noisin_pyro.reproduction.studies import noise_claims, noise_families
from noisin_pyro.reproduction.table2_recipes import FIRST_BLOCK, TABLE_2, figure2, table2
from noisin_pyro.training import Config, Data, Model, Noise, Optimization, Run

ZAREMBA_WINDOW = 20
"""Steps of truncated backpropagation of Zaremba et al. for networks of this size."""

_ZAREMBA_MODEL = Model(
    cell="lstm", num_layers=2, hidden_size=200, initialization="published", matmul_precision="bfloat16"
)
_ZAREMBA_OPTIMIZATION = Optimization(
    optimizer="SGD", learning_rate=1.0 * ZAREMBA_WINDOW, schedule="halve", clip=5.0 / ZAREMBA_WINDOW, epochs=13,
    patience=None,
)  # fmt: skip


def table3(method: Literal["NOISIN", "None"]) -> Recipe:
    """A row of table 3: WikiText-2, a two-layer LSTM of 200, SGD from 1.0 halved after four epochs, γ learned.

    The draft follows Zaremba et al. (2014), whose loss is summed over the 20 steps of a window. Ours is the mean over
    steps, with a 20th of the gradient: for the same update the learning rate is 20 times 1.0, and the maximum norm a
    20th of 5.

    Raises:
        ValueError: no such method.
    """
    known("method", method, ["NOISIN", "None"])
    learned = Noise(spread=0.5, learn_spread=True, spread_floor=0.1)
    return Recipe(
        table="table3",
        row=slug(method),
        method=method,
        group="lstm, 2 layers",
        source=f"{DRAFT}, table 3",
        paper_test={"NOISIN": 104.7, "None": 105.8}[method],
        unspecified=(
            "steps of truncated backpropagation (20, as in the setup that it follows, Zaremba et al., 2014)",
            "whether rate 1.0 and norm 5 are of a loss summed over these steps (as there, so 20 and 0.25 of a mean)",
            "initialization (the published paper's, where Zaremba et al. have U(±0.1))",
            "whether embedding and softmax share weights (they do not)",
            "form of the noise (additive) and where γ starts (0.5)",
            "noise at test time (off; an ensemble of 50 beside it)",
            "number of epochs (14; Zaremba et al. have 13)",
        ),
        config=Config(
            data=Data(name="wikitext-2", batch_size=32, eval_batch_size=10, window=ZAREMBA_WINDOW),
            model=_ZAREMBA_MODEL,
            noise=learned if method == "NOISIN" else Noise(spread=0.0),
            optimization=dataclasses.replace(_ZAREMBA_OPTIMIZATION, epochs=14),
            run=Run(twin=False),
        ),
    )


def zaremba() -> Recipe:
    """The small network of Zaremba et al. (2014), without dropout: Penn Treebank, LSTM 2 × 200, batch 20, 13 epochs.

    Its perplexity is published by others, so it checks the training loop, and table 3's reading of the learning rate.
    """
    return Recipe(
        table="zaremba",
        row="small",
        method="None",
        group="lstm, 2 layers",
        source="Recurrent Neural Network Regularization (Zaremba et al., 2014), table 1, non-regularized LSTM",
        paper_test=114.5,
        unspecified=("initialization is the published NOISIN paper's, U(±1/√H), where theirs is U(±0.1)",),
        config=Config(
            data=Data(name="ptb", batch_size=20, eval_batch_size=10, window=ZAREMBA_WINDOW),
            model=_ZAREMBA_MODEL,
            noise=Noise(spread=0.0),
            optimization=_ZAREMBA_OPTIMIZATION,
            run=Run(twin=False),
        ),
    )


def _icml_rows(table: str) -> list[Recipe]:
    return [icml(table, method) for method in ICML[table].rows]


TABLES: dict[str, Callable[[], list[Recipe]]] = {
    "table2": lambda: [
        *(table2("tanh", 1, method) for method in FIRST_BLOCK),
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
    **{table: partial(_icml_rows, table) for table in ICML},
    "pydocs-noises": noise_families,
    "pydocs-claims": noise_claims,
}
"""The rows of each table in the order in which they are run: what others are compared with comes first."""
