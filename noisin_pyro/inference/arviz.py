"""Interface to ArviZ. All code that depends on ArviZ's version is here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

Variables = dict[str, tuple[tuple[str, ...], np.ndarray]]  # name: (names of dimensions, values)
Groups = dict[str, Variables]

EQUAL = 1e-3
"""Log-weights that differ by less are equal up to float32 rounding; no tail is fitted to them."""


def to_arviz(groups: Mapping[str, Variables], coords: Mapping[str, Any], attrs: Mapping[str, Any]) -> Any:
    """An ``InferenceData`` (ArviZ 0.23) or an ``xarray.DataTree`` (ArviZ 1).

    Args:
        groups: variables by group (``posterior`` and so on); the first dimensions of draws are ``chain``, ``draw``.
        coords: coordinates of dimensions that do not start at 0.
        attrs: attributes of the result and of each group, strings and numbers.
    """
    import xarray

    arviz = load()
    attrs = {**attrs, "arviz_version": arviz.__version__}
    datasets = {}
    for group, variables in groups.items():
        sizes = {dim: n for dims, values in variables.values() for dim, n in zip(dims, values.shape, strict=True)}
        indices = {dim: coords.get(dim, np.arange(size)) for dim, size in sizes.items()}
        datasets[group] = xarray.Dataset(variables, indices, attrs)
    if _is_before_1():
        return arviz.InferenceData(attrs=attrs, **datasets)
    return xarray.DataTree.from_dict({"/": xarray.Dataset(attrs=attrs), **datasets})


def interval(probability: float, plot: bool = False) -> dict[str, Any]:
    """Keyword arguments for highest-density intervals with this probability, for ``az.summary`` or for plots.

    The defaults differ between versions: a 94 % highest-density interval in ArviZ 0.23, 89 % equal-tailed in ArviZ 1.
    """
    if _is_before_1():
        return {"hdi_prob": probability}
    return {"ci_kind": "hdi", "ci_probs": (0.5, probability)} if plot else {"ci_kind": "hdi", "ci_prob": probability}


def pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """The shape k̂ of the Pareto tail of each row of log-weights, ``(N,)`` from ``(N, S)``.

    It is infinite if fewer than five weights are in the tail (with fewer than about 25 samples, or if nearly all
    weights vanish), and -infinite if all weights are equal.

    Source: Vehtari, Simpson, Gelman, Yao, Gabry, *Pareto smoothed importance sampling*, JMLR 25 (2024).
    """
    log_weights = np.asarray(log_weights, dtype=np.float64)
    highest = log_weights.max(1)
    equal = log_weights.min(1) > highest - EQUAL
    fitted = np.isfinite(highest) & ~equal
    k = np.where(equal, -np.inf, np.inf)
    if fitted.any():
        with np.errstate(all="ignore"):  # intermediate values overflow for very heavy tails
            _, k[fitted] = _psislw(log_weights[fitted])
    return k


def _psislw(log_weights: np.ndarray) -> Any:
    if _is_before_1():
        return load().psislw(log_weights)
    from arviz_stats.base import array_stats  # pyright: ignore[reportMissingImports]

    return array_stats.psislw(-log_weights)  # expects log-likelihoods, the negative log-weights


def _is_before_1() -> bool:
    return load().__version__.startswith("0.")


def load() -> Any:
    """Import ``arviz`` on first use, since the import takes a second or two."""
    with warnings.catch_warnings():
        # ArviZ 0.23 issues this warning once a day
        warnings.filterwarnings("ignore", r"\s*ArviZ is undergoing a major refactor", FutureWarning)
        import arviz

    return arviz
