"""Recipes for the published paper's tables: medium and large models on Penn Treebank and WikiText-2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from noisin_pyro import noise
from noisin_pyro._lookup import known
from noisin_pyro.reproduction.recipe import Recipe, slug
from noisin_pyro.training import Config, Data, Model, Noise, Optimization, Run

PUBLISHED = "Noisin: Unbiased Regularization for Recurrent Neural Networks (ICML 2018, arXiv 1805.01500)"


class IcmlTable(NamedTuple):
    """One of the published paper's tables.

    Attributes:
        data: the data set.
        title: data set and size of the model.
        hidden_size: units of each of the two layers, and of the embedding.
        steps: gradient steps of an epoch, with batches of 80 and windows of 35.
        rows: by method, γ as that paper defines it, validation and test perplexity.
    """

    data: str
    title: str
    hidden_size: int
    steps: int
    rows: Mapping[str, tuple[float | None, float, float]]


ICML = {
    "icml-m": IcmlTable("ptb", "Penn Treebank, medium", 650, 332, {
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
    }),
    "icml-l": IcmlTable("ptb", "Penn Treebank, large", 1500, 332, {
        "none": (None, 123.0, 123.0),
        "gaussian": (1.37, 73.2, 69.1),
        "bernoulli": (0.33, 72.8, 68.3),
        "D": (None, 78.6, 75.3),
        "D + gaussian": (0.92, 70.0, 66.1),
        "D + bernoulli": (0.50, 70.0, 66.1),
    }),
    "icml-wikitext-m": IcmlTable("wikitext-2", "WikiText-2, medium", 650, 746, {
        "none": (None, 141.0, 136.0),
        "bernoulli": (0.54, 91.2, 86.6),
        "D": (None, 88.7, 84.8),
        "D + laplace": (0.40, 85.6, 82.1),
    }),
    "icml-wikitext-l": IcmlTable("wikitext-2", "WikiText-2, large", 1500, 746, {
        "none": (None, 176.0, 140.0),
        "beta": (1.50, 86.9, 82.9),
        "D": (None, 95.0, 91.0),
        "D + bernoulli": (0.64, 80.8, 76.8),
    }),
}  # fmt: skip
"""The published paper's tables, by the name that ``noisin reproduce`` knows them by."""


def icml(table: str, method: str) -> Recipe:
    """A row of one of these tables: two-layer LSTM, tied, averaged SGD; multiplicative noise, dropout D, or both.

    Args:
        table: ``"icml-m"``, ``"icml-l"``, ``"icml-wikitext-m"`` or ``"icml-wikitext-l"``.
        method: ``"none"``, a family of noise, ``"D"``, or both (``"D + beta"``).

    Raises:
        ValueError: no such table, or no such row in it.
    """
    data, title, hidden_size, steps, rows = ICML[known("table", table, ICML)]
    gamma, valid, test = rows[known("method", method, rows)]
    family = method.removeprefix("D + ")
    return Recipe(
        table=table,
        row=slug(method),
        method=method,
        group=f"LSTM 2 × {hidden_size}",
        source=f"{PUBLISHED}, {title}",
        paper_test=test,
        paper_valid=valid,
        unspecified=(
            "whether embedding and softmax share weights (they do: so the medium model has 13 million parameters)",
            "whether D's masks are fixed over time (they are)",
            "when averaging begins (after 50 epochs: a mean from the first step on would hold the first, poor weights)",
            "noise at test time (off; an ensemble of 50 beside it)",
        ),
        config=Config(
            data=Data(name=data, batch_size=80, eval_batch_size=10),
            model=Model(
                cell="lstm", num_layers=2, hidden_size=hidden_size, initialization="published", tie_weights=True,
                regularizer="D" if method.startswith("D") else "none",
            ),
            noise=Noise(spread=0.0)
            if gamma is None
            else Noise(noise=f"{family}:multiplicative", spread=noise.from_published(family, gamma)),
            optimization=Optimization(
                optimizer="ASGD", learning_rate=30.0, schedule="divide", average_after=50 * steps, clip=0.25,
                epochs=200, patience=None,
            ),
            run=Run(twin=False),
        ),
    )  # fmt: skip
