"""The view of a model on whose sites a guide acts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer.autoguide import AutoGuide

from noisin_pyro.inference.guides.amortized import Guide
from noisin_pyro.models import innovations
from noisin_pyro.models.views import view_of

Program = Callable[..., Any]


def view_for(guide: Program | None, model: Program) -> Program:
    """``innovations(model)`` where the guide acts on the innovations, the model itself elsewhere.

    Guides known to act on the innovations are those of :func:`get`, and any automatic guide of an ``innovations`` view.
    A model that is in a view already is returned as it is, so ``(innovations(model), guide)`` means the same.
    """
    acts_on_innovations = isinstance(guide, Guide) or (
        isinstance(guide, AutoGuide) and view_of(guide.model) is innovations
    )
    return innovations(model) if acts_on_innovations and view_of(model) is None else model
