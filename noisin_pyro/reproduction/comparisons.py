"""Tests of a study's methods against its baselines, with Holm's correction for their number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

from noisin_pyro._tables import markdown

LEVEL = 0.05
"""Chance that any of a study's comparisons is significant when no two methods differ."""


class Comparison(NamedTuple):
    """A method compared with a baseline.

    Attributes:
        method, baseline: their names.
        difference: mean test loss of the baseline minus that of the method, in nats per step; positive if the method
            is better.
        p_value: of Welch's two-sided t-test over seeds.
        adjusted: the same after Holm's correction over all comparisons of the study.
    """

    method: str
    baseline: str
    difference: float
    p_value: float
    adjusted: float


def compare_with(perplexities: Mapping[str, Sequence[float]], baselines: Sequence[str]) -> list[Comparison]:
    """Every other method against every baseline that has at least two seeds.

    Args:
        perplexities: test perplexity of each seed, by method.
        baselines: names of methods.
    """
    from scipy.stats import ttest_ind

    nats = {name: [math.log(each) for each in values] for name, values in perplexities.items() if len(values) > 1}
    pairs = [
        (name, baseline)
        for baseline, name in itertools.product(baselines, nats)
        if baseline in nats and name not in baselines
    ]
    tests: list[Any] = [ttest_ind(nats[name], nats[baseline], equal_var=False) for name, baseline in pairs]
    p_values = [float(test.pvalue) for test in tests]
    return [
        Comparison(name, baseline, mean(nats[baseline]) - mean(nats[name]), p_value, adjusted)
        for (name, baseline), p_value, adjusted in zip(pairs, p_values, holm(p_values), strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: (number of hypotheses left) × p, made monotone in p, at most 1."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """A line of Markdown for each comparison."""
    heads = ("method", "baseline", "better by, nats", "p", "p, Holm", "verdict")
    return markdown(heads, [
        (
            each.method, each.baseline, f"{each.difference:+.4f}".replace("-", "−"), f"{each.p_value:.2g}",
            f"{each.adjusted:.2g}", _verdict(each),
        )
        for each in comparisons
    ])  # fmt: skip


def _verdict(comparison: Comparison) -> str:
    if comparison.adjusted > LEVEL:
        return "no significant difference"
    return "better" if comparison.difference > 0 else "worse"
