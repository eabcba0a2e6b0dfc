"""Any optimiser of torch.optim, by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch

# One needs the loss as a function, the other sparse gradients: the loop offers neither.
_UNFIT = {"Optimizer", "LBFGS", "SparseAdam"}


def optimizer_class(name: str) -> Callable[..., torch.optim.Optimizer]:
    """The class of ``torch.optim`` of that name, upper and lower case alike.

    Raises:
        ValueError: no such optimiser, or one that a loop of single gradient steps cannot drive.
    """
    known = {
        key: value
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and key not in _UNFIT
    }
    by_lower_case = {key.lower(): value for key, value in known.items()}
    if name.lower() in by_lower_case:
        return by_lower_case[name.lower()]
    nearest = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    hint = f" Did you mean {by_lower_case[nearest[0]].__name__}?" if nearest else ""
    raise ValueError(f"torch.optim has no optimizer {name!r} that fits.{hint} There are: {', '.join(sorted(known))}")
