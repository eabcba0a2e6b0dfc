"""Small networks, data and traces for the tests of guides."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.inference.traces import all_sites
from noisin_pyro.models import NoisyRNN, SequenceModel


def make(cell: str = "tanh", noise: str = "gaussian", layers: int = 2, **options: Any) -> SequenceModel:
    options = {key: value() if callable(value) else value for key, value in {"spread": 0.4, **options}.items()}
    prior = options.pop("weight_prior", "dirac")
    return SequenceModel(NoisyRNN(3, 4, layers, cell=cell, noise=noise, **options), "bernoulli", 2, prior).double()


def data(batch: int = 3, steps: int = 5) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, steps, 3).double(), torch.bernoulli(torch.full((batch, steps, 2), 0.5)).double()


def perturbed(guide: Any, by: float = 0.3) -> Any:
    """The guide with randomly perturbed parameters."""
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return guide


def traces(model: SequenceModel, guide: Any, *args: Any, particles: int = 1, **kwargs: Any) -> tuple[Any, Any]:
    elbo = nz.PriorAsGuide_ELBO(particles, max_plate_nesting=1)
    (pair,) = elbo._get_traces(nz.innovations(model), guide, args, kwargs)
    return pair


def log_weights(model: SequenceModel, guide: Any, *args: Any, particles: int = 1, **kwargs: Any) -> Tensor:
    """log p(x, ε) - log q(ε) of each particle and sequence."""
    in_model, in_guide = traces(model, guide, *args, particles=particles, **kwargs)
    terms = [site["log_prob"] for site in all_sites(in_model) if "log_prob" in site]
    terms += [-site["log_prob"] for site in all_sites(in_guide)]
    return torch.stack(torch.broadcast_tensors(*terms)).sum(0)


def price(model: SequenceModel, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
    """log p(ε) - log q(ε) of one draw."""
    in_model, in_guide = traces(model, guide, *args, **kwargs)
    terms = [site["log_prob_sum"] for site in all_sites(in_model) if not site["is_observed"]]
    terms += [-site["log_prob_sum"] for site in all_sites(in_guide)]
    return torch.stack(terms).sum()


def learned() -> nz.Spread:
    return nz.Spread(0.4, learn=True)


def uncertain() -> nz.Spread:
    return nz.Spread(prior=dist.Gamma(2.0, 4.0))
