"""What ArviZ computes for us, from plain arrays to plain arrays: all that depends on its version is here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

Variables = dict[str, tuple[tuple[str, ...], np.ndarray]]  # by name: its dimensions' names, and its values
Groups = dict[str, Variables]

EQUAL = 1e-3
"""Log-weights that differ by less are those of equal weights, but for rounding in float32: no tail to fit."""


def to_arviz(groups: Mapping[str, Variables], coords: Mapping[str, Any], attrs: Mapping[str, Any]) -> Any:
    """What ArviZ reads: an ``InferenceData`` of version 0.23, an ``xarray.DataTree`` of version 1.

    Args:
        groups: ``posterior`` and so on; draws have the dimensions ``chain`` and ``draw`` in front.
        coords: of each dimension that is not counted from 0.
        attrs: of the whole and of each group: strings and numbers.
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
    """The keywords that ask for highest-density intervals of this probability: of ``az.summary``, or of the plots.

    To be given always: ArviZ's own is of highest density and 94 per cent in version 0.23, of equal tails and 89 in 1.
    """
    if _is_before_1():
        return {"hdi_prob": probability}
    return {"ci_kind": "hdi", "ci_probs": (0.5, probability)} if plot else {"ci_kind": "hdi", "ci_prob": probability}


def pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """The shape k̂ of the Pareto tail of each row of log-weights, ``(N, S)`` to ``(N,)``.

    Infinite where fewer than five weights are in the tail (with fewer than some 25 samples, or where all but a few
    vanish), -infinite where all weights are equal.

    Source: Vehtari, Simpson, Gelman, Yao, Gabry, *Pareto smoothed importance sampling*, JMLR 25 (2024).
    """
    log_weights = np.asarray(log_weights, dtype=np.float64)
    highest = log_weights.max(1)
    equal = log_weights.min(1) > highest - EQUAL
    fitted = np.isfinite(highest) & ~equal
    found = np.where(equal, -np.inf, np.inf)
    if fitted.any():
        with np.errstate(all="ignore"):  # hopeless tails overflow on the way to a large k̂
            _, found[fitted] = _psislw(log_weights[fitted])
    return found


def _psislw(log_weights: np.ndarray) -> Any:
    if _is_before_1():
        return load().psislw(log_weights)
    from arviz_stats.base import array_stats  # pyright: ignore[reportMissingImports]

    return array_stats.psislw(-log_weights)  # it takes log-likelihoods, whose weights are their inverses


def _is_before_1() -> bool:
    return load().__version__.startswith("0.")


def load() -> Any:
    """The package, imported where it is first needed: that takes a second or two."""
    with warnings.catch_warnings():
        # once a day version 0.23 announces version 1
        warnings.filterwarnings("ignore", r"\s*ArviZ is undergoing a major refactor", FutureWarning)
        import arviz

    return arviz
