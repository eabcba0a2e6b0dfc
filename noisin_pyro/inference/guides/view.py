"""The view of a model whose sites a guide samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoGuide, AutoGuideList, AutoLaplaceApproximation
from pyro.poutine.guide import GuideMessenger

from noisin_pyro.inference.guides.amortized import Guide
from noisin_pyro.models import SequenceModel, innovations
from noisin_pyro.models.views import View, view_of

Program = Callable[..., Any]


def program_of(program: Any) -> Any:
    """The program, or guide, below Pyro's handlers and the views."""
    while isinstance(inner := poutine.unwrap(program), View):
        program = inner.model
    return inner


def is_point_estimate(guide: object) -> bool:
    """Whether a guide, or a part of it, is one of Pyro's point estimates, which have no density."""
    inner = program_of(guide)
    if isinstance(inner, AutoGuideList):
        return any(is_point_estimate(part) for part in inner)  # type: ignore[arg-type]
    return isinstance(inner, AutoDelta | AutoLaplaceApproximation)


def view_for(guide: Program | None, model: Program) -> Program:
    """Return ``innovations(model)`` if the guide samples innovations, else the model itself.

    Guides from :func:`get` and Pyro's automatic guides of an ``innovations`` view sample innovations. A model that is
    already in a view is returned unchanged, so ``(innovations(model), guide)`` is equivalent to ``(model, guide)``.

    Raises:
        ValueError: a guide from :func:`get` of another model.
    """
    inner, program = program_of(guide), program_of(model)
    if isinstance(inner, Guide) and isinstance(program, SequenceModel) and inner.model is not program:
        raise ValueError("guide was made for another model; make it by guides.get(name, model) for this one")
    samples_innovations = isinstance(inner, Guide) or (
        isinstance(inner, AutoGuide | GuideMessenger) and view_of(inner.model) is innovations
    )
    return innovations(model) if samples_innovations and view_of(model) is None else model
