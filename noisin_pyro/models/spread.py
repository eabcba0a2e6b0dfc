"""γ, the spread of a layer's noise: fixed, learned above a floor, or with a prior (paper, section 3)."""

from __future__ import annotations

import copy
import math
from numbers import Real
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroParam, PyroSample
from torch import Tensor, nn

from noisin_pyro._lookup import as_number
from noisin_pyro.models._module import ReusableModule
from noisin_pyro.noise.supports import bounds

PAPER_FLOOR = 0.1  # section 4: "we added a constant of 0.1"


class SpreadPrior(dist.Independent):
    """The prior of one layer's γ, by which its site is recognized.

    Attributes:
        layer: the layer's number, 0 for the inputs; None outside a :class:`NoisyRNN`.
    """

    layer: int | None = None

    def expand(self, batch_shape: Any, _instance: Any = None) -> SpreadPrior:
        new: Any = super().expand(batch_shape, _instance)
        new.layer = self.layer
        return new


class Spread(ReusableModule):
    """The spread γ of one layer: one number, shared by the layer's units.

    - ``Spread(0.3)``: fixed. ``Spread(0.0)`` draws nothing: the layer is deterministic.
    - ``Spread(0.3, learn=True)``: learned as γ = floor + softplus(ρ), starting at 0.3 (section 4 of the paper).
    - ``Spread(prior=dist.Gamma(2.0, 4.0))``: sampled, at the site ``….gamma``, and so in the posterior.

    Args:
        value: γ, or its initial value if it is learned; 0.3 by default. In units of the state (additive noise) or
            relative to it (multiplicative noise), as ``noisin_pyro.noise`` says for each family.
        floor: lower bound of a learned γ; 0.1 by default, as in the paper.
        learn: whether γ is a parameter.
        prior: a distribution of one positive number.

    Raises:
        ValueError: for a negative or infinite value, an initial value at or below the floor, a floor without learning,
            a prior together with a value, or a prior that reaches below zero.
    """

    excess: Any
    gamma: Any

    def __init__(
        self,
        value: float | None = None,
        floor: float | None = None,
        learn: bool = False,
        prior: Any = None,
    ) -> None:
        super().__init__()
        if prior is not None and (value is not None or learn):
            raise ValueError("Spread: a prior replaces value and learn; give either the prior or them")
        if floor is not None and not learn:
            raise ValueError(f"spread: the floor {floor:g} has no effect on one that is not learned; leave it out")
        value = 0.3 if value is None else as_number(value)
        if isinstance(value, bool) or not (isinstance(value, Real) and 0.0 <= value < math.inf):
            raise ValueError(
                f"Spread: value must be a finite number >= 0, got {value!r}; a learned γ is Spread(0.3, learn=True)"
            )
        value = float(value)
        self.initial, self.fixed = value, None if learn or prior is not None else value
        self.floor = 0.0
        self.prior = prior
        self.layer: int | None = None
        if learn:
            self.floor = PAPER_FLOOR if floor is None else float(floor)
            if not 0.0 <= self.floor < value:
                raise ValueError(
                    f"spread: a learned one starts above its floor, got {value:g} and floor {self.floor:g}"
                )
            self.excess = PyroParam(torch.tensor(value - self.floor), constraint=constraints.softplus_positive)
        elif prior is not None:
            if not isinstance(prior, TorchDistributionMixin):
                raise ValueError(f"Spread: prior must be a Pyro distribution, got {prior!r}")
            lower, _ = bounds(prior.support)
            if prior.shape() != torch.Size() or lower is None or lower < 0:
                raise ValueError(f"Spread: prior must be of one positive number, got {prior} of shape {prior.shape()}")
            self.gamma = PyroSample(_spread_prior)

    def reset_parameters(self) -> None:
        """Give a learned γ its initial value again, as after ``module.to_empty``."""
        if self.fixed is None and self.prior is None:
            self.excess = torch.tensor(self.initial - self.floor)

    def of_layer(self, layer: int) -> Spread:
        """A copy of its own for the layer with that number; 0 is the inputs."""
        own = copy.deepcopy(self)
        own.layer = layer
        return own

    @property
    def is_zero(self) -> bool:
        """Whether the layer is deterministic: fixed at 0."""
        return self.fixed == 0.0

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("value", "learn"):
            raise ValueError(f"{name} is an argument of Spread; make a new one, and give it to rnn.set_spread")
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        if self.prior is not None:
            return f"prior={self.prior}"
        if self.fixed is not None:
            return f"{self.fixed:g}"
        gamma = "?" if self.excess.is_meta else f"{self.floor + float(self.excess.detach()):g}"
        return f"{gamma}, floor={self.floor:g}, learn=True"

    def keep_below(self, largest: float) -> None:
        """Keep γ below ``largest`` (1 for native beta).

        Raises:
            ValueError: for a value, an initial value or a prior that reaches it.
        """
        if largest == math.inf:
            return
        if self.fixed is not None:
            if self.fixed >= largest:
                raise ValueError(f"spread must be below {largest:g} for this noise, got {self.fixed:g}")
        elif self.prior is not None:
            _, upper = bounds(self.prior.support)
            if upper is None or upper > largest:
                raise ValueError(f"the prior of spread must end at {largest:g} for this noise, got {self.prior}")
        else:
            # The meta device has no values: there the parameter is as it was made.
            start = self.initial if self.excess.is_meta else self.floor + self.excess.detach()
            if start >= largest:
                raise ValueError(f"spread must start below {largest:g} for this noise, got {float(start):g}")
            self.excess = PyroParam(self.excess.detach(), constraint=constraints.interval(0.0, largest - self.floor))

    def forward(self, like: Tensor) -> Tensor:
        """γ shaped ``(..., 1, 1)``, to broadcast against ``(..., batch, time, units)``, in the dtype of ``like``."""
        if self.fixed is not None:
            return like.new_full((1, 1), self.fixed)
        if self.prior is None:
            # softplus underflows, and distributions with γ inside are not defined at exactly 0
            return (self.floor + self.excess).clamp(min=torch.finfo(like.dtype).eps).reshape(1, 1)
        gamma = self.gamma.to(like)
        if gamma.dim() and gamma.shape[-1] != 1:
            raise ValueError(
                f"Spread: γ is one number per layer, but its prior was sampled inside a plate of {gamma.shape[-1]}; "
                "use SequenceModel, which samples γ before it opens the plate"
            )
        return gamma[..., None, None]


def _spread_prior(spread: Any) -> SpreadPrior:
    """The prior of a :class:`Spread`, computed when γ is sampled: by then the layer is known."""
    prior = SpreadPrior(spread.prior, 0)
    prior.layer = spread.layer
    return prior


def keep_spreads(rnn: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let a state dict without spreads (torch's) leave learned spreads unchanged."""
    if not any(key.startswith(f"{prefix}spread_") for key in state):
        state.update({prefix + name: p for name, p in rnn.named_parameters() if name.startswith("spread_")})
