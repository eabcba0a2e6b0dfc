"""Every contestant on the chorales, at equal wall time, on one split, by the same numbers.

``python benchmarks/chorales.py --minutes 60`` runs them all, one after the other, and goes on where it was broken off;
``--only NAME`` runs one of them, and ``--table`` draws the table of those that are done. ``taskset -c N`` keeps each on
a core of its own. The rules, the same for all but the Deep Markov Model, which has those of its authors:

- one tanh layer of 100 units, Bernoulli emissions, batches of 20 whole chorales, Adam at 0.003, gradient clipped at 5;
- the best model in validation is tested (noise off; with a guide, by its bound), and it is validated after each epoch;
- training and validation take at most ``--minutes`` in all, on one thread; who has not been better in validation for
  1000 epochs stops before. Without a guide, γ is one of three, whichever is best in validation after a tenth of that
  time; the contestant itself has the seven tenths that are left. With a guide, noise is Gaussian and γ is learned; the
  KL term comes in over the first 20 epochs.
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
from table import write_table

import noisin_pyro as nz
from noisin_pyro.data import Corpus, Sequences
from noisin_pyro.training import Data, Inference, Model, Noise, Optimisation, Result, Run, log
from noisin_pyro.training.folder import CONFIG, LOG, RESULT, write_json
from noisin_pyro.training.reading import read_run
from noisin_pyro.training.result import numbers
from noisin_pyro.training.run import program_settings

ROOT = Path(__file__).parents[1]
NOISES = {
    "gaussian": "gaussian",
    "laplace": "laplace",
    "gamma": "gamma:multiplicative",
    "bernoulli": "bernoulli:multiplicative",  # dropout on the state
}
GUIDES = ("mean-field", "filtering", "smoothing")
NAMES = ("deterministic", *NOISES, *GUIDES, "dmm")
GAMMAS, SEARCH = (0.25, 0.5, 1.0), 0.1
"""What γ can be without a guide, and the part of the time that trying each takes."""
SAMPLES = (20, 100, 1000, 2000)
"""Of the tests: draws of the ELBO, noisy runs of the ensemble, samples of each sequence, and its particles."""
BATCH = 20  # chorales scored at once: the shorter ones of a batch are padded
BOUNDS = ("elbo", "importance")  # all that is defined for the Deep Markov Model


def config(where: Path, seed: int, noise: Noise, guide: Inference | None = None, **how: Any) -> nz.Config:
    """A run on the chorales: what all contestants have in common."""
    return nz.Config(
        data=Data(name="jsb"),
        model=Model(hidden_size=100),
        noise=noise,
        inference=Inference() if guide is None else guide,
        optimisation=Optimisation(**{"learning_rate": 0.003, "epochs": 10**6, "patience": 1000, **how}),
        run=Run(folder=where, seed=seed, twin=False, ensemble_samples=0),
    )


def finish(config: nz.Config) -> Result:
    """Run it, go on with it, or read what it found."""
    where = config.run.folder
    assert where is not None
    resume = where if (where / CONFIG).exists() else None
    return nz.train(dataclasses.replace(config, run=dataclasses.replace(config.run, resume=resume)))


def search(name: str, root: Path, minutes: float, seed: int) -> dict[float, Result]:
    """A short run for each γ."""
    found = {}
    for gamma in GAMMAS:
        where = ROOT / "runs" / root.name / f"{name}-{gamma}"
        found[gamma] = finish(config(where, seed, Noise(NOISES[name], gamma), minutes=SEARCH * minutes))
    return found


def train(name: str, root: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Train a contestant, or go on with it; what to tell of that beside what its run tells itself."""
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
    tried = search(name, root, minutes, seed)
    valid = {gamma: result.valid.nats_per_step for gamma, result in tried.items()}
    gamma = min(valid, key=valid.__getitem__)
    spent = sum(seconds(result.folder) for result in tried.values())
    left = max(SEARCH * minutes, minutes - spent / 60)
    finish(config(where, seed, Noise(NOISES[name], gamma), minutes=left))
    return {"search": {"valid_nats": valid, "seconds": spent}}


def seconds(where: Path) -> float:
    """What a run spent on training and validation."""
    return sum(row["seconds"] for row in log.read(where / LOG))


def score(name: str, root: Path, seed: int, scale: float = 1.0) -> dict[str, nz.Evaluation]:
    """The contestant's best model on the test part, by every method that applies to it.

    Args:
        scale: of the numbers of samples.
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
        found = {}
        for method in methods if name != "dmm" else BOUNDS:
            pyro.set_rng_seed(seed)
            found[method] = methods[method]()
            print(f"{name:>13}, {method}: {found[method]}", file=sys.stderr)
    return found


def best(name: str, root: Path) -> tuple[Any, Any, Corpus]:
    """A contestant's best model, its guide, and the data."""
    if name == "dmm":
        trained = dmm.best(root / name)
        return trained.model, trained.guide, nz.data.load("jsb")
    run = read_run(root / name)
    return run.model, run.guide, run.corpus


def elbo(model: Any, guide: Any, data: Sequences, draws: int) -> nz.Evaluation:
    """The mean of ``draws`` ELBOs, one sample a sequence each."""
    found = [
        nz.evaluate(model, data, method="importance", guide=guide, num_samples=1, batch_size=BATCH)
        for _ in range(draws)
    ]
    nats = torch.tensor([each.nats_per_step for each in found]).double()
    error = float(nats.std()) / draws**0.5 if found[0].num_samples else 0.0
    return dataclasses.replace(
        found[0],
        nats_per_step=float(nats.mean()),
        monte_carlo_error=error,
        standard_error=sum(each.standard_error for each in found) / draws,
        num_samples=draws if found[0].num_samples else 0,
    )


def main(
    minutes: float = 60.0,
    only: str | None = None,
    table: bool = False,
    seed: int = 0,
    root: Path = ROOT / "results" / "chorales",
    scale: float = 1.0,
) -> None:
    """Train and test the contestants, or go on with them.

    Args:
        minutes: of training and validation, for each.
        only: one contestant, by its name.
        table: draw the table of those that are done, and run nothing.
        seed: of weights, noise and order.
        root: the folder of their folders.
        scale: of the numbers of samples in the tests.
    """
    torch.set_num_threads(1)
    if only is not None and only not in NAMES:
        raise SystemExit(f"only must be one of {', '.join(NAMES)}, got {only!r}")
    for name in [] if table else NAMES if only is None else [only]:
        path = root / name / RESULT
        if path.exists() and "evaluations" in json.loads(path.read_text()):
            print(f"{name:>13}, done", file=sys.stderr)
            continue
        told = train(name, root, minutes, seed)
        evaluations = {method: numbers(found) for method, found in score(name, root, seed, scale).items()}
        spent = seconds(root / name) + told.get("search", {}).get("seconds", 0.0)
        told |= {"minutes": spent / 60, "seed": seed, "evaluations": evaluations}
        command = f"python benchmarks/chorales.py --only {name} --minutes {minutes:g} --seed {seed}"
        told["command"] = command if scale == 1 else f"{command} --scale {scale:g}"
        write_json(path, json.loads(path.read_text()) | told)
    if table:
        print("\n".join(write_table(root, NAMES)))


if __name__ == "__main__":
    tyro.cli(main)
