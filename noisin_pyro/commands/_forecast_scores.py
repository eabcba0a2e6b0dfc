"""``noisin evaluate --method forecast``: scores of forecasts from a rolling origin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from noisin_pyro._tables import aligned
from noisin_pyro.inference.scores import ForecastScores

EXPLANATIONS = {
    "crps": "continuous ranked probability score, in the units of the values; lower is better",
    "mase": "absolute error of the median over that of the naive forecast in the history",
    "log_score": "negative log density of the values of a step, in nats; lower is better",
}


def table(rows: Sequence[tuple[str, str]], scores: ForecastScores) -> str:
    """The scores with their standard errors over series, under the given rows."""
    numbers = {name: getattr(scores, name) for name in EXPLANATIONS}
    numbers |= {f"coverage {level:g}": share for level, share in scores.coverage.items()}
    lines = [
        (name.replace("_", " "), f"{value:.4f} ± {scores.standard_errors[name]:.4f}  {EXPLANATIONS.get(name, '')}")
        for name, value in numbers.items()
        if value is not None
    ]
    counts = f"{scores.num_values:,} values of {scores.num_sequences} series, from {scores.num_origins} origins each"
    return aligned([*rows, ("scored", counts), *lines])


def as_dict(scores: ForecastScores) -> dict[str, Any]:
    """The scores for JSON."""
    names = "crps", "mase", "log_score", "coverage", "num_values", "num_steps", "num_sequences", "num_origins"
    errors = {name: error if error == error else None for name, error in scores.standard_errors.items()}
    return {"method": "forecast", **{name: getattr(scores, name) for name in names}, "standard_errors": errors}
