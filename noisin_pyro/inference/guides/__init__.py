"""Guides by name, for ``PriorAsGuide_ELBO()(model, nz.guides.get(name, model))``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro import poutine
from pyro.infer import autoguide
from torch.nn import Module

from noisin_pyro._lookup import integer, known
from noisin_pyro.inference.guides.affine import COVARIANCES
from noisin_pyro.inference.guides.amortized import Guide
from noisin_pyro.models import Mask, NoisyRNN, SequenceModel, innovations
from noisin_pyro.models.views import view_of

__all__ = ["AUTOMATIC", "NAMED", "Guide", "get"]

NAMED: dict[str, dict[str, bool]] = {
    "mean-field": {"bidirectional": True, "uses_states": False},
    "filtering": {"bidirectional": False, "uses_states": True},
    "smoothing": {"bidirectional": True, "uses_states": True},
}
AUTOMATIC = (
    "AutoNormal",
    "AutoDiagonalNormal",
    "AutoMultivariateNormal",
    "AutoLowRankMultivariateNormal",
    "AutoIAFNormal",
    "AutoStructured",
    "AutoNormalMessenger",
    "AutoHierarchicalNormalMessenger",
    "AutoRegressiveMessenger",
)


def get(
    name: str | Callable[..., Any],
    model: Callable[..., Any],
    *,
    covariance: str | None = None,
    hidden_size: int | None = None,
    **options: Any,
) -> Callable[..., Any]:
    """Make a guide over the noise of a model, the latents of ``innovations(model)``.

    - ``"mean-field"``: q(ε_t | x_{1:T}), steps independent given x.
    - ``"filtering"``: q(ε_t | z_{t-1}, c_{t-1}, x_{1:t}).
    - ``"smoothing"``: q(ε_t | z_{t-1}, c_{t-1}, x_{1:T}). This family contains filtering, which contains the prior.
    - Pyro's automatic guides and messengers by name (``"AutoNormal"``, ``"AutoNormalMessenger"``). They have separate
      parameters for each sequence and step, so they fit one batch of one length, not a data set in batches. They start
      at Pyro's initial values and leave dropout masks to the prior.

    The first three encode x by a GRU, apply to any batch, and start at the prior: the noise is drawn from its prior and
    transformed by an affine map in the unconstrained coordinates of its support.

    Args:
        name: one of these names, or a guide, which is returned unchanged.
        model: the :class:`SequenceModel` itself, not a view of it; for an automatic guide any module that is a Pyro
            program and has :class:`NoisyRNN` layers.
        covariance: of the units at one step, ``"diagonal"`` (the default) or ``"full"``. Not for automatic guides.
        hidden_size: number of units of the encoder and of each network that computes an affine map (default: the
            model's hidden size). Not for automatic guides.
        options: keyword arguments of an automatic guide, such as ``init_scale=0.1``.

    Raises:
        ValueError: an unknown name, noise that is discrete or off, a view in place of the model, or options that do not
            apply; with one of the first three, a model with dropout.

    Source: full variational inference, which the paper contrasts with its own objective (section 3).
    """
    if not isinstance(name, str):
        return name
    if name == "prior":
        raise ValueError("guide 'prior' is the objective without a guide: use PriorAsGuide_ELBO()(model), without one")
    known("guide", name, [*NAMED, *AUTOMATIC])
    layers = _layers(name, model)
    _require_density(layers)
    if name in AUTOMATIC:
        given = [key for key, value in (("covariance", covariance), ("hidden_size", hidden_size)) if value is not None]
        if given:
            raise ValueError(
                f"{' and '.join(given)}: not an option of {name}; leave it out, or use one of {', '.join(NAMED)}"
            )
        without_masks = poutine.block(innovations(model), hide_fn=lambda site: isinstance(site.get("fn"), Mask))
        has_masks = any(rnn.dropout.drops for rnn in layers) or getattr(model, "embedding_dropout", 0) > 0
        return getattr(autoguide, name)(without_masks if has_masks else innovations(model), **options)
    assert isinstance(model, SequenceModel)
    model.dropout.refuse(f"guide {name!r} does not support dropout masks", "an automatic guide such as AutoNormal")
    if options:
        raise ValueError(
            f"{', '.join(options)}: not an option of the {name} guide; its options are covariance, hidden_size"
        )
    hidden_size = None if hidden_size is None else integer("hidden_size", hidden_size)
    covariance = known("covariance", "diagonal" if covariance is None else covariance, COVARIANCES)
    return Guide(name, model, **NAMED[name], covariance=covariance, hidden_size=hidden_size)


def _layers(name: str, model: Callable[..., Any]) -> list[NoisyRNN]:
    """The noisy layers of a program that the guide can serve.

    Raises:
        ValueError: where there are none, or the guide needs a :class:`SequenceModel`.
    """
    if view_of(model) is not None:
        raise ValueError("model is in a view already; pass the model itself, not a view of it")
    layers = [module for module in model.modules() if isinstance(module, NoisyRNN)] if isinstance(model, Module) else []
    if isinstance(model, SequenceModel) or (name in AUTOMATIC and layers):
        return layers
    needs = f"a module with NoisyRNN layers, or use pyro.infer.autoguide.{name}(noisin_pyro.innovations(program))"
    if name not in AUTOMATIC:
        needs = "a SequenceModel, whose inputs and targets the guide encodes, or use an automatic guide"
    raise ValueError(f"guide {name!r} needs {needs}; got a {type(model).__name__}")


def _require_density(layers: list[NoisyRNN]) -> None:
    for family in (rnn.noise for rnn in layers if rnn.noise.discrete):
        raise ValueError(
            f"a guide needs noise with a density, but {family} noise is discrete; leave it to the prior (no guide: "
            "equation (1)), or use a family with a density, such as gaussian"
        )
    if not any(rnn.noisy_layers for rnn in layers):
        raise ValueError("a guide needs noise, but every spread is 0; give the model a spread above 0")
