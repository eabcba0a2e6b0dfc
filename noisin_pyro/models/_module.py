"""The base class of modules that may run alone before they join another module, and that keep their own parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyro
import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule
from pyro.nn.module import pyro_method
from pyro.params.param_store import param_with_module_name
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

Self = TypeVar("Self", bound=PyroModule)
P = ParamSpec("P")
T = TypeVar("T")

_CONSTRAINED = WeakIdKeyDictionary()  # parameters of modules that have run, of which the store has a transform


class ReusableModule(PyroModule):
    """A PyroModule that can be tried alone first, that several models can share, and that keeps its own parameters.

    Pyro refuses modules whose submodules have run, since their parameters could be in its store under other names. Here
    parameters are read from the modules, so names that are no longer in use do no harm.

    Of two modules with the same names, Pyro would let the second compute with parameters of the first, or train those.
    Here its store gets the parameters of the one that runs.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        put_into_store(self)
        return super().__call__(*args, **kwargs)

    def _pyro_set_supermodule(self, name: str, context: Any) -> None:
        for module in self.modules():
            if isinstance(module, PyroModule):
                module._pyro_context.used = module._pyro_context.active > 0
        super()._pyro_set_supermodule(name, context)


def in_context(method: Callable[Concatenate[Self, P], T]) -> Callable[Concatenate[Self, P], T]:
    """Pyro's ``pyro_method``, for functions of modules that keep their own parameters."""
    inner: Any = pyro_method(method)

    @functools.wraps(method)
    def wrapped(module: Self, *args: P.args, **kwargs: P.kwargs) -> T:
        put_into_store(module)
        return inner(module, *args, **kwargs)

    return wrapped


def put_into_store(module: PyroModule) -> None:
    """Replace another module's parameters in Pyro's store by those of this module, before they are read.

    Constrained parameters that no module has put there, but a user, or a file, are left: the module takes them over, as
    any PyroModule does. Pyro would unfreeze parameters when it puts them there, so those that are frozen are put here.
    """
    context, done = module._pyro_context, f"{id(module)} is in the store"
    if done in context.cache or pyro.settings.get("module_local_params") or torch.compiler.is_compiling():
        return
    store = pyro.get_param_store()
    for name, parameter, constraint in _parameters(module):
        other = store._params.get(name)
        replaced = not parameter.requires_grad if other is None else constraint is None or other in _CONSTRAINED
        if replaced and other is not parameter:
            # as Pyro's own modules do; its public methods would set requires_grad, and fail for tied parameters
            if other is not None and store._param_to_name.get(other) == name:
                del store._param_to_name[other]
            store._params[name], store._param_to_name[parameter] = parameter, name
            store._constraints[name] = constraint or constraints.real
        if constraint is not None:
            _CONSTRAINED[parameter] = None
    if context.active:  # the cache is emptied when that ends
        context.cache[done] = torch.empty(0)


def _parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter, constraints.Constraint | None]]:
    """The parameters of a module, with their names in Pyro's store, and the constraints of those that have one."""
    for each in module.modules():
        if not isinstance(each, PyroModule):
            continue
        prefix = f"{each._pyro_name}." if each._pyro_name else ""
        for name, parameter in each._parameters.items():
            if parameter is not None:
                own = name.removesuffix("_unconstrained")
                if own != name and own in each._pyro_params:
                    yield prefix + own, parameter, each._pyro_params[own][0]
                else:
                    yield prefix + name, parameter, None
        for key, child in each._modules.items():
            if child is not None and not isinstance(child, PyroModule):
                for name, parameter in child.named_parameters():
                    yield param_with_module_name(prefix + key, name), parameter, None
