"""The paper's objective, equation (1), as an ELBO in which the prior may serve as the guide."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import detach, is_identically_zero
from pyro.infer.elbo import ELBO
from pyro.infer.util import MultiFrameTensor, is_validation_enabled
from pyro.poutine import Trace
from pyro.util import check_if_enumerated, check_site_shape, warn_if_nan
from torch import Tensor, nn

from noisin_pyro._lookup import as_number, boolean, integer
from noisin_pyro.inference.elbo_options import check_options
from noisin_pyro.inference.filtering.particle_filter import Settings
from noisin_pyro.inference.filtering.resampling import checked_threshold
from noisin_pyro.inference.filtering_bound import summed_out
from noisin_pyro.inference.importance_weights import log_mean_weights, sequence_weights
from noisin_pyro.inference.traces import PARTICLES, all_sites, bound_sites, guided_traces, returned_values, scored_sites

Program = Callable[..., Any]
THRESHOLD = 0.5


class PriorAsGuide_ELBO(ELBO):
    """An evidence lower bound under one rule: *a latent site that the guide does not sample is drawn from the model's
    own prior, and costs no KL.*

    Without a guide it is equation (1) of the paper, E_{p(z)}[log p(x | z)], estimated with S samples. With a guide over
    some sites, the bound includes the KL of those sites only. log p(z) is evaluated only for sites that the guide
    samples and for sites without a pathwise gradient, where it enters a score-function term. The guide may be of
    any of Pyro's kinds, ``GuideMessenger`` included. ``differentiable_loss`` and the module do not synchronize with the
    device; ``loss`` and ``loss_and_grads`` return floats, as Pyro's do.

    A guide made by :func:`noisin_pyro.inference.guides.get` samples the noise of the model, not its states. Pass it
    with the model itself; ``innovations(model)`` is applied here.

    Use it as a module and train it by a torch optimizer::

        bound = PriorAsGuide_ELBO(num_particles=S)(model)      # or (model, guide)
        loss = bound(inputs, targets, state=state)             # nats, summed over the batch
        state = bound.returned.state                           # detached

    or pass it to ``SVI(model, None, optimizer, loss=PriorAsGuide_ELBO())``.

    Args:
        num_particles: number of samples S.
        vectorize_particles: whether to draw all samples in one run of the model, in a plate to the left of the model's
            own plates.
        bound: ``"elbo"``, or ``"importance"``: log (1/S) Σ_s w_s of each sequence, tighter for larger S. Scales
            (subsampling) stay outside the logarithm. On a stream cut into windows with carried states, the sum over
            windows is an objective, not a bound. ``"filtering"``: log p̂(x) of a particle filter with S particles
            (``filtering_bound.py``), for a :class:`SequenceModel`. The returned state holds the particles and their
            weights; carried from window to window, the sum over a stream's windows is a bound. A named guide is the
            filter's proposal; any other may sample γ and weights.
        kl_weight: factor of the guide's KL. KL annealing raises it to 1 during training
            (``bound.elbo.kl_weight = 0.5``); at other values the loss is not a bound.
        max_plate_nesting: maximum nesting depth of the model's plates. By default the model is run once to find it.
        retain_graph: as in Pyro's ELBOs, for ``SVI``.
        threshold: for ``"filtering"``: the particles of a sequence are resampled if their effective sample size is
            below this fraction of S (default: 0.5); 0 never resamples.
        ancestor_term: for ``"filtering"``: whether the gradient includes that of each ancestor's weight (default:
            True). With it, E[(p̂/p) ∇log p̂] = ∇log p(x) for any S. Without it the variance is smaller, but the gradient
            is that of the likelihood on average only if the model is true.
        strict_enumeration_warning: whether to warn of sites that are configured for enumeration, as Pyro's ELBOs do;
            they are sampled here.
        unused: the other keywords of Pyro's ELBOs, at their defaults.

    Raises:
        ValueError: a guide site that is not in the model, or has another shape there; a guide over the states of a
            discrete family, or of a family whose support depends on the mean; with ``bound="importance"``, a latent
            site outside the sequences' plate, an observed one there whose density depends on the samples, or sites with
            different scales.
    """

    def __init__(
        self,
        num_particles: int = 1,
        *,
        vectorize_particles: bool = True,
        bound: str = "elbo",
        kl_weight: float = 1.0,
        max_plate_nesting: int | float = math.inf,
        retain_graph: bool | None = None,
        threshold: float | None = None,
        ancestor_term: bool | None = None,
        strict_enumeration_warning: bool = True,
        **unused: Any,
    ) -> None:
        num_particles = integer("num_particles", num_particles)
        check_options(bound, threshold, ancestor_term, vectorize_particles, unused)
        super().__init__(
            num_particles,
            vectorize_particles=vectorize_particles,
            retain_graph=retain_graph,
            strict_enumeration_warning=strict_enumeration_warning,
        )
        self.max_plate_nesting = max_plate_nesting
        self.bound = bound
        self.kl_weight = kl_weight
        self.threshold = checked_threshold(THRESHOLD if threshold is None else threshold)
        self.ancestor_term = ancestor_term is None or boolean("ancestor_term", ancestor_term)
        self._check_kl_weight()
        self._measured: tuple[Any, Any] = (None, None)  # the model and guide whose nesting is known
        self._nesting = 0

    def __call__(self, model: Program, guide: Program | None = None) -> Bound:  # type: ignore[override]
        """The bound of a model and a guide, as a module with the parameters of both."""
        return Bound(model, guide, self)

    @torch.no_grad()
    def loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> float:
        """The negative bound in nats, without gradients."""
        return self._as_float(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> float:
        """Compute the negative bound and run the backward pass. ``SVI`` calls this."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        return self._as_float(loss)

    @staticmethod
    def _as_float(loss: Tensor) -> float:
        value = loss.item()
        warn_if_nan(value, "loss")  # type: ignore[arg-type]
        return value

    def differentiable_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """The negative bound in nats; its gradient is an unbiased estimate of the gradient of its expectation."""
        return self.loss_and_returned(model, guide, *args, **kwargs)[0]

    def loss_and_returned(
        self, model: Program, guide: Program | None, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, list[Any]]:
        """The differentiable loss, and what each run of the model returned (one run if particles are vectorized)."""
        value, surrogate, returned = self._bound(model, guide, args, kwargs)
        # the value of the bound, with the gradient of the surrogate, or none if that is infinite
        return -(value.detach() + (surrogate - surrogate.detach()).nan_to_num(0.0)), returned

    def log_weights(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> tuple[Tensor, list[Any]]:
        """log w of each sample and sequence, ``(S, B)``, without scales, and what each run of the model returned.

        Raises:
            ValueError: with ``bound="filtering"``, whose particles are resampled, so that none has a weight of its own.
        """
        if self.bound == "filtering":
            raise ValueError(
                'bound="filtering" has no weights of whole samples, since particles are resampled; use '
                'bound="importance", or what the filter returned (bound.returned.log_likelihood)'
            )
        traces = list(self._get_traces(model, guide, args, kwargs))
        log_w = sequence_weights(traces, self.nesting(model, guide, *args, **kwargs), self.num_particles)
        return log_w, returned_values(traces)

    def _bound(self, model: Program, guide: Program | None, args: Any, kwargs: Any) -> tuple[Tensor, Tensor, list[Any]]:
        """The bound, a surrogate whose gradient is an unbiased estimate of the bound's, and the runs' return values."""
        self._check_kl_weight()
        traces = list(self._get_traces(model, guide, args, kwargs))
        if self.bound != "importance":
            samples = self.num_particles if self.bound == "elbo" else 1
            terms = [self._elbo(*pair) for pair in traces]
            value = torch.stack([v for v, _ in terms]).sum() / samples
            surrogate = torch.stack([s for _, s in terms]).sum() / samples
        else:
            value, surrogate = log_mean_weights(traces, self.nesting(model, guide, *args, **kwargs), self.num_particles)
        return value, surrogate, returned_values(traces)

    def _check_kl_weight(self) -> None:
        weight: Any = as_number(self.kl_weight)
        if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ValueError(f"kl_weight must be a number >= 0, got {self.kl_weight!r}")
        if self.kl_weight != 1 and self.bound != "elbo":
            raise ValueError(
                f"kl_weight={self.kl_weight:g} is not for bound={self.bound!r}, which has no KL of the noise; leave it "
                'at 1, or use bound="elbo"'
            )

    def _elbo(self, model_trace: Trace, guide_trace: Trace) -> tuple[Tensor, Tensor]:
        """One run's ELBO and its surrogate, whose gradient is an unbiased estimate of the ELBO's.

        For latent sites z_g that the guide samples, and z_p that are drawn from their prior, the ELBO is

            log p(x | z) + kl_weight Σ_g (log p(z_g | …) - log q(z_g | …)),

        equation (1) of the paper if there is no z_g. Sites without a pathwise gradient add their score function times
        the terms that depend on them to the surrogate: Σ_i stop_gradient(cost_i) log q(z_i), or log p for a z_p.
        """
        value: Any = torch.zeros(())
        surrogate: Any = torch.zeros(())
        costs = MultiFrameTensor()
        for site in bound_sites(model_trace, guide_trace):
            weight = 1.0 if site["is_observed"] else self.kl_weight
            value = value + weight * site["log_prob_sum"]
            surrogate = surrogate + weight * site["log_prob_sum"]
            costs.add((site["cond_indep_stack"], weight * site["log_prob"].detach()))
        for site in all_sites(guide_trace):
            value = value - self.kl_weight * site["log_prob_sum"]
            costs.add((site["cond_indep_stack"], -self.kl_weight * site["log_prob"].detach()))
            if not is_identically_zero(site["score_parts"].entropy_term):
                surrogate = surrogate - self.kl_weight * site["score_parts"].entropy_term.sum()
        for site, score in scored_sites(model_trace, guide_trace):
            surrogate = surrogate + (costs.sum_to(site["cond_indep_stack"]) * score).sum()
        return value, surrogate

    def _get_traces(
        self, model: Program, guide: Program | None, args: Any, kwargs: Any
    ) -> Generator[tuple[Trace, Trace], None, None]:
        if self.bound == "filtering":
            settings = Settings(1, self.num_particles, self.threshold)
            yield self._get_trace(*summed_out(model, guide, settings, self.ancestor_term), args, kwargs)
            return
        if self.num_particles == 1 or not self.vectorize_particles:
            for _ in range(self.num_particles):
                yield self._get_trace(model, guide, args, kwargs)
            return
        depth = self.nesting(model, guide, *args, **kwargs) + 1
        plate = pyro.plate(PARTICLES, self.num_particles, dim=-int(depth))
        yield self._get_trace(model, guide, args, kwargs, depth, plate)

    def _get_trace(
        self,
        model: Program,
        guide: Program | None,
        args: Any,
        kwargs: Any,
        depth: int | float = math.inf,
        plate: pyro.plate | None = None,
    ) -> tuple[Trace, Trace]:
        """Run the guide and the model, in the plate if given; compute only the densities that the bound needs."""
        model_trace, guide_trace = guided_traces(model, guide, args, kwargs, plate)
        if not all_sites(model_trace):
            raise ValueError("model has no sample site; if poutine.block hides its sites, pass the model without it")
        model_trace.compute_log_prob(lambda name, site: _needs_density(name, site, guide_trace))
        guide_trace.compute_score_parts()
        if is_validation_enabled():
            for trace in (model_trace, guide_trace):
                if self.strict_enumeration_warning:
                    check_if_enumerated(trace)
                for site in all_sites(trace):
                    if "log_prob" in site:
                        check_site_shape(site, depth)  # type: ignore[arg-type]
        return model_trace, guide_trace

    def nesting(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> int:
        """Maximum nesting depth of the model's plates, found by running the model and guide once."""
        if self.max_plate_nesting < math.inf:
            return int(self.max_plate_nesting)
        if self._measured != (model, guide):
            with torch.no_grad(), poutine.block():
                traces = self._get_trace(model, guide, args, kwargs)
            sites = [site for trace in traces for site in all_sites(trace)]
            dims = [frame.dim for site in sites for frame in site["cond_indep_stack"] if frame.vectorized]
            self._measured, self._nesting = (model, guide), -min(dims, default=0)
        return self._nesting


def _needs_density(name: str, site: Any, guide_trace: Trace) -> bool:
    return site["is_observed"] or name in guide_trace or not site["fn"].has_rsample


class Bound(nn.Module):
    """The bound of a model and a guide, as a module with the parameters of both.

    Calling a :class:`PriorAsGuide_ELBO` returns one.
    """

    def __init__(self, model: Program, guide: Program | None, elbo: PriorAsGuide_ELBO) -> None:
        super().__init__()
        self.model, self.guide, self.elbo = model, guide, copy.copy(elbo)
        self._returned: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The negative bound in nats, a scalar. The arguments are those of the model."""
        loss, returned = self.elbo.loss_and_returned(self.model, self.guide, *args, **kwargs)
        self._returned = detach(returned[0] if len(returned) == 1 else returned)
        return loss

    @property
    def returned(self) -> Any:
        """Return value of the model in the last call, detached; a list of S values if particles are not vectorized."""
        return self._returned
