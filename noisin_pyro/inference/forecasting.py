"""Forecasts: the noise filtered to the end of each sequence, then the model simulated on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor

from noisin_pyro._lookup import integer, known
from noisin_pyro.data import Sequences, Series
from noisin_pyro.data.frames import ROWS
from noisin_pyro.data.time_grid import later
from noisin_pyro.inference.arviz import to_arviz
from noisin_pyro.inference.blocks import blocks
from noisin_pyro.inference.filtering.particle_filter import Settings, filter_window, rows_in_block
from noisin_pyro.inference.filtering.proposals import check_proposal
from noisin_pyro.inference.filtering.support import filterable, has_noisy_states, refuse_own_forward
from noisin_pyro.inference.generation import seeded
from noisin_pyro.inference.series_of_model import require_format_of
from noisin_pyro.inference.simulation import feed_of, filter_with_draws, resampled, simulate
from noisin_pyro.models import SequenceModel

NUM_SAMPLES, THRESHOLD, QUANTILES = 400, 0.5, (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)


@dataclass(frozen=True, repr=False)
class Forecast:
    """Samples of the future of N sequences, in the units of the data.

    Attributes:
        samples: S joint samples of H steps, ``(S, N, H, D)``, or ``(S, N, H)`` of classes.
        ids: a label for each sequence.
        names: of the D values.
        times: of the H steps of each sequence, if the data have regular times or the covariates came with their times;
            else None.
        id, time: names of the columns of labels and times.
    """

    samples: Tensor
    ids: Sequence[Any]
    names: Sequence[str]
    times: Sequence[Any] | None = None
    id: str = "sequence"
    time: str = "step"

    def __repr__(self) -> str:
        size, sequences, steps = self.samples.shape[:3]
        return f"Forecast({size} samples of {steps} steps of {sequences} sequences: {', '.join(map(str, self.names))})"

    @property
    def mean(self) -> Tensor:
        """The mean of each step, ``(N, H, D)``."""
        return self.samples.double().mean(0)

    def quantile(self, q: float | Sequence[float]) -> Tensor:
        """Quantiles of each step, ``(N, H, D)``, with an axis for several q in front.

        The k-th smallest of S samples is the k/(S+1) quantile: a new value from the same distribution is below it with
        just that probability.

        Raises:
            ValueError: a number that is not between 0 and 1.
        """
        levels = np.asarray(q, dtype=float)
        if not ((levels > 0) & (levels < 1)).all():
            raise ValueError(f"q must be between 0 and 1, got {q}")
        return torch.from_numpy(np.quantile(self.samples.double().cpu().numpy(), levels, axis=0, method="weibull"))

    def interval(self, probability: float) -> Tensor:
        """The ends of the central interval with this probability at each step, ``(2, N, H, D)``."""
        return self.quantile([(1 - probability) / 2, (1 + probability) / 2])

    def to_frame(self, quantiles: Sequence[float] = QUANTILES) -> Any:
        """A long pandas frame: a row for each value of each step, with its mean and quantiles."""
        import pandas as pd

        sequences, steps = self.samples.shape[1:3]
        shape = (sequences, steps, len(self.names))
        index = np.indices(shape).reshape(3, -1)
        times = index[1] + 1
        if self.times is not None:
            times = pd.concat([pd.Series(own) for own in self.times]).repeat(len(self.names)).array
        columns = {self.id: [self.ids[i] for i in index[0]], self.time: times, "value": np.take(self.names, index[2])}
        statistics = [self.mean, *self.quantile(list(quantiles))]
        labels = ["mean", *(f"q{level:g}" for level in quantiles)]
        return pd.DataFrame(columns | {name: x.flatten().numpy() for name, x in zip(labels, statistics, strict=True)})

    def to_arviz(self) -> Any:
        """ArviZ data with the group ``predictions``: x with dimensions chain, draw, sequence, time and value."""
        dims = ("chain", "draw", "sequence", "time", "value")[: self.samples.dim() + 1]
        steps = np.arange(1, self.samples.shape[2] + 1)
        coords = {"sequence": np.asarray(self.ids), "time": steps, "value": np.asarray(self.names)}
        return to_arviz({"predictions": {"x": (dims, self.samples.cpu().numpy()[None])}}, coords, {})


@torch.no_grad()
def forecast(
    model: Callable[..., Any],
    data: Sequences,
    num_steps: int,
    num_samples: int = NUM_SAMPLES,
    guide: Callable[..., Any] | None = None,
    covariates: Any = None,
    missing: str = "last",
    batch_size: int | None = None,
    seed: int | None = None,
) -> Forecast:
    """Forecast the steps after the end of each sequence.

    A particle filter draws the noise along the sequence, weighted by all its values; of a :class:`Series` also by those
    of its history. From resampled particles, noise and x are drawn step by step, and each x is the next input.

    Args:
        model: a :class:`SequenceModel`, or a view of it, with fixed weights and γ.
        data: the sequences, whose inputs are made from past values: a :class:`Series`, or :class:`Sequences` with
            x_{t-1} as inputs, such as music. Other inputs are not known in the future, and must be given as covariates.
        num_steps: number of future steps H.
        num_samples: number of samples S, and of particles.
        guide: a guide by name for this model, from which the filter draws the noise; by default its prior.
        covariates: of the future steps, in the units of the data: ``(N, H, C)``, or for series from a frame a frame of
            the same columns, from whose times the time differences are taken. Other sequences than series take the
            whole inputs, ``(N, H, I)``.
        missing: what the network reads where a value of a series is missing: ``"last"``, as in training (the last value
            observed, and an indicator), or ``"draw"``: each particle its own draw of the value (the generative
            reading).
        batch_size: number of sequences per batch (default: all).
        seed: seed of this call, which then leaves torch's generators unchanged.

    Raises:
        ValueError: a model or guide that a particle filter does not support, covariates that are missing or of another
            shape, inputs that cannot be continued, or data that the model cannot produce.
    """
    return forecast_with(model, data, num_steps, num_samples, guide, covariates, missing, batch_size, seed)[0]


def forecast_with(
    model: Callable[..., Any],
    data: Sequences,
    num_steps: int,
    num_samples: int,
    guide: Callable[..., Any] | None,
    covariates: Any,
    missing: str,
    batch_size: int | None,
    seed: int | None,
    actual: Tensor | None = None,
) -> tuple[Forecast, Tensor | None]:
    """What :func:`forecast` returns, and log p(actual | z) of each sample and step ``(S, N, H)``.

    Args:
        actual: the observed values, ``(N, H)`` or ``(N, H, D)``.
    """
    num_steps, num_samples = integer("num_steps", num_steps), integer("num_samples", num_samples)
    if not isinstance(data, Sequences):
        raise ValueError(f"data must be Sequences or a Series, got {type(data).__name__}; for texts use generate")
    program, conditions = filterable(model, "forecast")
    refuse_own_forward(program, "forecast")
    require_format_of(program, data)
    proposal = check_proposal(guide, program)
    if known("missing", missing, ("last", "draw")) == "draw" and (proposal is not None or not isinstance(data, Series)):
        raise ValueError("missing='draw' is for a Series (data.from_arrays) and without a guide; use missing='last'")
    like = next(program.rnn.parameters())
    data = data.to(like.device, like.dtype if data.inputs.is_floating_point() else None)
    data = data.with_history() if isinstance(data, Series) else data
    if data.targets.is_floating_point() and data.targets.isnan().any():
        program.emission.check_values(data.targets)
    feed = feed_of(data, num_steps, covariates)
    settings = Settings(1, num_samples, THRESHOLD, proposal)
    size = rows_in_block(program, num_samples, proposal)
    size = size if batch_size is None else min(size, integer("batch_size", batch_size))
    samples, log_p = [], []
    with contextlib.ExitStack() as handlers:
        for condition in (seeded(seed, like.device), poutine.block(), *conditions):
            handlers.enter_context(condition)
        for block in blocks(len(data), size):
            part = data.rows(block)
            if block.start == 0:
                has_noisy_states(program, next(part.batches()), "forecast")
            states, last = _filtered(program, part, settings, missing)
            own = feed.rows(block)
            own = own if last is None else replace(own, last=last, observed=~last.isnan())
            actual_block = None if actual is None else actual[block].to(like.device)
            drawn = simulate(program, states, own, num_steps, actual_block)
            samples.append(drawn[0])
            log_p.append(drawn[1])
    result = _result(torch.cat(samples, 1), data, feed.times)
    return result, None if actual is None else torch.cat(log_p, 1)


def _filtered(program: SequenceModel, data: Sequences, settings: Settings, missing: str) -> Any:
    """Equally weighted states at the end of each sequence, and what each particle reads next, if that is its own."""
    if missing == "draw":
        assert isinstance(data, Series)
        return resampled(*filter_with_draws(program, data, settings))
    filtered, particles = filter_window(program, next(data.batches()), None, settings)
    impossible = filtered.increments[0].isneginf()
    if impossible.any():
        row, step = impossible.nonzero()[0].tolist()
        raise ValueError(
            f"data: the model cannot produce step {step + 1} of sequence {row + 1} after those before it; use an "
            "emission whose support has it, or more samples"
        )
    return resampled(particles)


def _result(samples: Tensor, data: Sequences, times: Sequence[Any] | None) -> Forecast:
    if not isinstance(data, Series):
        names = [f"value_{d + 1}" for d in range(samples.shape[3])] if samples.dim() == 4 else ["class"]
        return Forecast(samples, range(len(data)), names)
    columns = data.format.columns
    if data.times is not None and columns.frequency not in (None, ROWS):
        times = [later(own, columns.frequency, samples.shape[2]) for own in data.times]
    return Forecast(samples, data.ids, columns.values, times, columns.id or "series", columns.time or "step")
