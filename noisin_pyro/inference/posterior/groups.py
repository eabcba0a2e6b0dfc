"""The groups of an ``InferenceData``, as plain arrays with named dimensions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from noisin_pyro.data import Batch, Sequences
from noisin_pyro.inference.arviz import Groups, Variables
from noisin_pyro.inference.blocks import blocks
from noisin_pyro.inference.evaluation.evaluate import evaluate
from noisin_pyro.inference.observed import observed_steps, steps_of
from noisin_pyro.inference.posterior.samplers import Latents, is_shared, run
from noisin_pyro.inference.traces import all_sites
from noisin_pyro.models import NoisyPath, SpreadPrior, site_info
from noisin_pyro.models.output import require_output


def groups_of(model: Callable[..., Any], batch: Batch, latents: Latents, num_draws: int, draws_per_run: int) -> Groups:
    """Run the model at ``num_draws`` draws of its latents. Other latents are drawn from the prior.

    Args:
        latents: draws of sites, ``(num_draws, B, ...)`` or ``(num_draws, 1, ...)``.
        draws_per_run: number of draws in one run of the model.

    Returns:
        the groups ``posterior`` (states, γ, weights), ``posterior_predictive`` and ``log_likelihood``. The first axis
        of each array is the draw; it has no name.
    """
    groups: dict[str, dict[str, Any]] = {}
    for block in blocks(num_draws, draws_per_run):
        given = {name: value[block] for name, value in latents.items()}
        size = block.stop - block.start
        trace, _ = run(poutine.condition(model, given), batch, size)
        for group, variables in _groups(trace, batch, given, size).items():
            for name, (dims, values) in variables.items():
                arrays = groups.setdefault(group, {})
                if name not in arrays:
                    arrays[name] = (dims, np.empty((num_draws, *values.shape[1:]), values.dtype))
                arrays[name][1][block] = values
    return groups


def observed(batch: Batch) -> Variables:
    """The variables of the group ``observed_data``."""
    return {"x": (_x_dims(batch), _padded(batch.targets.unsqueeze(0), steps_of(batch))[0])}


def coords(batch: Batch) -> dict[str, np.ndarray]:
    """Coordinates of dimensions that do not start at 0: time starts at 1, as in the names of sites."""
    return {"time": np.arange(1, batch.targets.shape[1] + 1)}


def marginal(model: Callable[..., Any], data: Sequences, shared: Latents, num_particles: int) -> Variables:
    """log p(x | γ, weights) of each sequence, by a particle filter at each draw of the shared latents."""
    rows = []
    for draw in range(len(next(iter(shared.values())))):
        given = {name: value[draw, 0] for name, value in shared.items()}
        network = poutine.condition(model, given)
        result = evaluate(network, data, "particle-filter", num_particles, log_probs=True, islands=1)
        assert result.log_probs is not None
        rows.append(result.log_probs.sum(-1))
    return {"x_marginal": (("sequence",), torch.stack(rows).cpu().numpy())}


def _groups(trace: Trace, batch: Batch, given: Latents, size: int) -> Groups:
    real = steps_of(replace(batch, mask=None))
    latents: Variables = {}
    sites = all_sites(trace)
    for site in sites:
        name, value = site["name"], site["value"]
        info = site_info(site)
        computed = info.computed is not None
        if site["is_observed"] and not computed and name not in given:
            continue  # the data, or a site that the user conditions on
        if computed or isinstance(site["fn"], NoisyPath):
            dims = ("sequence", "time", f"unit_{name.rpartition('_')[2]}")
            latents[name] = (dims, _padded(value.expand(size, *value.shape[-3:]), real))
        elif info.family is None:  # noise is skipped: the posterior contains the states instead
            law = site["fn"]
            name = f"gamma_{law.layer}" if isinstance(law, SpreadPrior) and law.layer is not None else name
            latents.update(_other(name, value, is_shared(site)))
    nodes: dict[str, Any] = dict(trace.nodes)
    emission: Any = require_output(nodes["_RETURN"]["value"]).emission
    emission = emission.expand((size, *batch.targets.shape[:2]))
    dims = _x_dims(batch)
    scored = observed_steps([site for site in sites if site["name"] not in given], batch)
    return {
        "posterior": latents,
        "posterior_predictive": {"x": (dims, _padded(emission.sample(), real))},
        "log_likelihood": {"x": (dims[:2], _padded(emission.log_prob(batch.targets), scored))},
    }


def _other(name: str, value: Tensor, shared: bool) -> Variables:
    """A latent other than a state, under its name."""
    first = () if shared else ("sequence",)
    value = value.squeeze(1) if shared else value
    own = value.dim() - 1 - len(first)
    return {name: ((*first, *(f"{name}_dim_{i}" for i in range(own))), value.cpu().numpy())}


def _x_dims(batch: Batch) -> tuple[str, ...]:
    return ("sequence", "time", "feature")[: batch.targets.dim()]


def _padded(values: Tensor, steps: Tensor) -> np.ndarray:
    """Values ``(S, B, T, ...)`` as an array, with NaN at steps other than these ``(B, T)``."""
    array, present = values.cpu().numpy(), steps.cpu().numpy()
    if present.all():
        return array
    floats = array if array.dtype.kind == "f" else array.astype(np.float64)
    return np.where(present.reshape(1, *present.shape, *[1] * (array.ndim - 3)), floats, floats.dtype.type(np.nan))
