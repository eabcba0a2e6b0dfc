"""Cost of the particle filter: ``python benchmarks/particle_filter.py`` writes ``results/particle_filter.json``.

A filter with 100 particles for each of 20 sequences at the chorales' shape (88 keys, 100 units, 60 steps) is timed
beside a noisy forward pass of the same 2,000 states with log p(x | z), evaluated for all steps at once, as a model
does, or step by step, as the filter does. The difference is the cost of weighting and resampling. The contestants take
turns in one process on one thread; a ratio is the median over rounds with a 95 % bootstrap interval.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from timing.interleaved import paired_ratio, quartiles, time_in_turns
from torch import Tensor

from noisin_pyro import NoisyRNN, SequenceModel
from noisin_pyro._files import write_json
from noisin_pyro.data import Batch
from noisin_pyro.inference.filtering.particle_filter import run
from noisin_pyro.models import States
from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.run import program_settings

RESULT = Path(__file__).parents[1] / "results" / "particle_filter.json"
KEYS, UNITS, STEPS, SEQUENCES, PARTICLES = 88, 100, 60, 20, 100
SPREAD, RESAMPLING_THRESHOLD, SEED = 0.3, 0.5, 0


def forward(model: SequenceModel, batch: Batch, at_once: bool) -> Tensor:
    """log p(x_t | z_t) of ``PARTICLES`` noisy runs of the sequences, ``(P, B, T)``."""
    walk = model.rnn.stepwise(model.embed(batch.inputs))
    size = (PARTICLES, SEQUENCES, UNITS)
    z, c = (tuple(s if s is None else s.expand(size) for s in each) for each in walk.start)
    states, outputs = States(z, c), []  # type: ignore[arg-type]
    for t in range(STEPS):
        out, states = walk.step(t, states, lambda layer, mean: walk.law(layer, mean)())
        out = out.unsqueeze(-2)
        outputs.append(out if at_once else model.emission(out).log_prob(batch.targets[:, t : t + 1]))
    if not at_once:
        return torch.cat(outputs, -1)
    return model.emission(torch.cat(outputs, -2)).log_prob(batch.targets)


def measure(cell: str, batch: Batch, rounds: int) -> dict[str, Any]:
    """Ratios of the filter's time to that of the forward passes, and the filter's diagnostics."""
    with program_settings(), torch.no_grad():
        model = SequenceModel(NoisyRNN(KEYS, UNITS, cell=cell, spread=SPREAD), "bernoulli", KEYS)
        model.emission.linear.weight.mul_(3)  # so that particles have different weights and are resampled
        run_filter = partial(run, model, [batch], 1, PARTICLES, RESAMPLING_THRESHOLD)
        filtered = run_filter()
        steps = {
            "filter": run_filter,
            "forward": partial(forward, model, batch, at_once=True),
            "forward, step by step": partial(forward, model, batch, at_once=False),
        }
        seconds = time_in_turns(steps, rounds, rounds, max_seconds=0.0).seconds
    return {
        "ratio to": {
            name: paired_ratio(seconds["filter"], seconds[name], SEED)._asdict() for name in seconds if name != "filter"
        },
        "milliseconds": {name: 1000 * quartiles(values).median for name, values in seconds.items()},
        "resamplings_per_sequence": float(filtered.resamplings.sum()) / SEQUENCES,
        "effective_samples": float(filtered.effective_samples.sum()) / (SEQUENCES * STEPS),
    }


def main(rounds: int = 40, result: Path = RESULT) -> None:
    """Time the particle filter beside noisy forward passes.

    Args:
        rounds: Number of rounds.
        result: File to write.
    """
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    chords = torch.bernoulli(torch.full((2, SEQUENCES, STEPS, KEYS), 0.05))
    batch = Batch(chords[0], chords[1], None, carried=False)
    settings = {
        "keys": KEYS, "units": UNITS, "steps": STEPS, "sequences": SEQUENCES, "particles": PARTICLES,
        "noise": "gaussian", "spread": SPREAD, "threshold": RESAMPLING_THRESHOLD, "repeats": rounds,
    }  # fmt: skip
    content = {"seed": SEED, **provenance(torch.device("cpu")), "settings": settings}
    content |= {cell: measure(cell, batch, rounds) for cell in ("tanh", "lstm")}
    write_json(result, content)
    print(json.dumps(content, indent=2))


if __name__ == "__main__":
    tyro.cli(main)
