"""Comparisons with baselines: Welch's test, Holm's correction and its false-alarm rate."""

import math

import numpy as np
import pytest

from noisin_pyro.reproduction.comparisons import LEVEL, compare_with, comparison_table, holm


def test_holms_correction_by_its_definition() -> None:
    """Sorted: 0.005 × 4 = 0.02, 0.01 × 3 = 0.03, 0.03 × 2 = 0.06, and 0.04 × 1 is raised to 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_difference_is_in_nats_and_positive_if_the_method_is_better() -> None:
    perplexities = {"None": [50.0, 51.0, 52.0], "gamma": [40.0, 40.1, 40.2], "one seed": [10.0]}
    (comparison,) = compare_with(perplexities, ["None"])
    means = [np.log(perplexities[name]).mean() for name in ("None", "gamma")]
    assert (comparison.method, comparison.baseline) == ("gamma", "None")
    assert comparison.difference == pytest.approx(means[0] - means[1])
    a, b = (np.log(perplexities[name]) for name in ("None", "gamma"))
    assert comparison.p_value == pytest.approx(_welch(a, b), rel=1e-6) and comparison.adjusted == comparison.p_value
    assert comparison_table([comparison]).splitlines()[2].endswith("| better |")


def _welch(a: np.ndarray, b: np.ndarray) -> float:
    """The p-value by numerical integration of Student's density, whose degrees of freedom are Welch's."""
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    t, df = abs(a.mean() - b.mean()) / math.sqrt(va + vb), (va + vb) ** 2 / (va**2 / 2 + vb**2 / 2)
    u = np.linspace(0.0, 1.0, 400_001)[1:]  # x = t / u covers the tail from t
    constant = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    density = constant * (1 + (t / u) ** 2 / df) ** (-(df + 1) / 2) * t / u**2
    return float(2 * np.trapezoid(density, u))


@pytest.mark.slow
def test_methods_that_do_not_differ_are_rarely_significant() -> None:
    """The share of studies with a false alarm is at most the level, up to 4 standard errors of 400 studies."""
    rng, studies = np.random.default_rng(0), 400
    alarms = 0
    for _ in range(studies):
        drawn = {f"m{i}": rng.lognormal(4.0, 0.01, 3).tolist() for i in range(9)}
        alarms += any(each.adjusted <= LEVEL for each in compare_with(drawn, ["m0"]))
    assert alarms / studies <= LEVEL + 4 * math.sqrt(LEVEL * (1 - LEVEL) / studies)
