"""The second-order approximation of output noise as a regularizer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import Dirichlet, OneHotCategorical

from noisin_pyro.data import Batch, Sequences, Stream
from noisin_pyro.inference.blocks import block_size
from noisin_pyro.inference.observed import steps_of
from noisin_pyro.inference.traces import latent_sites
from noisin_pyro.models import (
    Bernoulli,
    Categorical,
    Emission,
    Gaussian,
    NoisyPath,
    Poisson,
    SequenceModel,
    underlying,
)
from noisin_pyro.models._module import in_context
from noisin_pyro.models.noisy_path import step_law
from noisin_pyro.models.noisy_rnn import State

NATURAL = Categorical, Bernoulli, Gaussian, Poisson
"""Emissions whose read-out is the natural parameter of an exponential family."""


@torch.no_grad()
def noise_penalty(model: Callable[..., Any], data: Sequences | Stream, batch_size: int | None = None) -> float:
    """½ Σ_t tr E[Cov(Bᵀ z_t | z_{t-1})], B = V √(∇²A(Vᵀ h_t)), in nats per step.

    This is the expected loss minus the loss of the noise-free network, to second order in γ, for noise on the output
    only (``feedback=False``, strongly unbiased). z_t varies around the deterministic h_t, V is the weight matrix of the
    emission, and A is its log-normalizer. For independent units with variances v_i (γ², or γ² h_i² for multiplicative
    noise) it equals ½ Σ_t Σ_i v_i [V ∇²A Vᵀ]_ii. It does not depend on the targets.

    Args:
        model: a :class:`SequenceModel` with ``feedback=False``, in any view but ``noise_off``. Without noise the
            penalty is 0.
        data: padded sequences, or a stream (its states are carried from window to window).
        batch_size: number of sequences per call; only for :class:`Sequences` (default: all).

    Raises:
        ValueError: noise that feeds back (the term then involves the Hessian of the whole loss); dropout; sampled
            weights or γ; an emission, or a joint law of the units, that is not built in.

    Source: Dieng et al. (2018).
    """
    program, conditions = underlying(model)
    if not isinstance(program, SequenceModel):
        kind = type(program).__name__
        raise ValueError(f"noise_penalty: model must be a SequenceModel, in any view but noise_off, got {kind}")
    rnn = program.rnn
    program.dropout.refuse("noise_penalty does not support dropout")
    if not rnn.noisy_layers:
        return 0.0
    if rnn.feedback:
        raise ValueError(
            f"noise_penalty needs noise on the output only, but the noise of layers {rnn.noisy_layers} feeds back, so "
            "that the term involves the Hessian of the whole loss; build the model with feedback=False"
        )
    if type(program.emission) not in NATURAL:
        kind, names = type(program.emission).__name__, ", ".join(each.__name__.lower() for each in NATURAL)
        raise ValueError(
            f"noise_penalty supports the emissions {names} (natural parameters are read out), got {kind}; use one"
        )
    if program.emission.hidden is not None:
        raise ValueError("noise_penalty needs a linear read-out, got one with a hidden layer; leave it out")
    total, steps, state = 0.0, 0, None
    with contextlib.ExitStack() as handlers:
        for condition in (poutine.block(), *conditions):
            handlers.enter_context(condition)
        for batch in data.batches(batch_size):
            penalty, state = _penalty_of_batch(program, batch, state if batch.carried else None)
            total, steps = total + float(penalty), steps + batch.num_steps
    return total / steps


@in_context  # in the model's context, so that conditioned weights are found by their sites' names
def _penalty_of_batch(program: SequenceModel, batch: Batch, state: State | None) -> tuple[Tensor, State]:
    """Sum of the penalty over all steps of a batch, in nats, and the noise-free state after it."""
    trace = poutine.trace(program).get_trace(batch.inputs, batch.targets, state=state, **batch.keywords)
    latents = latent_sites(prune_subsample_sites(trace))
    for site in latents:
        if not isinstance(site["fn"], NoisyPath):
            name = site["name"]
            raise ValueError(f"noise_penalty needs fixed weights and γ, but {name!r} is sampled; condition on it first")
    if not latents:
        raise ValueError("noise_penalty needs sampled noise, but the states are conditioned on; drop that condition")
    path = latents[0]["fn"]
    h = path.clean()
    rows = h[steps_of(batch)]
    block = block_size(2 * program.emission.output_size)  # two tensors: the curvature, and its square or a product
    parts = [
        _penalty_of_steps(program.emission, step_law(path.family, path.spread, part), part)
        for part in rows.split(block)
    ]
    returned: Any = trace.nodes["_RETURN"]
    return torch.cat(parts).double().sum(), returned["value"].state


def _penalty_of_steps(emission: Emission, noise: TorchDistribution, h: Tensor) -> Tensor:
    """½ tr(Cov(z) V ∇²A Vᵀ) of each step, ``(N,)``, at the means h ``(N, H)``."""
    matrix = emission.linear.weight  # Vᵀ, (D, H)
    curvature, couples = _curvature(emission, h)

    def through(y: Tensor, square: Tensor) -> Tensor:
        """yᵀ ∇²A y = Σ_d a_d y_d², minus (Σ_d a_d y_d)² for a softmax, where a is the curvature."""
        return square - y.square() if couples else square

    diagonal = through(curvature @ matrix, curvature @ matrix.square())  # [V ∇²A Vᵀ]_ii, (N, H)
    law: Any = getattr(noise, "law", None)
    if not getattr(law, "joint", False):
        return (noise.variance * diagonal).sum(-1) / 2
    own, shared = _coupled(law)
    scale = noise.scale  # type: ignore[attr-defined]
    y = (scale * shared) @ matrix.mT
    together = through((curvature * y).sum(-1), (curvature * y.square()).sum(-1))
    return ((scale.square() * own * diagonal).sum(-1) - together) / 2


def _curvature(emission: Emission, h: Tensor) -> tuple[Tensor, bool]:
    """a ``(N, D)``, and whether the emission is a softmax. ∇²A is diag(a), or diag(a) − a aᵀ for a softmax."""
    law: Any = emission(h)
    if emission.event_dim == 0:
        return law.probs, True
    variance = law.base_dist.variance  # ∇²A is the variance, in the natural parameter of an exponential family
    return (variance.reciprocal() if type(emission) is Gaussian else variance), False


def _coupled(law: Any) -> tuple[Tensor, Tensor]:
    """d and s, ``(H,)`` each, of Cov(ε) = diag(d) − s sᵀ, from κ (diag(p) − p pᵀ) of one-hot and Dirichlet laws."""
    if not isinstance(law.raw, OneHotCategorical | Dirichlet):
        kind = type(law.raw).__name__
        raise ValueError(f"noise_penalty does not support {kind}, a joint law of the units; use another family")
    p, variance = law.raw_mean, law.raw_std.square()
    kappa = (variance / (p * (1 - p)))[..., :1]
    return kappa * p / variance, kappa.sqrt() * p / law.raw_std
