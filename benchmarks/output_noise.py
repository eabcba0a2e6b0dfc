"""The second-order penalty of output noise beside the loss that the noise adds, on a trained network.

``python benchmarks/output_noise.py`` trains the network of ``noisin train`` with multiplicative Gaussian noise on its
output only, on the built-in text, and writes ``results/output_noise.json``. For each γ it compares the penalty of the
published paper, ½ Σ_t tr E[Cov(Bᵀ z_t)], with the Monte Carlo mean of the test loss with noise minus the loss without.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyro
import torch
import tyro
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro._files import write_json
from noisin_pyro.inference import noise_penalty
from noisin_pyro.training import Config, Noise, Run
from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.rundir.load import load_run

ROOT = Path(__file__).parents[1]
RESULT, FOLDER = ROOT / "results" / "output_noise.json", ROOT / "runs" / "output-noise"
NOISE, SPREAD, SPREADS, SEED = "gaussian:multiplicative", 0.5, (0.05, 0.1, 0.2, 0.4, 0.8), 0


@torch.no_grad()
def mean_loss(model: nz.SequenceModel, data: nz.data.Stream, samples: int) -> Tensor:
    """-log p(x | z) of a text, in nats per step, for each of S independent noisy runs of the network, ``(S,)``."""
    bound, totals = nz.PriorAsGuide_ELBO(max_plate_nesting=1)(model), []
    for _ in range(samples):
        total, steps, state = 0.0, 0, None
        for batch in data.batches():
            total += float(bound(batch.inputs, batch.targets, state=state if batch.carried else None))
            steps, state = steps + batch.num_steps, bound.returned.state
        totals.append(total / steps)
    return torch.tensor(totals, dtype=torch.float64)


def with_spread(model: nz.LanguageModel, spread: float) -> nz.LanguageModel:
    """The same network with another γ on its output; 0 is without noise."""
    rnn = model.rnn
    noise: dict[str, Any] = {"noise": NOISE, "feedback": False} if spread > 0 else {}
    other = nz.LanguageModel(model.embedding.num_embeddings, rnn.hidden_size, cell=rnn.cell, spread=spread, **noise)
    other.load_state_dict(model.state_dict())
    return other


def measure(model: nz.LanguageModel, data: nz.data.Stream, samples: int) -> list[dict[str, float]]:
    """For each γ: the penalty, the added loss and its standard error, in nats per step."""
    noise_free = float(mean_loss(with_spread(model, 0.0), data, 1))
    rows = []
    for spread in SPREADS:
        noisy = with_spread(model, spread)
        added = mean_loss(noisy, data, samples) - noise_free
        rows.append(
            {
                "spread": spread,
                "penalty": noise_penalty(noisy, data),
                "added_loss": float(added.mean()),
                "standard_error": float(added.std()) / math.sqrt(samples),
            }
        )
    return rows


def main(samples: int = 30, result: Path = RESULT, folder: Path = FOLDER) -> None:
    """Compare the penalty with the loss that output noise adds.

    Args:
        samples: Number of noisy runs per γ.
        result: File to write.
        folder: Folder of the trained network; trained first if it is missing.
    """
    noise = Noise(noise=NOISE, spread=SPREAD, feedback=False)
    if not (folder / "result.json").exists():
        nz.train(Config(noise=noise, run=Run(folder=folder, seed=SEED, twin=False, ensemble_samples=0)))
    with program_settings():
        pyro.set_rng_seed(SEED)
        run = load_run(folder)
        assert isinstance(run.model, nz.LanguageModel) and isinstance(run.corpus.test, Tensor)
        rows = measure(run.model, nz.data.Stream(run.corpus.test, 10, 35), samples)
    settings = {"data": "pydocs", "noise": NOISE, "trained_with": SPREAD, "samples": samples}
    write_json(result, {"seed": SEED, **provenance(torch.device("cpu")), "settings": settings, "rows": rows})
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    tyro.cli(main)
