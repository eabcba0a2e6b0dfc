"""Guides by name, for ``PriorAsGuide_ELBO()(model, nz.guides.get(name, model))``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro import poutine
from pyro.infer import autoguide

from noisin_pyro._lookup import known
from noisin_pyro.inference.guides.affine import COVARIANCES
from noisin_pyro.inference.guides.amortized import Guide
from noisin_pyro.models import Mask, SequenceModel, innovations

__all__ = ["AUTOMATIC", "NAMED", "Guide", "get"]

NAMED: dict[str, dict[str, bool]] = {
    "mean-field": {"both_ways": True, "along_path": False},
    "filtering": {"both_ways": False, "along_path": True},
    "smoothing": {"both_ways": True, "along_path": True},
}
AUTOMATIC = (
    "AutoNormal",
    "AutoDiagonalNormal",
    "AutoMultivariateNormal",
    "AutoLowRankMultivariateNormal",
    "AutoIAFNormal",
    "AutoStructured",
)


def get(
    name: str | Callable[..., Any],
    model: SequenceModel,
    *,
    covariance: str | None = None,
    hidden_size: int | None = None,
    **options: Any,
) -> Callable[..., Any]:
    """A guide of ``innovations(model)``.

    - ``"mean-field"``: q(ε_t | x_{1:T}), steps independent given x.
    - ``"filtering"``: q(ε_t | z_{t-1}, c_{t-1}, x_{1:t}).
    - ``"smoothing"``: q(ε_t | z_{t-1}, c_{t-1}, x_{1:T}), which contains filtering, which contains the prior.
    - Pyro's automatic guides by their names (``"AutoNormal"``): parameters of their own for each sequence and step,
      so for one batch of one length, not for a data set in batches. They start where Pyro starts them. Masks of
      dropout they leave to the prior.

    The first three look at x through a GRU, serve any batch, and start at the prior: z's noise is drawn from its own
    law and moved by an affine map in the unconstrained coordinates of its support.

    Args:
        name: one of these, or a guide, which is returned as it is.
        model: the model itself; the guide is for ``innovations(model)``.
        covariance: of one step's units, ``"diagonal"`` (the default) or ``"full"``; of the first three.
        hidden_size: units of the encoder and of each map's network (default: as many as the model's layers); likewise.
        options: what an automatic guide takes, as ``init_scale=0.1``.

    Raises:
        ValueError: an unknown name, noise that is discrete or off, a view in place of the model, options that do not
            apply; dropout, for the first three.

    Source: the full variational inference that the paper sets itself apart from (section 3).
    """
    if not isinstance(name, str):
        return name
    known("guide", name, [*NAMED, *AUTOMATIC])
    if not isinstance(model, SequenceModel):
        kind = type(model).__name__
        raise ValueError(f"model must be a SequenceModel, got {kind}; give the model itself, without a view around it")
    _refuse_what_has_no_density(model)
    if name in AUTOMATIC:
        given = [key for key, value in (("covariance", covariance), ("hidden_size", hidden_size)) if value is not None]
        if given:
            raise ValueError(
                f"{' and '.join(given)}: not an option of {name}; leave it out, or name {', '.join(NAMED)}"
            )
        seen = poutine.block(innovations(model), hide_fn=lambda site: isinstance(site.get("fn"), Mask))
        return getattr(autoguide, name)(seen if model.dropout.drops else innovations(model), **options)
    model.dropout.refuse(
        f"guide {name!r} walks along the layers step by step, without masks", "an automatic guide such as AutoNormal"
    )
    if options:
        raise ValueError(f"{', '.join(options)}: not an option of the {name} guide, which has covariance, hidden_size")
    if hidden_size is not None and (not isinstance(hidden_size, int) or hidden_size < 1):
        raise ValueError(f"hidden_size must be a positive integer, got {hidden_size!r}")
    covariance = known("covariance", "diagonal" if covariance is None else covariance, COVARIANCES)
    return Guide(name, model, **NAMED[name], covariance=covariance, hidden_size=hidden_size)


def _refuse_what_has_no_density(model: SequenceModel) -> None:
    family = model.rnn.noise
    if family.discrete:
        raise ValueError(
            f"a guide needs a density, but {family} noise is discrete; leave it to the prior (no guide: "
            "equation (1)), or use a family with a density, such as gaussian"
        )
    if not model.rnn.noisy_layers:
        raise ValueError("a guide needs noise to act on, but every spread is 0; give the model a spread above 0")
