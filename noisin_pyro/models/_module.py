"""The base class of modules that may run alone before they join another module."""

from __future__ import annotations

from typing import Any

from pyro.nn import PyroModule


class ReusableModule(PyroModule):
    """A PyroModule that can be tried alone first, and that several models can share.

    Pyro refuses modules whose submodules have run, since their parameters could be in its store under other names. Here
    parameters are read from the modules, so names that are no longer in use do no harm.
    """

    def _pyro_set_supermodule(self, name: str, context: Any) -> None:
        for module in self.modules():
            if isinstance(module, PyroModule):
                module._pyro_context.used = module._pyro_context.active > 0
        super()._pyro_set_supermodule(name, context)
