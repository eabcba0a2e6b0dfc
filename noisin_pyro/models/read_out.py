"""The read-out of z, and the base class of emissions."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import pyro
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from torch import Tensor, nn

from noisin_pyro._lookup import BatchError, integer
from noisin_pyro.models._module import ReusableModule
from noisin_pyro.recurrence.matmul import (
    check_bfloat16_operands,
    check_matmul_precision,
    fast_linear,
    is_tracing,
    linear,
    needs_torch_operations,
)
from noisin_pyro.recurrence.softmax import Softmax

T = TypeVar("T", bound=nn.Module)


class Emission(ReusableModule):
    """A read-out of z, linear or with a hidden layer, and the distribution that it parametrizes.

    Subclass it for an emission of your own, and give an instance to :class:`SequenceModel`: define ``forward``, and
    declare ``event_dim`` if x_t is not a vector, and ``num_parameters`` if the read-out has several values for each
    dimension of x_t. Further parameters are declared as in any Pyro module::

        class Logistic(Emission):
            num_parameters = 2

            def forward(self, z):
                location, log_scale = self.read_out(z).chunk(2, -1)
                return dist.Logistic(location, log_scale.exp()).to_event(1)

        model = SequenceModel(NoisyRNN(3, 8), Logistic(8, 3))

    Attributes:
        event_dim: dimensions of one x_t: 1 for a vector of ``output_size``, 0 for a class or another single number.
        num_parameters: values of the read-out for each class or dimension of x.
        hidden: the hidden layer of the read-out, whose units are rectified; None if there is none.
        linear: the read-out's weights V and b; None for an emission without a linear read-out.

    Args:
        hidden_size: units H of z.
        output_size: classes, or dimensions of x.
        matmul_precision: ``"float32"`` (products in the dtype of the weights, whichever that is), or ``"bfloat16"``:
            operands and results of the read-out's products are rounded to it, forward and backward, and sums are
            accumulated in float32.
        read_out_size: units of the read-out's hidden layer; None for a linear read-out, as in the paper.

    Raises:
        ValueError: for a size below 1, an ``event_dim`` other than 0 or 1, a ``num_parameters`` below 1, or a precision
            that the machine lacks.
        TypeError: for a class that defines no ``forward``.
    """

    event_dim: int = 1
    num_parameters: int = 1
    hidden_size: int
    output_size: int
    matmul_precision: str

    def __init__(
        self,
        hidden_size: int,
        output_size: int,
        matmul_precision: str = "float32",
        read_out_size: int | None = None,
    ) -> None:
        super().__init__()
        kind = type(self)
        if kind.forward is Emission.forward:
            raise TypeError(f"{kind.__name__} must define forward(z), the distribution of x given z")
        if self.event_dim not in (0, 1):
            raise ValueError(f"{kind.__name__}.event_dim must be 0 or 1, got {self.event_dim!r}")
        self.hidden_size, self.output_size = integer("hidden_size", hidden_size), integer("output_size", output_size)
        self.matmul_precision = check_matmul_precision(matmul_precision)
        self.hidden: Any = None
        features = self.hidden_size
        if read_out_size is not None:
            features = integer("read_out_size", read_out_size)
            self.hidden = PyroModule[nn.Linear](self.hidden_size, features)  # type: ignore[call-arg]
        width = integer(f"{kind.__name__}.num_parameters", self.num_parameters) * self.output_size
        self.linear: Any = PyroModule[nn.Linear](features, width)  # type: ignore[call-arg]

    def standardized(self, targets: Tensor) -> Tensor:
        """Targets as a guide reads them: finite, and where values are scaled, scaled."""
        return targets

    def features(self, z: Tensor) -> Tensor:
        """What the linear map of the read-out takes: z_t, or max(0, U z_t + a) of the hidden layer."""
        return z if self.hidden is None else self._product(self.hidden, z).relu()

    def read_out(self, z: Tensor) -> Tensor:
        """V features(z_t) + b, ``(..., B, T, num_parameters * output_size)``; with sampled weights too."""
        return self._product(self.linear, self.features(z))

    def _product(self, layer: nn.Linear, z: Tensor) -> Tensor:
        weight, bias = layer.weight, layer.bias
        if self.matmul_precision == "bfloat16":
            check_bfloat16_operands(z, weight, bias)
        if weight.dim() == 2 and bias.dim() == 1:
            return fast_linear(z, weight, bias, self.matmul_precision)
        return linear(z, weight, bias)

    @torch.no_grad()
    def at_zero(self) -> TorchDistribution:
        """p(x | z = 0) of one step, with batch shape ``(1, 1)``."""
        # outside a model Pyro would store the parameters by their bare names, and emissions would share them
        with pyro.get_param_store().scope():
            return self(next(self.parameters()).new_zeros(1, 1, self.hidden_size))

    def check_values(self, targets: Tensor) -> None:
        """Raise a ``ValueError`` for targets outside the support of x, where nothing else validates them."""
        check_support(self.at_zero(), targets)

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x_t | z_t) with batch shape ``(..., B, T)``, from z ``(..., B, T, H)``."""
        raise NotImplementedError


