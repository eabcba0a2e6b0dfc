"""Other views of the same program, as effect handlers: per-step sites, innovations, noise off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
from pyro import poutine
from pyro.infer.reparam.reparam import Reparam
from torch import Tensor, nn

from noisin_pyro.models.path import NoisyPath, real_steps, sample_noisy

Model = Callable[..., Any]


def unroll(model: Model) -> Model:
    """The textbook's view: sites ``z_l_t`` for each layer l and step t (from 1), in place of ``z_l``.

    The readable reference: equal in log-density for equal z, and in z for equal ε. Slow by design.

    Args:
        model: a Pyro program or module that holds ``NoisyRNN`` layers.

    Returns:
        the same program, a module if ``model`` is one.
    """
    return _view(model, Unroll)


def innovations(model: Model) -> Model:
    """The view for guides: sites ``z_l_noise`` hold the standardised noise ε ``(T, H)``; z is computed from it.

    The support of ε never depends on the mean, so variational guides act here. Padded steps keep their prior density
    (they never reach x). Native beta keeps z as its site, its support being (0, 1) whatever the mean.

    Args:
        model: a Pyro program or module that holds ``NoisyRNN`` layers.

    Raises:
        ValueError: when run, for native poisson: its counts have no noise of their own to stand for them.
    """
    return _view(model, Innovations)


def noise_off(model: Model) -> Model:
    """The underlying deterministic RNN: every noisy state is at its mean. (``.eval()`` does not do this.)"""
    return _view(model, Silence)


class View(nn.Module):
    """A module seen through a handler: its parameters are the module's own."""

    def __init__(self, model: nn.Module, reparam: type[Reparam]) -> None:
        super().__init__()
        self.model = model
        self.handler = poutine.reparam(config=_config(reparam))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self.handler:
            return self.model(*args, **kwargs)


def _view(model: Model, reparam: type[Reparam]) -> Model:
    return View(model, reparam) if isinstance(model, nn.Module) else poutine.reparam(model, config=_config(reparam))


def _config(reparam: type[Reparam]) -> Callable[[Any], Reparam | None]:
    def choose(site: Any) -> Reparam | None:
        return reparam() if isinstance(site["fn"], NoisyPath) else None

    return choose


class Unroll(Reparam):
    """Per-step sites, equation by equation (paper, section 3)."""

    def apply(self, msg: Any) -> Any:
        path: NoisyPath = msg["fn"]
        given: Tensor | None = msg["value"]
        spread, steps = path.spread.squeeze(-2), path.event_shape[0]
        real = None if path.lengths is None else real_steps(path.lengths, steps)

        def draw(t: int, mean: Tensor) -> Tensor:
            law = path.family(mean, spread)
            law = law if real is None else law.mask(real[..., t])
            obs = None if given is None else given[..., t, :]
            return sample_noisy(f"{msg['name']}_{t + 1}", law, path.family, obs)

        z = path._keep(*path.transition.loop(draw))
        return _computed(z if given is None else given)


class Innovations(Reparam):
    """The noise as the latent, the state computed: z_{1:T} = transport(ε_{1:T})."""

    def apply(self, msg: Any) -> Any:
        path: NoisyPath = msg["fn"]
        native_beta = not path.family.has_innovations and path.family.has_rsample
        if native_beta or msg["is_observed"]:
            return msg
        if not path.family.has_innovations:
            raise ValueError(
                f"innovations: {msg['name']!r} has native {path.family.name} noise, whose law moves with its mean; "
                f'use noise="{path.family.name}:additive" or "{path.family.name}:multiplicative"'
            )
        noise = sample_noisy(f"{msg['name']}_noise", path.innovation_law(), path.family)
        return _computed(path.transport(noise))


class Silence(Reparam):
    """No noise: z is its own mean."""

    def apply(self, msg: Any) -> Any:
        return msg if msg["is_observed"] else _computed(msg["fn"].clean())


def _computed(z: Tensor) -> dict[str, Any]:
    """A site that is computed, not sampled: it costs no density."""
    return {"fn": dist.Delta(z, event_dim=2).mask(False), "value": z, "is_observed": True}
