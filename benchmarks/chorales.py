"""All contestants on the chorales: equal wall time, one split, the same evaluations.

``python benchmarks/chorales.py --minutes 60`` runs all of them, one after the other, and resumes after an
interruption; ``--only NAME`` runs one, and ``--table`` writes the table of those that are complete. ``taskset -c N``
pins a run to one core. The protocol, the same for all but the Deep Markov Model, which has that of its authors:

- one tanh layer of 100 units, Bernoulli emissions, batches of 20 whole chorales, Adam at 0.003, gradient norm clipped
  at 5;
- validation after each epoch (noise off; with a guide, by its bound); the model that is best in validation is tested;
- training and validation take at most ``--minutes`` in total, on one thread, and stop early after 1000 epochs without
  an improvement in validation. Without a guide, γ is one of three values, the best in validation after a tenth of the
  time each; the final run has the remaining seven tenths. With a guide, noise is Gaussian and γ is learned; the weight
  of the KL term rises over the first 20 epochs.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dmm
import pyro
import torch
import tyro
from chorales_table import write_table

import noisin_pyro as nz
from noisin_pyro._files import write_json
from noisin_pyro.data import Corpus, Sequences
from noisin_pyro.training import Data, Inference, Model, Noise, Optimization, Result, Run
from noisin_pyro.training.result import evaluation_as_dict
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.rundir import metrics_log
from noisin_pyro.training.rundir.layout import CONFIG, LOG, RESULT
from noisin_pyro.training.rundir.load import load_run

ROOT = Path(__file__).parents[1]
NOISES = {
    "gaussian": "gaussian",
    "laplace": "laplace",
    "gamma": "gamma:multiplicative",
    "bernoulli": "bernoulli:multiplicative",  # dropout on the state
}
GUIDES = ("mean-field", "filtering", "smoothing")
NAMES = ("deterministic", *NOISES, *GUIDES, "dmm")
GAMMAS, SEARCH_SHARE = (0.25, 0.5, 1.0), 0.1
"""Candidates for γ without a guide, and the share of the time that each candidate gets."""
SAMPLES = (20, 100, 1000, 2000)
"""For the test: draws of the ELBO, runs of the ensemble, importance samples per sequence, and particles."""
BATCH = 20  # chorales per batch of the test
BOUNDS = ("elbo", "importance")  # the evaluations that the Deep Markov Model supports


def config(where: Path, seed: int, noise: Noise, guide: Inference | None = None, **options: Any) -> nz.Config:
    """The configuration of a run on the chorales, with everything that contestants have in common."""
    return nz.Config(
        data=Data(name="jsb"),
        model=Model(hidden_size=100),
        noise=noise,
        inference=Inference() if guide is None else guide,
        optimization=Optimization(**{"learning_rate": 0.003, "epochs": 10**6, "patience": 1000, **options}),
        run=Run(folder=where, seed=seed, twin=False, ensemble_samples=0),
    )


def finish(config: nz.Config) -> Result:
    """Run or resume it, or read its result if it is complete."""
    where = config.run.folder
    assert where is not None
    resume = where if (where / CONFIG).exists() else None
    return nz.train(dataclasses.replace(config, run=dataclasses.replace(config.run, resume=resume)))


def search(name: str, root: Path, minutes: float, seed: int) -> dict[float, Result]:
    """A short run for each candidate γ."""
    results = {}
    for gamma in GAMMAS:
        where = ROOT / "runs" / root.name / f"{name}-{gamma}"
        results[gamma] = finish(config(where, seed, Noise(NOISES[name], gamma), minutes=SEARCH_SHARE * minutes))
    return results


def train(name: str, root: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Train a contestant, or resume it; returns what its result has beyond that of its run."""
    where = root / name
    if name == "dmm":
        dmm.train(where, minutes, seed)
        return {}
    if name == "deterministic":
        finish(config(where, seed, Noise(spread=0.0), minutes=minutes))
        return {}
    if name in GUIDES:
        learned = Noise(spread=0.3, learn_spread=True, spread_floor=0.0)
        finish(config(where, seed, learned, Inference(guide=name, kl_annealing=20), minutes=minutes))
        return {}
    candidates = search(name, root, minutes, seed)
    valid = {gamma: result.valid.nats_per_step for gamma, result in candidates.items()}
    gamma = min(valid, key=valid.__getitem__)
    spent = sum(seconds(result.folder) for result in candidates.values())
    left = max(SEARCH_SHARE * minutes, minutes - spent / 60)
    finish(config(where, seed, Noise(NOISES[name], gamma), minutes=left))
    return {"search": {"valid_nats": valid, "seconds": spent}}


