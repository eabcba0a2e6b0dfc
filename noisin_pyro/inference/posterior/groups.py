"""What is to be seen of a model's draws, as plain arrays with named dimensions."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from noisin_pyro.data import Batch, Sequences
from noisin_pyro.inference.arviz_adapter import Groups, Variables
from noisin_pyro.inference.draws import Latents, is_shared, pieces, run
from noisin_pyro.inference.evaluation import evaluate
from noisin_pyro.inference.sites import sample_sites
from noisin_pyro.models import NoisyPath, real_steps

_SPREAD = re.compile(r"(?:^|.*\.)spread_(\d+)\.gamma$")


def see(model: Callable[..., Any], batch: Batch, latents: Latents, num_draws: int, at_once: int) -> Groups:
    """Run the model at so many draws of its latents; what is not among them is drawn from the prior.

    Returns:
        ``posterior`` (states, γ, weights), ``posterior_predictive`` and ``log_likelihood``, a draw along each array's
        first axis, which is not among the named dimensions.
    """
    found: dict[str, dict[str, Any]] = {}
    for piece in pieces(num_draws, at_once):
        given = {name: value[piece] for name, value in latents.items()}
        size = piece.stop - piece.start
        trace, _ = run(poutine.condition(model, given), batch, size)
        for group, variables in _groups(trace, batch, given, size).items():
            for name, (dims, values) in variables.items():
                whole = found.setdefault(group, {})
                if name not in whole:
                    whole[name] = (dims, np.empty((num_draws, *values.shape[1:]), values.dtype))
                whole[name][1][piece] = values
    return found


def observed(batch: Batch) -> Variables:
    """The data themselves."""
    return {"x": (_x_dims(batch), _padded(batch.targets.unsqueeze(0), batch)[0])}


def coordinates(batch: Batch) -> dict[str, np.ndarray]:
    """Of the dimensions whose numbers are not indices from 0: time counts from 1, as sites do."""
    return {"time": np.arange(1, batch.targets.shape[1] + 1)}


def marginal(model: Callable[..., Any], data: Sequences, shared: Latents, num_particles: int) -> Variables:
    """log p(x | γ, weights) of each sequence, by a particle filter at each draw of what the sequences share."""
    rows = []
    for draw in range(len(next(iter(shared.values())))):
        given = {name: value[draw, 0] for name, value in shared.items()}
        network = poutine.condition(model, given)
        found = evaluate(network, data, "particle-filter", num_particles, log_probs=True, islands=1)
        assert found.log_probs is not None
        rows.append(found.log_probs.sum(-1))
    return {"x_marginal": (("sequence",), torch.stack(rows).cpu().numpy())}


def _groups(trace: Trace, batch: Batch, given: Latents, size: int) -> Groups:
    latents: Variables = {}
    for site in sample_sites(trace):
        name, value = site["name"], site["value"]
        computed = "computed" in site["infer"]
        if site["is_observed"] and not computed and name not in given:
            continue  # data, or what the user conditions on
        if computed or isinstance(site["fn"], NoisyPath):
            dims = ("sequence", "time", f"unit_{name.rpartition('_')[2]}")
            latents[name] = (dims, _padded(value.expand(size, *value.shape[-3:]), batch))
        elif "family" not in site["infer"]:  # else the noise of a state, seen as that
            latents.update(_other(name, value, is_shared(site)))
    nodes: dict[str, Any] = dict(trace.nodes)
    emission = nodes["_RETURN"]["value"].emission
    emission = emission.expand((size, *batch.targets.shape[:2]))
    dims = _x_dims(batch)
    return {
        "posterior": latents,
        "posterior_predictive": {"x": (dims, _padded(emission.sample(), batch))},
        "log_likelihood": {"x": (dims[:2], _padded(emission.log_prob(batch.targets), batch))},
    }


def _other(site: str, value: Tensor, shared: bool) -> Variables:
    """γ by its layer, and any other by its site's name."""
    layer = _SPREAD.match(site)
    name = site if layer is None else f"gamma_{layer[1]}"
    first = () if shared else ("sequence",)
    value = value.squeeze(1) if shared else value
    own = value.dim() - 1 - len(first)
    return {name: ((*first, *(f"{name}_dim_{i}" for i in range(own))), value.cpu().numpy())}


def _x_dims(batch: Batch) -> tuple[str, ...]:
    return ("sequence", "time", "feature")[: batch.targets.dim()]


def _padded(values: Tensor, batch: Batch) -> np.ndarray:
    """``(S, B, T, ...)`` with NaN beyond the sequences' lengths."""
    array = values.cpu().numpy()
    if batch.lengths is None:
        return array
    real = real_steps(batch.lengths, values.shape[2]).cpu().numpy()
    floats = array if array.dtype.kind == "f" else array.astype(np.float64)
    return np.where(real.reshape(1, *real.shape, *[1] * (array.ndim - 3)), floats, floats.dtype.type(np.nan))
