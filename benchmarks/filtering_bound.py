"""γ learned by the filtering bound, beside its maximum likelihood estimate in a linear-Gaussian model.

``python benchmarks/filtering_bound.py`` writes ``results/filtering_bound.json``, part by part; parts that are there are
left out, so that it can be interrupted. γ starts at 0.3 and all other parameters are fixed at the truth. The parts:

- ``spread``: γ relative to its maximum likelihood estimate, averaged over the last 100 steps, by proposal, number of
  particles, threshold and ancestor term.
- ``gap``: log p(x) - log p̂(x) in nats per sequence.
- ``score``: z-scores of the mean of (p̂/p) ∇log p̂ against ∇log p(x), with the ancestor term and without.
- ``unbiased``: z-score of the mean of p̂/p against 1.
- ``smoother``: the largest z-score, over filters, of the means and deviations of ``posterior(method="smoother")``.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
import tyro
from linear_gaussian import (
    TRUTH,
    ExactGuide,
    linear_gaussian,
    log_likelihood,
    max_likelihood_spread,
    posterior,
    sample_sequences,
)

import noisin_pyro as nz
from noisin_pyro._files import write_json
from noisin_pyro.data import Batch
from noisin_pyro.inference.filtering.differentiable import differentiable_filter
from noisin_pyro.inference.filtering.particle_filter import Settings
from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.run import program_settings

RESULT = Path(__file__).parents[1] / "results" / "filtering_bound.json"
SEQUENCES, START, RATE, LAST = 64, 0.3, 0.03, 100


@dataclass(frozen=True)
class Learning:
    """A way to learn γ, and how near to the estimate it should come."""

    steps: int
    proposal: str
    particles: int
    threshold: float
    ancestor_term: bool
    limit: float | None
    gradient_steps: int = 300

    @property
    def name(self) -> str:
        term = "with" if self.ancestor_term else "without"
        sizes = f"T = {self.steps}, {self.proposal}, K = {self.particles}, threshold {self.threshold:g}"
        return f"{sizes}, {term} ancestor term"


LEARNING = [
    Learning(10, "prior", 64, 0.5, True, 0.08),
    Learning(10, "prior", 256, 0.5, True, 0.03),
    Learning(10, "trained smoothing guide", 16, 0.5, True, 0.06, 600),
    Learning(100, "prior", 64, 0.5, True, 0.08),
    Learning(100, "prior", 64, 0.5, False, None),
    Learning(100, "prior", 256, 0.5, True, 0.05),
    Learning(100, "exact conditional", 16, 0.0, True, 0.005),
    Learning(100, "exact conditional", 16, 0.5, True, 0.03),
]


def learn(options: Learning, seed: int) -> dict[str, Any]:
    """Learn γ by Adam on one data set, with the guide beside it by the ELBO if it is trained."""
    pyro.set_rng_seed(seed)
    inputs, x = sample_sequences(linear_gaussian(TRUTH), SEQUENCES, options.steps)
    estimate = max_likelihood_spread(x)
    model = linear_gaussian(nz.Spread(START, floor=0.0, learn=True))
    guide: Any = None
    if options.proposal != "prior":
        is_exact = options.proposal == "exact conditional"
        guide = ExactGuide(model) if is_exact else nz.guides.get("smoothing", model, covariance="full", hidden_size=16)
    elbo = nz.PriorAsGuide_ELBO(
        options.particles,
        bound="filtering",
        threshold=options.threshold,
        ancestor_term=options.ancestor_term if options.threshold > 0 else None,
    )
    objectives = [(elbo(model, guide), torch.optim.Adam([p for p in model.parameters() if p.requires_grad], RATE))]
    if options.proposal == "trained smoothing guide":
        bound = nz.PriorAsGuide_ELBO(4, max_plate_nesting=1)(model, guide)
        objectives.append((bound, torch.optim.Adam(guide.parameters(), 0.01)))
    history = []
    for _ in range(options.gradient_steps):
        for bound, optimizer in objectives:
            bound.zero_grad()
            (bound(inputs, x) / SEQUENCES).backward()
            optimizer.step()
        history.append(model.rnn.spreads()["gamma_1"])
    ratio = float(np.mean(history[-LAST:])) / estimate
    met = None if options.limit is None else abs(ratio - 1) <= options.limit
    return {"likeliest": estimate, "ratio": ratio, "limit": options.limit, "met": met}


def gap(steps: int, particles: int, seed: int) -> dict[str, float]:
    """The bound's distance from log p(x), with the prior as proposal."""
    pyro.set_rng_seed(seed)
    model = linear_gaussian(TRUTH)
    inputs, x = sample_sequences(model, SEQUENCES, steps)
    bound = nz.PriorAsGuide_ELBO(particles, bound="filtering")(model)
    gaps = []
    with torch.no_grad():
        for _ in range(10):
            bound(inputs, x)
            gaps.append(float((log_likelihood(x, TRUTH) - bound.returned.log_likelihood).mean()))
    return {"nats_per_sequence": float(np.mean(gaps)), "error": float(np.std(gaps, ddof=1)) / math.sqrt(len(gaps))}


