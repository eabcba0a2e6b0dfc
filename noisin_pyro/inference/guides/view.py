"""The view of a model whose sites a guide samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer.autoguide import AutoGuide

from noisin_pyro.inference.guides.amortized import Guide
from noisin_pyro.models import innovations
from noisin_pyro.models.views import view_of

Program = Callable[..., Any]


def view_for(guide: Program | None, model: Program) -> Program:
    """Return ``innovations(model)`` if the guide samples innovations, else the model itself.

    Guides from :func:`get` and automatic guides of an ``innovations`` view sample innovations. A model that is already
    in a view is returned unchanged, so ``(innovations(model), guide)`` is equivalent to ``(model, guide)``.
    """
    samples_innovations = isinstance(guide, Guide) or (
        isinstance(guide, AutoGuide) and view_of(guide.model) is innovations
    )
    return innovations(model) if samples_innovations and view_of(model) is None else model
