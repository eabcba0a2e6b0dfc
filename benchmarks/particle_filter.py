"""What a particle filter costs: ``python benchmarks/particle_filter.py`` writes ``results/particle_filter.json``.

One filter of 100 particles for each of 20 sequences, at the chorales' shape (88 keys, 100 units, 60 steps), over a
noisy forward pass of the same 2,000 states by the same steps, with log p(x | z): asked of all steps at once, as a
model does, or of each step alone, as the filter does. What the filter adds is weighing and resampling. Alternating in
one process, on one thread; a ratio's interval is that of its median (95 %, from order statistics).
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from noisin_pyro import NoisyRNN, SequenceModel
from noisin_pyro.data import Batch
from noisin_pyro.inference.filtering.particle_filter import run
from noisin_pyro.models import States
from noisin_pyro.training.folder import provenance
from noisin_pyro.training.run import program_settings

KEYS, UNITS, STEPS, ROWS, PARTICLES = 88, 100, 60, 20, 100
SPREAD, THRESHOLD, SEED, REPEATS, WARM_UP = 0.3, 0.5, 0, 40, 3
CELLS = ("tanh", "lstm")


def forward(model: SequenceModel, batch: Batch, at_once: bool) -> Tensor:
    """log p(x_t | z_t) of 100 noisy runs of the sequences, ``(P, B, T)``."""
    walk = model.rnn.steps(model.embed(batch.inputs))
    z, c = (tuple(s if s is None else s.expand(PARTICLES, ROWS, UNITS) for s in each) for each in walk.start)
    states, path = States(z, c), []  # type: ignore[arg-type]
    for t in range(STEPS):
        out, states = walk.step(t, states, lambda layer, mean: walk.law(layer, mean)())
        out = out.unsqueeze(-2)
        path.append(out if at_once else model.emission(out).log_prob(batch.targets[:, t : t + 1]))
    if not at_once:
        return torch.cat(path, -1)
    return model.emission(torch.cat(path, -2)).log_prob(batch.targets)


def seconds(contestants: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """The time of each contestant, alternating."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(REPEATS + WARM_UP):
        for name, contestant in contestants.items():
            start = time.perf_counter()
            contestant()
            if repeat >= WARM_UP:
                times[name].append(time.perf_counter() - start)
    return times


def median_and_interval(values: list[float]) -> dict[str, float]:
    """The median, and the order statistics that hold the true one with a chance of 95 %."""
    half = 1.96 * math.sqrt(len(values)) / 2
    low, high = math.floor(len(values) / 2 - half), math.ceil(len(values) / 2 + half) - 1
    ordered = sorted(values)
    return {"median": statistics.median(values), "low": ordered[low], "high": ordered[high]}


def main() -> int:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    result = {"seed": SEED, **provenance(torch.device("cpu"))}
    result["settings"] = {
        "keys": KEYS, "units": UNITS, "steps": STEPS, "sequences": ROWS, "particles": PARTICLES, "noise": "gaussian",
        "spread": SPREAD, "threshold": THRESHOLD, "repeats": REPEATS,
    }  # fmt: skip
    chords = torch.bernoulli(torch.full((2, ROWS, STEPS, KEYS), 0.05))
    batch = Batch(chords[0], chords[1], None, carried=False)
    for cell in CELLS:
        with program_settings(), torch.no_grad():
            model = SequenceModel(NoisyRNN(KEYS, UNITS, cell=cell, spread=SPREAD), "bernoulli", KEYS)
            model.emission.linear.weight.mul_(3)  # so that particles differ, and are resampled
            found = run(model, [batch], 1, PARTICLES, THRESHOLD)
            times = seconds(
                {
                    "filter": lambda model=model: run(model, [batch], 1, PARTICLES, THRESHOLD),
                    "forward": lambda model=model: forward(model, batch, at_once=True),
                    "forward, step by step": lambda model=model: forward(model, batch, at_once=False),
                }
            )
        result[cell] = {
            "ratio to": {
                name: median_and_interval([a / b for a, b in zip(times["filter"], times[name], strict=True)])
                for name in ("forward", "forward, step by step")
            },
            "milliseconds": {name: 1000 * statistics.median(values) for name, values in times.items()},
            "resamplings_per_sequence": float(found.resamplings.sum()) / ROWS,
            "effective_samples": float(found.effective_samples.sum()) / (ROWS * STEPS),
        }
    path = Path(__file__).parents[1] / "results" / "particle_filter.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