def score(seed: int, groups: int = 100, size: int = 1000) -> dict[str, float]:
    """The weighted gradient in γ of 100,000 filters with 8 particles on one sequence of three steps."""
    pyro.set_rng_seed(seed)
    model = linear_gaussian(nz.Spread(0.7, floor=0.0, learn=True))
    x = torch.tensor([[[1.5, -1.0], [2.0, 1.5], [-1.0, 1.0]]]).double()
    gamma = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    log_p = log_likelihood(x, gamma)
    (exact,) = torch.autograd.grad(log_p, gamma)
    parameter: Any = model.rnn.get_parameter("spread_1.excess_unconstrained")
    batch = Batch(torch.zeros(size, 3, 1).double(), x.expand(size, -1, -1), None, False)
    result = {}
    for name, ancestor_term in (("with", True), ("without", False)):
        means = []
        for _ in range(groups):
            estimate, *_ = differentiable_filter(model, batch, None, Settings(1, 8, 1.0), ancestor_term)
            weight = (estimate - log_p).detach().exp() / size
            (slope,) = torch.autograd.grad((weight * estimate).sum(), parameter)
            means.append(slope / torch.sigmoid(parameter.detach()))  # from the softplus' argument to γ
        values = torch.stack(means)
        result[f"z {name} ancestor term"] = float((values.mean() - exact) / (values.std() / groups**0.5))
    return result


def unbiased(seed: int, repeats: int = 20_000) -> dict[str, float]:
    """p̂/p of filters with 16 particles on one sequence of five steps."""
    pyro.set_rng_seed(seed)
    model = linear_gaussian(TRUTH)
    inputs, x = sample_sequences(model, 1, 5)
    bound = nz.PriorAsGuide_ELBO(16, bound="filtering")(model)
    with torch.no_grad():
        bound(inputs.expand(repeats, -1, -1), x.expand(repeats, -1, -1))
    ratio = (bound.returned.log_likelihood - log_likelihood(x, TRUTH)).exp()
    return {"mean": float(ratio.mean()), "z": float((ratio.mean() - 1) / (ratio.std() / repeats**0.5))}


def smoother(seed: int, filters: int = 20) -> dict[str, float]:
    """Fifty draws from each filter with 1,000 particles, on one sequence of 100 steps."""
    pyro.set_rng_seed(seed)
    model = linear_gaussian(TRUTH)
    inputs, x = sample_sequences(model, 1, 100)
    mean, deviation = (moment[0].numpy() for moment in posterior(x, TRUTH))
    data = nz.data.Sequences(inputs, x)
    options: dict[str, Any] = {"num_samples": 50, "num_chains": filters, "num_particles": 1000, "progress": False}
    z = nz.posterior(model, data, method="smoother", seed=seed, **options).posterior.z_1.values[:, :, 0]

    def largest(statistic: np.ndarray, truth: np.ndarray) -> float:
        errors = statistic.std(0, ddof=1) / math.sqrt(filters)
        return float(np.abs((statistic.mean(0) - truth) / errors)[::5].max())  # every fifth step: the others are close

    return {
        "largest z of means": largest(z.mean(1), mean),
        "largest z of deviations": largest(((z - mean) ** 2).mean(1), deviation**2),
    }


def main(seed: int = 0, result: Path = RESULT) -> None:
    """Compare the filtering bound with exact likelihoods, part by part.

    Args:
        seed: Random seed of data and noise.
        result: File to write, and to continue.
    """
    torch.set_num_threads(1)
    parts: dict[str, dict[str, Callable[[], dict[str, Any]]]] = {
        "score": {"T = 3, K = 8": partial(score, seed)},
        "unbiased": {"T = 5, K = 16": partial(unbiased, seed)},
        "gap": {
            f"T = {steps}, K = {particles}": partial(gap, steps, particles, seed)
            for steps in (10, 100)
            for particles in (16, 64, 256)
        },
        "smoother": {"T = 100, K = 1000": partial(smoother, seed)},
        "spread": {options.name: partial(learn, options, seed) for options in LEARNING},
    }
    settings = {"sequences": SEQUENCES, "start": START, "rate": RATE, "averaged_steps": LAST, "truth": TRUTH}
    content: dict[str, Any] = {"seed": seed, "settings": settings}
    if result.exists():
        content = json.loads(result.read_text())
    with program_settings():
        for part, entries in parts.items():
            for name, compute in entries.items():
                if name in content.setdefault(part, {}):
                    continue
                start = time.process_time()
                content[part][name] = compute() | {"seconds": round(time.process_time() - start, 1)}
                write_json(result, content | provenance(torch.device("cpu")))
                print(f"{part:>10}  {name}: {content[part][name]}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
