"""Views of the same program as effect handlers: sites per step, innovations, noise off."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor, nn

from noisin_pyro._lookup import BatchError
from noisin_pyro.models.dropout import Mask
from noisin_pyro.models.noisy_path import NoisyPath, real_steps, sample_noisy, site_info
from noisin_pyro.models.weight_priors import NormalWeights

Model = Callable[..., Any]
# From a site's name, distribution and observed value to the value computed for it; None leaves the site as it is.
Rewrite = Callable[[str, Any, Tensor | None], Tensor | None]


def unroll(model: Model) -> Model:
    """The textbook's view: sites ``z_l_t`` for each layer l and step t (from 1), in place of ``z_l``.

    A readable reference: the log-density is equal for equal z, and z for equal ε. It is slow by design. Condition on a
    trajectory inside the view: ``unroll(condition(model, {"z_1": z}))``.

    Args:
        model: a Pyro program or module with ``NoisyRNN`` layers.

    Returns:
        the same program, a module if ``model`` is one.

    Raises:
        ValueError: when run, for a trajectory that is conditioned on outside the view.
    """
    return _view(model, _per_step)


def innovations(model: Model) -> Model:
    """The view for guides: sites ``z_l_noise`` hold the standardized noise ε ``(T, H)``; z is computed from it.

    The support of ε never depends on the mean, so variational guides act here. Padded steps keep their prior density
    (they never reach x). Native beta keeps z as its site, since its support is (0, 1) for every mean. So does a layer
    that is conditioned on inside the view: ``innovations(condition(model, {"z_1": z}))``.

    The support of multiplicative and native gamma depends on γ: ε > -1/γ. Pyro's automatic guides and NUTS keep the
    support of their first run, so they refuse a learned γ there, and this view a γ with a prior.

    Args:
        model: a Pyro program or module with ``NoisyRNN`` layers.

    Raises:
        ValueError: when run, for native poisson, whose counts are not a function of separate noise, or for a trajectory
            that is conditioned on outside the view.
    """
    return _view(model, _noise)


def noise_off(model: Model) -> Model:
    """The underlying deterministic RNN: noisy states and weights with normal priors at their means, and no dropout.

    ``.eval()`` does not do this.
    """
    return _view(model, _mean, (NoisyPath, NormalWeights, Mask))


def underlying(model: Model) -> tuple[Model, list[Messenger]]:
    """The program below views that leave its distribution unchanged, and the conditions in between.

    Args:
        model: ``unroll``, ``innovations`` or ``pyro.condition`` of a program, in any order, or the program itself.

    Returns:
        the program, and the handlers of the conditions; enter them around whatever replaces a call of the model.
    """
    conditions: list[Messenger] = []
    while (wrapped := _unwrapped(model)) is not None:
        handler, inner = wrapped
        if isinstance(handler, ConditionMessenger):
            conditions.append(handler)
        elif not isinstance(handler, _Handler) or handler.rewrite is _mean:
            break
        model = inner
    return model, conditions


def view_of(model: Model) -> Callable[[Model], Model] | None:
    """The view that a model is in: ``unroll``, ``innovations`` or ``noise_off``, the outermost one; else None.

    It looks below Pyro's own handlers (``condition``, ``block``, a plate), but not into a function that calls a view.
    """
    for handler in handlers_around(model):
        if isinstance(handler, _Handler):
            return {_per_step: unroll, _noise: innovations, _mean: noise_off}[handler.rewrite]
    return None


def handlers_around(model: Model) -> Iterator[Any]:
    """The effect handlers around a program, views included, the outermost first."""
    while (wrapped := _unwrapped(model)) is not None:
        handler, model = wrapped
        yield handler


def _unwrapped(model: Model) -> tuple[Any, Model] | None:
    """The outermost effect handler around a model and what is inside it; None where there is no handler."""
    if isinstance(model, View):
        return model.handler, model.model
    wrapped = getattr(model, "func", None)  # Pyro makes handler(fn) a partial of a function of (handler, fn)
    if isinstance(wrapped, functools.partial) and len(wrapped.args) == 2:
        handler, inner = wrapped.args
        return handler, inner
    return None


def require_view_of_noise(name: str) -> None:
    """Check that the noise that a guide has drawn for a site is read: outside the view nothing reads ``z_l_noise``.

    Raises:
        ValueError: where it is not.
    """
    conditions = [handler for handler in _PYRO_STACK if isinstance(handler, ConditionMessenger)]
    if any(isinstance(handler, _Handler) for handler in _PYRO_STACK) or any(name in each.data for each in conditions):
        return
    for handler in _PYRO_STACK:
        # a subclass of the replay is this library's, which checks all sites
        given: Any = handler.trace if type(handler) is ReplayMessenger else getattr(handler, "data", None)
        if (type(handler) is ReplayMessenger or handler in conditions) and given and f"{name}_noise" in given:
            raise BatchError(
                f"{name}_noise is given, by a guide, say, but the model samples {name}; outside this library's ELBO "
                "pass the view that the guide acts on, innovations(model)"
            )


def _per_step(name: str, path: NoisyPath, observed: Tensor | None) -> Tensor:
    """Sites per step, equation by equation (paper, section 3)."""
    real = None if path.lengths is None else real_steps(path.lengths, path.event_shape[0])

    def draw(t: int, mean: Tensor) -> Tensor:
        law = path.step(mean) if real is None else path.step(mean).mask(real[..., t])
        obs = None if observed is None else observed[..., t, :]
        return sample_noisy(f"{name}_{t + 1}", law, path.family, path.padding_is_flat, obs)

    z = path.along(draw)
    return z if observed is None else observed


def _noise(name: str, path: NoisyPath, observed: Tensor | None) -> Tensor | None:
    """The noise as latent, and the state computed from it: z_{1:T} = transport(ε_{1:T})."""
    native_beta = not path.family.has_innovations and path.family.has_rsample
    if observed is not None or native_beta:
        return None
    if not path.family.has_innovations:
        family = path.family.name
        raise ValueError(
            f"innovations: {name!r} has native {family} noise, whose distribution depends on its mean; "
            f'use noise="{family}:additive" or "{family}:multiplicative"'
        )
    if path.spread_is_sampled and path.family.support_depends_on_spread:
        raise ValueError(
            f"innovations: {name!r} has noise whose support depends on its spread, and the spread has a prior; "
            "use the additive form, or fix or learn the spread"
        )
    return path.transport(sample_noisy(f"{name}_noise", path.innovation_law(), path.family))


def _mean(name: str, law: NoisyPath | NormalWeights | Mask, observed: Tensor | None) -> Tensor | None:
    """The value without noise."""
    return law.clean() if observed is None else None


class _Handler(Messenger):
    """Rewrites the sites whose distributions are of the given kinds. Of nested views only the outermost acts.

    This is not a Pyro Reparam, because Pyro applies the init strategies of its automatic guides to the original site,
    and they would read its support, which depends on the mean.
    """

    def __init__(self, rewrite: Rewrite, kinds: tuple[type, ...]) -> None:
        super().__init__()
        self.rewrite, self.kinds = rewrite, kinds

    def _pyro_sample(self, msg: Any) -> None:
        outermost = next(handler for handler in _PYRO_STACK if isinstance(handler, _Handler))
        if self is not outermost or not isinstance(msg["fn"], self.kinds):
            return
        if msg["done"]:
            raise ValueError(f"{msg['name']!r} is replayed inside a view; replay the view itself: replay(view, trace)")
        z = self.rewrite(msg["name"], msg["fn"], msg["value"] if msg["is_observed"] else None)
        if z is not None:  # computed, not sampled: it has no density
            msg["fn"] = dist.Delta(z, event_dim=msg["fn"].event_dim, validate_args=False).mask(False)
            msg["value"], msg["is_observed"] = z, True
            msg["infer"] = msg["infer"] | dataclasses.replace(site_info(msg), computed=z).as_infer()

    def _pyro_post_sample(self, msg: Any) -> None:
        computed, value = site_info(msg).computed, msg["value"]
        if computed is None or value is computed:
            return
        # Predictive conditions on all that a GuideMessenger's trace has, computed sites included
        if value.shape != computed.shape or not torch.allclose(value, computed):
            raise ValueError(
                f"{msg['name']!r} is computed in this view, so it cannot be conditioned on from outside; condition "
                f"inside, as in unroll(condition(model, {{{msg['name']!r}: z}})), or on the view's own sites"
            )


class View(nn.Module):
    """A module in a handler, with the module's own parameters."""

    def __init__(self, model: nn.Module, handler: _Handler) -> None:
        super().__init__()
        self.model, self.handler = model, handler

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self.handler:
            return self.model(*args, **kwargs)


def _view(model: Model, rewrite: Rewrite, kinds: tuple[type, ...] = (NoisyPath,)) -> Model:
    handler = _Handler(rewrite, kinds)
    return View(model, handler) if isinstance(model, nn.Module) else handler(model)
