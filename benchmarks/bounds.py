"""Optimized bounds and estimates beside the exact log p(x) of a linear-Gaussian model.

``python benchmarks/bounds.py`` trains each guide on new samples of the model, whose own parameters stay at the truth.
It then compares bounds, importance sampling and the particle filter with the exact log-likelihood of held-out sequences
and writes ``results/bounds/result.json`` (about ten minutes on one core).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pyro
import torch
import tyro
from linear_gaussian import STEPS, TRUTH, linear_gaussian, log_likelihood, sample_sequences
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro._files import write_json
from noisin_pyro.inference.guides import Guide
from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.run import program_settings

RESULT = Path(__file__).parents[1] / "results" / "bounds" / "result.json"
GUIDES = {
    "mean-field": "full",
    "filtering": "full",
    "smoothing, diagonal": "diagonal",
    "smoothing": "full",
}
BATCH, RATE, HIDDEN = 100, 0.01, 32
REPEATS = 400  # runs of the filter on one sequence, to check E[p̂/p] = 1


def train_guide(model: nz.SequenceModel, name: str, covariance: str, steps: int) -> Guide:
    """Optimize a guide on new samples of the model in every step."""
    guide = nz.guides.get(name.partition(",")[0], model, covariance=covariance, hidden_size=HIDDEN)
    assert isinstance(guide, Guide)
    bound = nz.PriorAsGuide_ELBO(max_plate_nesting=1)(model, guide)
    optimizer = torch.optim.Adam(guide.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (bound(*sample_sequences(model, BATCH)) / (BATCH * STEPS)).backward()
        optimizer.step()
        schedule.step()
    return guide


def gap(model: nz.SequenceModel, guide: Guide | None, data: nz.data.Sequences, exact: Tensor) -> dict[str, float]:
    """log p(x) minus the ELBO in nats per step, by 20 samples per sequence, and its Monte Carlo error."""
    draws = []
    for _ in range(20):
        draws.append(nz.evaluate(model, data, method="importance", guide=guide, num_samples=1).nats_per_step)
    gaps = torch.tensor(draws).double() + float(exact.sum()) / data.num_steps
    return {"gap": float(gaps.mean()), "error": float(gaps.std() / 20**0.5)}


def compare(estimate: nz.Evaluation, exact: float) -> dict[str, Any]:
    """An estimate with its distance from the truth in Monte Carlo errors."""
    errors = (estimate.nats_per_step - exact) / estimate.monte_carlo_error
    return {
        "nats_per_step": estimate.nats_per_step,
        "monte_carlo_error": estimate.monte_carlo_error,
        "errors_from_exact": errors,
        "worst_pareto_k": estimate.pareto_k,
    }


def likelihood_ratio(model: nz.SequenceModel, particles: int) -> dict[str, float]:
    """The mean of p̂/p over runs of the filter on one sequence, and its z-score against 1."""
    inputs, x = sample_sequences(model, 1)
    data = nz.data.Sequences(inputs.repeat(REPEATS, 1, 1), x.repeat(REPEATS, 1, 1))
    estimates = nz.evaluate(model, data, method="particle-filter", num_samples=particles, islands=1, log_probs=True)
    assert estimates.log_probs is not None
    ratio = (estimates.log_probs.sum(-1) - log_likelihood(x, TRUTH)).exp()
    mean, error = float(ratio.mean()), float(ratio.std() / REPEATS**0.5)
    return {"particles": particles, "repeats": REPEATS, "mean": mean, "error": error, "z": (mean - 1) / error}


def main(steps: int = 3000, held_out: int = 2000, seed: int = 0, path: Path = RESULT) -> None:
    """Compare optimized bounds and estimates with the exact log-likelihood.

    Args:
        steps: Number of gradient steps for each guide.
        held_out: Number of held-out sequences.
        seed: Random seed of data, weights and noise.
        path: File to write.
    """
    torch.set_num_threads(1)
    pyro.set_rng_seed(seed)
    with program_settings():
        model = linear_gaussian(TRUTH)
        inputs, x = sample_sequences(model, held_out)
        data, exact = nz.data.Sequences(inputs, x), log_likelihood(x, TRUTH)
        nats = -float(exact.sum()) / data.num_steps
        result: dict[str, Any] = {"steps": steps, "sequences": held_out, "seed": seed, "batch": BATCH, "rate": RATE}
        result |= {"hidden_size": HIDDEN} | provenance(torch.device("cpu"))
        result |= {"exact_nats_per_step": nats, "bounds": {"prior": gap(model, None, data, exact)}}
        for name, covariance in GUIDES.items():
            began = time.perf_counter()
            guide = train_guide(model, name, covariance, steps)
            result["bounds"][name] = gap(model, guide, data, exact) | {"seconds": round(time.perf_counter() - began)}
            print(f"{name:>20}", result["bounds"][name], flush=True)
        few = nz.data.Sequences(inputs[:200], x[:200])
        exact_few = -float(exact[:200].sum()) / few.num_steps
        by_guide = nz.evaluate(model, few, method="importance", guide=guide, num_samples=200)
        filtered = nz.evaluate(model, few, method="particle-filter", num_samples=4000)
        result["estimates"] = {
            "exact_nats_per_step": exact_few,
            "importance, smoothing guide, S = 200": compare(by_guide, exact_few),
            "particle filter, 4000 particles": compare(filtered, exact_few),
            "filter, E[p̂/p]": likelihood_ratio(model, 100),
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    print(path.read_text())


if __name__ == "__main__":
    tyro.cli(main)