class ModuleEmission(Emission):
    """An emission from any module that returns a distribution of x given z.

    :class:`SequenceModel` makes it where its emission is a plain ``nn.Module``.

    Args:
        module: takes z ``(..., B, T, H)``, and returns a Pyro distribution of batch shape ``(..., B, T)``.
        hidden_size: H.
        output_size: number of classes where one x_t is a single number; otherwise the distribution has the size.

    Raises:
        ValueError: for a module that does not run on z, or returns something else.
    """

    def __init__(self, module: nn.Module, hidden_size: int, output_size: int | None = None) -> None:
        kind, like = type(module).__name__, next(module.parameters(), torch.zeros(()))
        try:
            with torch.no_grad():
                law: Any = module(like.new_zeros(2, 1, hidden_size))
        except RuntimeError as error:
            raise ValueError(f"emission: {kind} does not run on z of shape (2, 1, {hidden_size}): {error}") from error
        shape = tuple(getattr(law, "batch_shape", ()))
        if not isinstance(law, TorchDistributionMixin) or shape != (2, 1) or len(law.event_shape) > 1:
            got = type(law).__name__ + (f" of shapes {shape} and {tuple(law.event_shape)}" if shape else "")
            raise ValueError(
                f"emission: {kind} must return a Pyro distribution with batch shape (batch, time), here (2, 1), and an "
                f"event shape of at most one dimension, got {got}; return Normal(mean, scale).to_event(1), say"
            )
        size = law.event_shape[0] if law.event_shape else output_size
        if size is None or output_size not in (None, size):
            raise ValueError(
                f"output_size must be {size or 'the number of classes'} for the emission {kind}, got {output_size}"
            )
        super().__init__(hidden_size, size)
        self.event_dim, self.linear, self.module = len(law.event_shape), None, module

    def forward(self, z: Tensor) -> TorchDistribution:
        return self.module(z)


def check_targets(emission: Emission, targets: Tensor | None, mask: Tensor | None, batch: int, steps: int) -> None:
    """Check that targets are ``(..., B, T)``, with a last axis of ``output_size`` where x_t is a vector, and masks
    booleans ``(..., B, T)``.

    Raises:
        ValueError: where they are not.
    """
    is_mask = isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape[-2:] == (batch, steps)
    if mask is not None and not is_mask:
        got = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else repr(mask)
        raise BatchError(f"mask must be booleans of shape (..., {batch}, {steps}), got {got}")
    expected = (batch, steps) + (emission.output_size,) * emission.event_dim
    if targets is None or tuple(targets.shape[-len(expected) :]) == expected:
        return
    message = f"targets must have shape (..., {str(expected)[1:]}, got {tuple(targets.shape)}"
    if emission.event_dim and targets.dim() and targets.shape[-1] * 2 <= emission.output_size:
        message += (
            f"; the last axis is output_size of {type(emission).__name__}: if that is {emission.output_size} because "
            "the read-out has several values for each dimension, declare their number as num_parameters"
        )
    raise BatchError(message)


def check_finite(targets: Tensor) -> None:
    """Raise a ``ValueError`` for infinite targets. NaN stands for missing ones."""
    if not (is_tracing() or needs_torch_operations(targets)) and targets.isinf().any():
        raise BatchError("targets must be finite, got infinite values; remove them, or mark them as missing by mask")


def check_support(law: TorchDistribution, targets: Tensor) -> None:
    """Check that targets are possible values of x.

    Raises:
        ValueError: where they are not.
    """
    # a softmax checks by itself; while a program is traced or transformed there are no values
    if isinstance(law, Softmax) or is_tracing() or needs_torch_operations(targets):
        return
    check_finite(targets)
    support: Any = law.support
    if support.check(targets).all():
        return
    while hasattr(support, "base_constraint"):  # of single values
        support = support.base_constraint
    missing = targets.isnan().any(-1) if support.event_dim else targets.isnan()
    impossible = ~support.check(targets) & ~missing
    if not impossible.any():
        raise BatchError(
            "targets have steps of which single values are missing (NaN); wrap the emission in models.Scaled, "
            "which leaves them out of the density, or mark whole steps as missing by mask"
        )
    wrong = targets.expand(*impossible.shape, *targets.shape[targets.dim() - support.event_dim :])[impossible]
    raise BatchError(
        f"targets must be in the support of the emission, {_in_words(support)}, got values from {wrong.min().item():g} "
        f"to {wrong.max().item():g} outside it; use another emission: gaussian or student-t for real values, poisson "
        "or negative-binomial for counts, bernoulli for 0 and 1; missing values are marked by mask"
    )


def _in_words(support: constraints.Constraint) -> str:
    """A support of single values in words, or torch's name of it."""
    words = {
        constraints.boolean: "0 and 1",
        constraints.nonnegative_integer: "integers from 0",
        constraints.positive_integer: "integers from 1",
        constraints.nonnegative: "numbers from 0",
        constraints.positive: "positive numbers",
        constraints.unit_interval: "numbers from 0 to 1",
        constraints.simplex: "vectors of numbers from 0 that sum to 1",
    }
    return words.get(support, str(support))


def with_plain_weights(module: T) -> T:
    """A shallow copy whose weights are plain attributes. Pyro records each access to the parameters of a module."""
    plain = copy.copy(module)
    names = {name.removesuffix("_unconstrained") for name in module._parameters}
    values = {name: getattr(module, name) for name in names | set(getattr(module, "_pyro_samples", ()))}
    children = {name: child and with_plain_weights(child) for name, child in module._modules.items()}
    plain.__dict__.update(values | children)  # found before Pyro's __getattr__ is asked
    return plain
