"""Any optimiser of torch.optim, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch

from noisin_pyro.names import known

# One needs the loss as a function, one sparse gradients, one nothing but matrices: the loop has none of these.
_UNFIT = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}


def optimizer_class(name: str) -> Callable[..., torch.optim.Optimizer]:
    """The class of ``torch.optim`` of that name, upper and lower case alike.

    Raises:
        ValueError: no such optimiser, or one that a loop of single gradient steps cannot drive.
    """
    fit = {
        key: value
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and key not in _UNFIT
    }
    in_any_case = {key.lower(): key for key in fit}
    return fit[known("optimizer", in_any_case.get(name.lower(), name), fit)]