def seconds(where: Path) -> float:
    """Seconds that a run has spent on training and validation."""
    return sum(row["seconds"] for row in metrics_log.read(where / LOG))


def score(name: str, root: Path, seed: int, scale: float = 1.0) -> dict[str, nz.Evaluation]:
    """Evaluate the contestant's best model on the test set by every method that it supports.

    Args:
        name, root, seed: the contestant, the folder of all folders, and the random seed of each evaluation.
        scale: factor on the numbers of samples.
    """
    draws, runs, samples, particles = (4 * max(1, int(scale * number / 4)) for number in SAMPLES)
    with program_settings():
        model, guide, corpus = best(name, root)
        test = corpus.test
        assert isinstance(test, Sequences)
        methods: dict[str, Callable[[], nz.Evaluation]] = {
            "mean": lambda: nz.evaluate(model, test, method="mean"),
            "ensemble": lambda: nz.evaluate(model, test, method="ensemble", num_samples=runs),
            "elbo": lambda: elbo(model, guide, test, draws),
            "importance": lambda: nz.evaluate(
                model, test, method="importance", guide=guide, num_samples=samples, batch_size=BATCH
            ),
            "particle-filter": lambda: nz.evaluate(
                model, test, method="particle-filter", num_samples=particles, batch_size=BATCH
            ),
        }
        results = {}
        for method in methods if name != "dmm" else BOUNDS:
            pyro.set_rng_seed(seed)
            results[method] = methods[method]()
            print(f"{name:>13}, {method}: {results[method]}", file=sys.stderr)
    return results


def best(name: str, root: Path) -> tuple[Any, Any, Corpus]:
    """A contestant's best model, its guide, and the data."""
    if name == "dmm":
        trained = dmm.best(root / name)
        return trained.model, trained.guide, nz.data.load("jsb")
    run = load_run(root / name)
    return run.model, run.guide, run.corpus


def elbo(model: Any, guide: Any, data: Sequences, draws: int) -> nz.Evaluation:
    """The mean of ``draws`` ELBOs with one sample per sequence each."""
    evaluations = [
        nz.evaluate(model, data, method="importance", guide=guide, num_samples=1, batch_size=BATCH)
        for _ in range(draws)
    ]
    nats = torch.tensor([each.nats_per_step for each in evaluations]).double()
    error = float(nats.std()) / draws**0.5 if evaluations[0].num_samples else 0.0
    return dataclasses.replace(
        evaluations[0],
        nats_per_step=float(nats.mean()),
        monte_carlo_error=error,
        standard_error=sum(each.standard_error for each in evaluations) / draws,
        num_samples=draws if evaluations[0].num_samples else 0,
    )


def main(
    minutes: float = 60.0,
    only: str | None = None,
    table: bool = False,
    seed: int = 0,
    root: Path = ROOT / "results" / "chorales",
    scale: float = 1.0,
) -> None:
    """Train and test the contestants, or resume them.

    Args:
        minutes: Time limit of training and validation, for each contestant.
        only: Name of the one contestant to run.
        table: Write the table of the complete contestants, and run nothing.
        seed: Random seed of weights, noise and the order of batches.
        root: Folder of the contestants' folders.
        scale: Factor on the numbers of samples in the tests.
    """
    torch.set_num_threads(1)
    if only is not None and only not in NAMES:
        raise ValueError(f"only must be one of {', '.join(NAMES)}, got {only!r}")
    for name in [] if table else NAMES if only is None else [only]:
        path = root / name / RESULT
        if path.exists() and "evaluations" in json.loads(path.read_text()):
            print(f"{name:>13}, done", file=sys.stderr)
            continue
        extra = train(name, root, minutes, seed)
        evaluations = {method: evaluation_as_dict(result) for method, result in score(name, root, seed, scale).items()}
        spent = seconds(root / name) + extra.get("search", {}).get("seconds", 0.0)
        extra |= {"minutes": spent / 60, "seed": seed, "evaluations": evaluations}
        command = f"python benchmarks/chorales.py --only {name} --minutes {minutes:g} --seed {seed}"
        extra["command"] = command if scale == 1 else f"{command} --scale {scale:g}"
        write_json(path, json.loads(path.read_text()) | extra)
    if table:
        print("\n".join(write_table(root, NAMES)))


if __name__ == "__main__":
    tyro.cli(main)
