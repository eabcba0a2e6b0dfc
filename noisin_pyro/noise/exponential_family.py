"""Laws in canonical exponential-family form, p(x) = exp(η·t(x) − A(η)) ν(x) (section 2.2 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributions as td
from torch.nn.functional import softplus

Function = Callable[[Tensor], Tensor]


def _zero(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def _zero_of_vector(x: Tensor) -> Tensor:
    return torch.zeros_like(x[..., 0])


@dataclass(frozen=True)
class ExponentialFamily:
    """A law in canonical form, log p(x) = η·t(x) − A(η) + log ν(x), so that ∇A(η) = E[t(x)].

    x is a scalar, shape ``(...)``, or for categorical and dirichlet a vector, ``(..., H)``.

    Attributes:
        natural_parameter: η, shape ``(K,)``.
        statistic: the sufficient statistic t, from x to ``(..., K)``.
        log_normalizer: A, from η to a scalar.
        log_base_measure: log ν, from x to ``(...)``; default: 0.
        held_fixed: the parameter of the law that is held fixed because it is part of t or ν; empty if there is none.
    """

    natural_parameter: Tensor
    statistic: Function
    log_normalizer: Function
    log_base_measure: Function = _zero
    held_fixed: str = ""


def canonical_form(law: td.Distribution) -> ExponentialFamily | None:
    """The canonical form of a law of one unit or of a joint law; None if it has none or none is implemented."""
    for law_type, convert in _CANONICAL.items():
        if isinstance(law, law_type):
            return convert(law)
    return None


def _normal(law: Any) -> ExponentialFamily:
    variance = law.scale.square()
    return ExponentialFamily(
        torch.stack([law.loc / variance, -0.5 / variance]),
        lambda x: torch.stack([x, x.square()], -1),
        lambda eta: -eta[0].square() / (4 * eta[1]) + 0.5 * (math.pi / -eta[1]).log(),
    )


def _laplace(law: Any) -> ExponentialFamily:
    return ExponentialFamily(
        (-1 / law.scale).reshape(1),
        lambda x: (x - law.loc).abs().unsqueeze(-1),
        lambda eta: (-2 / eta[0]).log(),
        held_fixed="location",
    )


def _gumbel(law: Any) -> ExponentialFamily:
    return ExponentialFamily(
        -(law.loc / law.scale).exp().reshape(1),
        lambda x: (-x / law.scale).exp().unsqueeze(-1),
        lambda eta: -(-eta[0]).log(),
        lambda x: -x / law.scale - law.scale.log(),
        "scale",
    )


def _chi2(law: Any) -> ExponentialFamily:
    return ExponentialFamily(
        (law.concentration - 1).reshape(1),
        lambda x: x.log().unsqueeze(-1),
        lambda eta: torch.lgamma(eta[0] + 1) + (eta[0] + 1) * math.log(2),
        lambda x: -x / 2,
        "rate (1/2)",
    )


def _gamma(law: Any) -> ExponentialFamily:
    return ExponentialFamily(
        torch.stack([law.concentration - 1, -law.rate]),
        lambda x: torch.stack([x.log(), x], -1),
        lambda eta: torch.lgamma(eta[0] + 1) - (eta[0] + 1) * (-eta[1]).log(),
    )


def _exponential(law: Any) -> ExponentialFamily:
    return ExponentialFamily(
        -law.rate.reshape(1),
        lambda x: x.unsqueeze(-1),
        lambda eta: -(-eta[0]).log(),
    )


def _beta(law: Any) -> ExponentialFamily:
    return ExponentialFamily(
        torch.stack([law.concentration1 - 1, law.concentration0 - 1]),
        lambda x: torch.stack([x.log(), (-x).log1p()], -1),
        lambda eta: torch.lgamma(eta + 1).sum() - torch.lgamma(eta.sum() + 2),
    )


def _bernoulli(law: Any) -> ExponentialFamily:
    return ExponentialFamily(
        law.logits.reshape(1),
        lambda x: x.unsqueeze(-1),
        lambda eta: softplus(eta[0]),
    )


def _poisson(law: Any) -> ExponentialFamily:
    return ExponentialFamily(
        law.rate.log().reshape(1),
        lambda x: x.unsqueeze(-1),
        lambda eta: eta[0].exp(),
        lambda x: -torch.lgamma(x + 1),
    )


def _categorical(law: Any) -> ExponentialFamily:
    return ExponentialFamily(law.logits, lambda x: x, lambda eta: eta.logsumexp(-1), _zero_of_vector)


def _dirichlet(law: Any) -> ExponentialFamily:
    return ExponentialFamily(
        law.concentration - 1,
        lambda x: x.log(),
        lambda eta: torch.lgamma(eta + 1).sum() - torch.lgamma((eta + 1).sum()),
        _zero_of_vector,
    )


# Chi2 precedes Gamma, its base class.
_CANONICAL: dict[type[td.Distribution], Callable[[Any], ExponentialFamily]] = {
    td.Normal: _normal,
    td.Laplace: _laplace,
    td.Gumbel: _gumbel,
    td.Chi2: _chi2,
    td.Gamma: _gamma,
    td.Exponential: _exponential,
    td.Beta: _beta,
    td.Bernoulli: _bernoulli,
    td.Poisson: _poisson,
    td.OneHotCategorical: _categorical,
    td.Dirichlet: _dirichlet,
}
