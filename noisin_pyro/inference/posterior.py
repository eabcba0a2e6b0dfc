"""A model's posterior over its hidden states, γ and weights, for ArviZ to look at."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import torch

from noisin_pyro.data import Batch, Sequences, Stream
from noisin_pyro.inference.arviz_adapter import Variables, pareto_k, to_arviz
from noisin_pyro.inference.draws import Draws, by_importance, by_nuts, is_shared, run
from noisin_pyro.inference.estimates import effective_samples
from noisin_pyro.inference.generation import seeded
from noisin_pyro.inference.importance import LARGEST, RELIABLE, Largest
from noisin_pyro.inference.seen import coordinates, marginal, observed, see
from noisin_pyro.inference.sites import sampled_sites
from noisin_pyro.models import SequenceModel, innovations, underlying
from noisin_pyro.names import known

METHODS = ("prior", "guide", "nuts")
OF_NUTS = ("num_chains", "warmup_steps", "thin")
CHAINS, PARTICLES = 4, 200


@torch.no_grad()
def posterior(
    model: Callable[..., Any],
    data: Sequences | Stream,
    guide: Callable[..., Any] | None = None,
    num_samples: int = 1000,
    *,
    method: str | None = None,
    num_proposals: int | None = None,
    num_chains: int | None = None,
    warmup_steps: int | None = None,
    thin: int | None = None,
    num_particles: int | None = None,
    max_memory: int = 2**30,
    seed: int | None = None,
    progress: bool = True,
) -> Any:
    """Draws from p(z, γ, weights | x), with what ArviZ's summaries and pictures look at.

    - ``method="prior"``: whole sequences from the prior, resampled in proportion to p(x | z). For small T·H alone.
    - ``method="guide"``: from the guide as they are, q(z | x); with ``num_proposals``, resampled in proportion to
      p(x, z) / q(z | x). What the guide does not sample is drawn from the prior.
    - ``method="nuts"``: chains of the No-U-Turn sampler on ``innovations(model)``. For small models.

    Of the first two ``sample_stats`` has the Pareto k̂ of each sequence's weights (of all together where γ or weights
    are sampled, which all share), and how many proposals they are worth. Where weights that were used for resampling
    have a k̂ above 0.7, a warning says so. Resampled draws may repeat.

    Groups: ``posterior`` and ``prior``: ``z_1`` ... (chain, draw, sequence, time, unit_1), ``gamma_1`` ... where γ has
    a prior, and weights that have one, by their sites' names. ``posterior_predictive``, ``observed_data``: ``x`` (...,
    sequence, time[, feature]). ``log_likelihood``: ``x``, log p(x_t | z_t) of each step; where γ or weights are sampled
    also ``x_marginal``, log p(x | γ, weights) of each whole sequence, by a particle filter at each draw. Time counts
    from 1, as sites do, all else from 0. Steps beyond a sequence's length are NaN, whole numbers floats there.

    ``az.loo`` and ``az.compare`` are for ``var_name="x_marginal"``. They re-weight draws as if they had not seen one
    observation. That works for what many observations share; but z_t has hardly any beside x_t, and without it would
    be another, so the weights of single steps are as bad as those of the prior. Where neither γ nor weights are
    sampled, nothing is shared and there is nothing to leave out. Compare models, of several families say, on sequences
    that they were not trained on: ``evaluate(model, data, "particle-filter").minus(evaluate(other, ...))``.

    Args:
        model: a :class:`SequenceModel`, or any program with its arguments that opens a plate of dimension -1 over the
            sequences and returns ``emission`` and ``state``; with a guide, the view on whose sites that acts.
        data: sequences; or a stream of one window, each column a sequence. In one of several windows the states go on
            from window to window, and no window's draws would know what follows it.
        guide: a Pyro guide over some of the model's sites, called with the model's arguments.
        num_samples: draws; of ``"nuts"``, in each chain before thinning.
        method: by default ``"guide"`` where there is one, else ``"prior"``.
        num_proposals: how many are drawn to be resampled; of ``"prior"``, 10 times ``num_samples`` by default.
        num_chains: of ``"nuts"``, one after the other; 4 by default.
        warmup_steps: of ``"nuts"``, in which each chain adapts; not kept; as many as ``num_samples`` by default.
        thin: of ``"nuts"``: keep every so manieth draw; all by default.
        num_particles: of the filter that finds ``x_marginal``; 200 by default, 0 leaves it out.
        max_memory: bytes that the result, and the draws that it is made from, may take.
        seed: of this call alone: torch's generators are left as they were. By default they are used and go on.
        progress: whether to say on standard error what the result will take, before it is built, and how far NUTS is.

    Returns:
        an ``arviz.InferenceData`` (ArviZ 0.23) or an ``xarray.DataTree`` (ArviZ 1); its attributes say how it was made.

    Raises:
        ValueError: for a model without latents, options that do not apply, a stream of several windows, or a result
            larger than ``max_memory``: nothing is thinned unasked.
    """
    method = known("method", ("prior" if guide is None else "guide") if method is None else method, METHODS)
    given = {
        "num_proposals": num_proposals,
        "num_chains": num_chains,
        "warmup_steps": warmup_steps,
        "thin": thin,
    }
    options = _options(method, guide, num_samples, given)
    data = _whole(data)
    (batch,) = data.batches()
    with seeded(seed, batch.inputs.device):
        shared, at_once = _first_look(model, batch, num_particles)
        model = innovations(model) if method == "nuts" else model
        _state_size(_sizes(model, batch, options), options, max_memory, progress)
        if method == "nuts":
            draws = by_nuts(model, batch, num_samples, options.chains, options.warmup_steps, options.thin, progress)
        else:
            draws = by_importance(model, guide, batch, num_samples, options.num_proposals, at_once)
        groups = see(model, batch, draws.latents, options.kept, at_once)
        groups["prior"] = see(model, batch, {}, options.kept, at_once)["posterior"]
        if shared and num_particles != 0:
            network = {name: draws.latents[name] for name in shared}
            groups["log_likelihood"] |= marginal(model, data, network, num_particles or PARTICLES)
    found = {group: _by_chain(variables, options.chains) for group, variables in groups.items()}
    found["sample_stats"] = _stats(draws, method, options, bool(shared))
    found["observed_data"] = observed(batch)
    index = np.arange(options.kept // options.chains) * options.thin
    return to_arviz(found, {**coordinates(batch), "draw": index}, _attributes(model, method, options, seed))


class _Options(NamedTuple):
    """What was asked for, with the defaults of its method."""

    num_samples: int
    num_proposals: int | None
    chains: int
    warmup_steps: int
    thin: int

    @property
    def kept(self) -> int:
        """Draws of all chains together."""
        return self.chains * -(-self.num_samples // self.thin)


def _options(method: str, guide: object, num_samples: int, given: dict[str, int | None]) -> _Options:
    applies = OF_NUTS if method == "nuts" else ("num_proposals",)
    for name, value in given.items():
        if value is not None and name not in applies:
            others = "'nuts'" if name in OF_NUTS else "'prior' or 'guide'"
            hint = ": its draws are independent, take fewer num_samples" if name == "thin" else ""
            raise ValueError(f"{name} has no effect on method={method!r}{hint}; drop it, or take method={others}")
    if (guide is None) == (method == "guide"):
        has = "none" if guide is None else "one"
        raise ValueError(f"method={method!r} {'needs a' if guide is None else 'has no use for a'} guide, got {has}")
    for name, value in {"num_samples": num_samples, **given}.items():
        least = 0 if name == "warmup_steps" else 1
        if value is not None and (not isinstance(value, int) or value < least):
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    defaults = {"num_proposals": 10 * num_samples if method == "prior" else None, "warmup_steps": num_samples}
    defaults |= {"num_chains": CHAINS if method == "nuts" else 1, "thin": 1}
    chosen = {name: defaults[name] if value is None else value for name, value in given.items()}
    return _Options(num_samples, *chosen.values())  # type: ignore[arg-type]


def _whole(data: Sequences | Stream) -> Sequences:
    """The sequences; of a stream, its columns."""
    if isinstance(data, Sequences):
        return data
    batch, *others = data.batches()
    if others:
        raise ValueError(
            f"data is a stream of {1 + len(others)} windows, whose states go on from one to the next, so that no "
            "window's draws would know what follows it; give a Stream whose window holds a whole column, or Sequences"
        )
    return Sequences(batch.inputs, batch.targets, batch.lengths)


def _first_look(model: Callable[..., Any], batch: Batch, num_particles: int | None) -> tuple[list[str], int]:
    """The sites that sequences share, and how many draws are run at once."""
    with Largest() as largest:
        trace, _ = run(model, batch, 1)
    latents = sampled_sites(trace)
    if not latents:
        raise ValueError("model samples nothing beside the data, so it has no posterior; give it a spread above 0")
    shared = [site["name"] for site in latents if is_shared(site)]
    if num_particles is not None and (not isinstance(num_particles, int) or num_particles < 0):
        raise ValueError(f"num_particles must be a whole number of at least 0, got {num_particles!r}")
    if num_particles and not shared:
        raise ValueError(
            f"num_particles={num_particles} has no effect where neither γ nor weights are sampled: log p(x) is then "
            "one number, which evaluate(model, data, 'particle-filter') finds; drop it"
        )
    return shared, max(1, LARGEST // largest.numbers)


def _sizes(model: Callable[..., Any], batch: Batch, options: _Options) -> tuple[int, int]:
    """Bytes of the result, and of the draws that it is made from."""
    trace, _ = run(model, batch, 1)
    latents = sum(site["value"].nbytes for site in sampled_sites(trace))
    each = {group: sum(v.nbytes for _, v in found.values()) for group, found in see(model, batch, {}, 1, 1).items()}
    made_from = options.kept + (options.num_proposals or options.num_samples)
    return (sum(each.values()) + each["posterior"]) * options.kept, made_from * latents


def _state_size(sizes: tuple[int, int], options: _Options, max_memory: int, progress: bool) -> None:
    """Say what it will take; refuse what is too much."""
    result, made_from = sizes
    what = f"{options.kept} draws take {_bytes(result)}, and {_bytes(made_from)} more while made"
    if result + made_from > max_memory:
        factor = math.ceil((result + made_from) / max_memory)
        less = f"num_samples={options.num_samples // factor}"
        less = f"thin={options.thin * factor}" if options.chains > 1 else less
        raise ValueError(
            f"max_memory: {what}, more than {_bytes(max_memory)}; ask for less (about {less}), give fewer sequences, "
            "or raise max_memory"
        )
    if progress:
        print(f"posterior: {what}", file=sys.stderr)


def _bytes(number: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number = number / 1000
    return f"{number:.3g} GB"


def _by_chain(variables: Variables, chains: int) -> Variables:
    return {
        name: (("chain", "draw", *dims), values.reshape(chains, -1, *values.shape[1:]))
        for name, (dims, values) in variables.items()
    }


def _stats(draws: Draws, method: str, options: _Options, shared: bool) -> Variables:
    """What tells how far to trust the draws; warns of resampled ones that cannot be."""
    if draws.diverging is not None:
        return _by_chain({"diverging": ((), draws.diverging.numpy())}, options.chains)
    assert draws.log_weights is not None
    k, effective = pareto_k(draws.log_weights.T.numpy()), effective_samples(draws.log_weights).numpy()
    bad = int((k > RELIABLE).sum())
    if bad and options.num_proposals is not None:
        whom = "all sequences together, which share γ or weights" if shared else f"{bad} of {len(k)} sequences"
        warnings.warn(
            f"posterior: the Pareto k̂ is above {RELIABLE} (up to {k.max():.2f}) for {whom}: "
            f"{options.num_proposals} proposals from the {method} do not reach the posterior, and draws resampled from "
            "them misstate it; take a (better) guide, method='nuts', or more num_proposals",
            stacklevel=4,  # the line that calls posterior
        )
    found = {"pareto_k": k, "effective_proposals": effective}
    return {name: ((), values[0]) if shared else (("sequence",), values) for name, values in found.items()}


def _attributes(model: Callable[..., Any], method: str, options: _Options, seed: int | None) -> dict[str, Any]:
    """How it was made, as strings and numbers."""
    ways = {"prior": "prior, resampled by importance", "nuts": "NUTS on the innovations", "guide": "guide, as drawn"}
    resampled = method == "guide" and options.num_proposals is not None
    made: dict[str, Any] = {
        "inference_library": "noisin_pyro",
        **{f"{name}_version": version(name) for name in ("noisin_pyro", "pyro-ppl", "torch")},
        "method": "guide, resampled by importance" if resampled else ways[method],
        "seed": "not given" if seed is None else seed,
    }
    applies = OF_NUTS if method == "nuts" else ("num_proposals",)
    values = {"num_proposals": options.num_proposals, "num_chains": options.chains}
    values |= {"warmup_steps": options.warmup_steps, "thin": options.thin}
    made |= {name: values[name] for name in applies if values[name] is not None}
    program, _ = underlying(model)
    if isinstance(program, SequenceModel):
        rnn = program.rnn
        spreads = {f"gamma_{layer}": getattr(rnn, f"spread_{layer}") for layer in rnn.noisy_layers}
        like = next(rnn.parameters()).detach()
        made |= {"noise": f"{rnn.noise.name}:{rnn.noise.form}", "cell": rnn.cell.name}
        made |= {name: str(s.prior) if s.prior is not None else float(s(like)) for name, s in spreads.items()}
    return made
