"""Scores of forecasts from a rolling origin."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noisin_pyro._lookup import integer
from noisin_pyro._tables import aligned
from noisin_pyro.data import Sequences, Series
from noisin_pyro.inference.evaluation.result import per_step
from noisin_pyro.inference.forecasting import NUM_SAMPLES, forecast_with
from noisin_pyro.inference.importance_weights import log_mean_exp
from noisin_pyro.inference.simulation import reads_its_past

PER_VALUE = "crps", "mase"
LEVELS = 0.5, 0.8, 0.95
EXPLANATIONS = {
    "crps": "continuous ranked probability score, in the units of the values; lower is better",
    "mase": "absolute error of the median over that of the naive forecast in the history",
    "log_score": "negative log density of the values of a step, in nats; lower is better",
}


def crps(samples: Tensor, x: Tensor) -> Tensor:
    """The continuous ranked probability score E|X - x| - E|X - X'| / 2, from samples; lower is better.

    It is the fair estimator, with the mean over pairs of different samples, whose expectation is the score of the
    distribution at any number of samples.

    Args:
        samples: of X, ``(S, ...)`` with S at least 2.
        x: observed values, ``(...)``.

    Source: Zamo and Naveau, *Estimation of the continuous ranked probability score with limited information*,
    Mathematical Geosciences 50 (2018).
    """
    size = integer("number of samples", len(samples), 2)
    ordered = samples.sort(0).values
    ranks = torch.arange(1, size + 1, dtype=x.dtype, device=x.device).reshape(-1, *[1] * x.dim())
    pairs = ((2 * ranks - size - 1) * ordered).sum(0) / (size * (size - 1))  # E|X - X'| / 2
    return (samples - x).abs().mean(0) - pairs


@dataclass(frozen=True)
class ForecastScores:
    """Scores of forecasts, averaged over sequences, origins, steps and values.

    Attributes:
        crps: continuous ranked probability score, in the units of the data; lower is better. None for series of several
            values, which may differ in their units.
        mase: absolute error of the median over that of the value ``season`` steps before in the history; below 1 is
            better than this naive forecast. None where no history has such differences.
        log_score: negative log density of each step's values given the data up to the origin, in nats; lower is better.
            An estimate from the samples, ``-log mean p(x | z)``.
        coverage: fraction of values in the central interval of each probability.
        by_value: the CRPS and the scaled error of each value of such series, by its name.
        standard_errors: of each number over sequences, by name (``"coverage 0.8"``, ``"crps sales"``); NaN for one
            sequence.
        num_values, num_steps: number of values and of steps that are scored.
        num_sequences, num_origins: number of sequences and of origins that are scored.
        totals: of each score and sequence: its sum and count, ``(N, 2)`` in float64.
    """

    crps: float | None
    mase: float | None
    log_score: float
    coverage: dict[float, float]
    by_value: dict[str, dict[str, float]]
    standard_errors: dict[str, float]
    num_values: int
    num_steps: int
    num_sequences: int
    num_origins: int
    totals: dict[str, Tensor] = field(repr=False, compare=False)

    def rows(self) -> list[tuple[str, str]]:
        """The scores in words, with their standard errors if there are several sequences."""
        numbers = {name: getattr(self, name) for name in EXPLANATIONS}
        numbers |= {f"{score} {name}": x for name, each in self.by_value.items() for score, x in each.items()}
        numbers |= {f"coverage {level:g}": share for level, share in self.coverage.items()}
        rows = []
        for name, value in numbers.items():
            if value is not None:
                error = self.standard_errors[name]
                text = f"{value:.4f}" if math.isnan(error) else f"{value:.4f} ± {error:.4f}"
                rows.append((name.replace("_", " "), f"{text}  {EXPLANATIONS.get(name.split()[0], '')}".rstrip()))
        return rows

    def __str__(self) -> str:
        return aligned(self.rows())


@torch.no_grad()
def forecast_scores(
    model: Callable[..., Any],
    data: Sequences,
    num_steps: int,
    origins: int = 1,
    stride: int | None = None,
    season: int = 1,
    levels: float | Sequence[float] = LEVELS,
    num_samples: int = NUM_SAMPLES,
    guide: Callable[..., Any] | None = None,
    missing: str = "last",
    batch_size: int | None = None,
    seed: int | None = None,
) -> ForecastScores:
    """Score forecasts from a rolling origin: the last ``num_steps`` of each sequence, those ``stride`` earlier, ...

    Each forecast is given the data up to its origin, and the covariates of the steps that are forecast. Missing values
    are not scored. A sequence has no forecast at an origin with fewer than two steps before it, or from which some of
    the steps are in its history, so that all horizons are scored equally.

    Args:
        model, data, num_steps, num_samples, guide, missing, batch_size, seed: as for
            :func:`~noisin_pyro.forecast`. Sequences whose inputs are neither those of a :class:`Series` nor x_{t-1} are
            forecast with the inputs that they have.
        origins: number of origins.
        stride: steps from one origin to the next (default: ``num_steps``).
        season: lag of the naive forecast in the scaled error: 1 is the last value, 12 that of a year ago in months.
        levels: probabilities of the intervals, or one of them.

    Raises:
        ValueError: as :func:`~noisin_pyro.forecast`, values that are classes, or data with nothing to score.
    """
    num_steps, origins, season = integer("num_steps", num_steps), integer("origins", origins), integer("season", season)
    stride = num_steps if stride is None else integer("stride", stride)
    probabilities: list[float] = np.atleast_1d(np.asarray(levels, dtype=float)).tolist()
    if not all(0 < level < 1 for level in probabilities):
        raise ValueError(f"levels must be between 0 and 1, got {probabilities}")
    if not isinstance(data, Sequences):
        raise ValueError(f"data must be Sequences or a Series, got {type(data).__name__}; for texts use evaluate")
    if data.targets.dim() != 3:
        raise ValueError("data must have values to score, (sequences, time, values), got classes; use evaluate")
    values = data.layout.values if isinstance(data, Series) and len(data.layout.values) > 1 else ()
    totals: dict[str, Tensor] = {}
    num_origins = 0
    for origin in range(origins):
        cut = data.lengths - num_steps - origin * stride
        x, scored, given = _actual(data, cut, num_steps)
        if not scored.any():
            continue
        num_origins += 1
        history = data.until(cut.clamp(min=1))
        options = (num_samples, guide, given, missing, batch_size, None if seed is None else seed + origin)
        is_scored = scored.any(-1)
        possible = x.where(is_scored.unsqueeze(-1), x[is_scored][0])
        drawn, log_p = forecast_with(model, history, num_steps, *options, actual=possible)
        assert log_p is not None
        naive, observed = _naive_error(history, season), x.where(scored, math.nan).double().cpu()
        scores = _scores(drawn.samples.double().cpu(), observed, naive, log_p.double().cpu(), probabilities, values)
        for name, each in scores.items():
            added = torch.stack([each.nansum((1, 2)), (~each.isnan()).sum((1, 2))], 1)
            totals[name] = totals.get(name, 0.0) + added
    if not num_origins:
        raise ValueError(
            f"data have nothing to score: sequences of up to {int(data.lengths.max())} steps, of which up to "
            f"{int(scored_lengths(data).max())} are scored, need 2 steps before the first origin, and {num_steps} with "
            "values after it; forecast fewer steps, or give more data"
        )
    return _averaged(totals, values, probabilities, num_origins)


def scored_lengths(data: Sequences) -> Tensor:
    """Number of steps of each sequence after its history, which is read but not scored, ``(N,)``."""
    if data.mask is None:
        return data.lengths
    hidden = ~data.values.isnan().all(-1) & ~data.mask if isinstance(data, Series) else data.mask.cumsum(1) == 0
    steps = torch.arange(1, hidden.shape[1] + 1, device=hidden.device)
    return (data.lengths - (hidden * steps).max(1).values).clamp(min=0)


def _actual(data: Sequences, cut: Tensor, num_steps: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """In the H steps after ``cut``: values ``(N, H, D)``, which are scored, and the covariates of a forecast."""
    steps = cut.clamp(min=1).unsqueeze(1) + torch.arange(num_steps, device=cut.device)
    index = torch.arange(len(data), device=cut.device).unsqueeze(1), steps.clamp(max=data.targets.shape[1] - 1)
    values = data.values if isinstance(data, Series) else data.targets
    scored = ~values[index].isnan()
    if data.mask is not None:
        scored &= data.mask[index].unsqueeze(-1)
    scored &= ((cut >= 2) & (cut >= data.lengths - scored_lengths(data))).reshape(-1, 1, 1)
    if isinstance(data, Series):
        return values[index], scored, data.covariates[index] if data.layout.covariates else None
    return values[index], scored, None if reads_its_past(data) else data.inputs[index]


def _naive_error(history: Sequences, season: int) -> Tensor:
    """Mean absolute difference of values a season apart, ``(N, D)``; NaN where there is none or it is 0."""
    if isinstance(history, Series):
        values = history.values
    else:
        hidden = history.beyond if history.mask is None else ~history.mask
        values = history.targets.masked_fill(hidden.unsqueeze(-1), torch.nan)
    if values.shape[1] <= season:
        return values.new_full((len(values), values.shape[2]), torch.nan, dtype=torch.float64).cpu()
    differences = (values[:, season:] - values[:, :-season]).abs().double().cpu()
    error = differences.nansum(1) / (~differences.isnan()).sum(1)
    return error.where(error > 0, torch.nan)


def _scores(
    samples: Tensor, x: Tensor, naive: Tensor, log_p: Tensor, levels: Sequence[float], names: Sequence[str]
) -> dict[str, Tensor]:
    """Scores of each value ``(N, H, D)``, of those with names ``(N, H, 1)``, and of each step ``(N, H, 1)``.

    They are NaN where x is NaN, which is not scored.
    """
    quantiles = np.quantile(
        samples.numpy(), [0.5, *((1 + side * level) / 2 for level in levels for side in (-1, 1))], 0, method="weibull"
    )
    median, *ends = torch.from_numpy(quantiles)
    scores = {"crps": crps(samples, x), "mase": (x - median).abs() / naive.unsqueeze(1)}
    scores |= {f"{name} {value}": scores[name][..., [d]] for name in PER_VALUE for d, value in enumerate(names)}
    for level, low, high in zip(levels, ends[::2], ends[1::2], strict=True):
        scores[f"coverage {level:g}"] = ((low <= x) & (x <= high)).double().where(~x.isnan(), math.nan)
    # a density that is NaN is not left out
    log_score = -log_mean_exp(log_p).nan_to_num(-math.inf, math.inf, -math.inf)
    return scores | {"log_score": log_score.where(~x.isnan().all(-1), math.nan).unsqueeze(-1)}


def _averaged(
    totals: dict[str, Tensor], values: Sequence[str], levels: Sequence[float], num_origins: int
) -> ForecastScores:
    numbers, errors = {}, {}
    for name, (sums, counts) in ((name, each.unbind(1)) for name, each in totals.items()):
        if counts.any():
            numbers[name], errors[name] = per_step(-sums, counts)
    counts = totals["crps"][:, 1]
    return ForecastScores(
        None if values else numbers["crps"],
        numbers.get("mase"),
        numbers["log_score"],
        {level: numbers[f"coverage {level:g}"] for level in levels},
        {value: {n: numbers[f"{n} {value}"] for n in PER_VALUE if f"{n} {value}" in numbers} for value in values},
        {name: error for name, error in errors.items() if name != "crps" or not values},
        num_values=int(counts.sum()),
        num_steps=int(totals["log_score"][:, 1].sum()),
        num_sequences=int((counts > 0).sum()),
        num_origins=num_origins,
        totals=totals,
    )
