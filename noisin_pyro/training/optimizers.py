"""Any optimiser of torch.optim, by name, and the averages that one of them keeps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from noisin_pyro.names import known
from noisin_pyro.training.kinds import alike

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


def build_optimizer(
    name: str, parameters: Iterable[nn.Parameter], learning_rate: float, average_after: int | None = None
) -> torch.optim.Optimizer:
    """The optimiser of that name over ``parameters``.

    Averaged SGD is plain SGD beside which the mean of the weights after ``average_after`` steps is kept (default: of
    all): torch's own default, a mean that starts after a million steps, would never start, and its decay of weights
    and rate is not the published paper's.
    """
    chosen = optimizer_class(name)
    of_its_own: dict[str, Any] = {"lambd": 0.0, "t0": average_after or 0} if averages(name) else {}
    if chosen in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD):  # the whole step in one pass over the weights
        of_its_own["fused"] = True
        parameters = list(parameters)
        if chosen is not torch.optim.SGD and parameters[0].is_cuda:
            of_its_own["capturable"] = True  # by a CUDA graph (stepper.py)
    return chosen(parameters, lr=learning_rate, **of_its_own)


def load_state(optimizer: torch.optim.Optimizer, content: dict[str, Any]) -> None:
    """Take over what ``state_dict`` gave for an optimiser of the same class, options and shapes of parameters.

    Raises:
        ValueError: it is for another one. (torch itself only counts the parameters, and fails at a later step.)
    """
    example = copy.deepcopy(optimizer)
    for group in example.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    example.step()
    expected, state = example.state_dict()["state"], content["state"]
    if not all(number in expected and alike(kept, expected[number]) for number, kept in state.items()):
        raise ValueError(f"the state kept for {type(optimizer).__name__} is that of another optimizer or model")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, kept in state.items():  # torch gave all numbers the type of the parameter, rates and counters too
        loaded = optimizer.state[parameters[number]]
        loaded |= {key: loaded[key].to(value.dtype) for key, value in kept.items() if isinstance(value, torch.Tensor)}


def averages(name: str) -> bool:
    """Whether the optimiser of that name keeps an average of the weights."""
    return optimizer_class(name) is torch.optim.ASGD


@contextmanager
def averaged(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within, the parameters are their averages, where ``optimizer`` keeps any; after, they are what they were."""
    means = {parameter: state["ax"] for parameter, state in optimizer.state.items() if "ax" in state}
    held = {parameter: parameter.detach().clone() for parameter in means}
    _set(means)
    try:
        yield
    finally:
        _set(held)


@torch.no_grad()
def _set(values: dict[torch.Tensor, torch.Tensor]) -> None:
    for parameter, value in values.items():
        parameter.copy_(value)
