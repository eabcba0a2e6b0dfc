"""γ during training when it is learned by equation (1), by the importance bound, and with a smoothing guide.

``python benchmarks/spreads.py linear-gaussian`` and ``python benchmarks/spreads.py chorales`` write
``results/spreads/*.json``, and ``python benchmarks/spreads.py figure`` plots both as ``results/spreads/spreads.png``.

In the linear-Gaussian model the maximum likelihood estimate of γ is known, and all other parameters are fixed at the
truth. On the chorales everything is learned, and the best γ is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pyro
import torch
import tyro
from linear_gaussian import STEPS, TRUTH, UNITS, linear_gaussian, max_likelihood_spread, sample_sequences
from matplotlib.figure import Figure
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro import plots
from noisin_pyro._files import write_json
from noisin_pyro.inference import Bound
from noisin_pyro.reproduction.rows import train_in
from noisin_pyro.training import Config, Data, Inference, Model, Noise, Optimization, Run
from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.rundir.metrics_log import Row

ROOT = Path(__file__).parents[1]
RESULTS, RUNS = ROOT / "results" / "spreads", ROOT / "runs" / "spreads"
START, FLOOR = 0.3, 0.1  # initial value and lower bound of γ; the bound is the paper's
SEQUENCES = 400
TITLES = {"linear-gaussian": "Linear-Gaussian model, γ alone learned", "chorales": "Chorales, everything learned"}
COLUMNS = ("epoch", "train_nats", "valid_nats", "gamma_1")
EPOCHS, RATE, LOG_EVERY = 1500, 0.02, 10  # for the linear-Gaussian model; an epoch is one full-batch gradient step


def equation_1(model: nz.SequenceModel) -> Bound:
    return nz.PriorAsGuide_ELBO(1)(model)


def importance(samples: int) -> Callable[[nz.SequenceModel], Bound]:
    return lambda model: nz.PriorAsGuide_ELBO(samples, bound="importance")(model)


def smoothing(model: nz.SequenceModel) -> Bound:
    guide = nz.guides.get("smoothing", model, covariance="full", hidden_size=32)
    return nz.PriorAsGuide_ELBO(1)(model, guide)


OBJECTIVES: dict[str, Callable[[nz.SequenceModel], Bound]] = {
    "equation (1)": equation_1,
    "importance, S = 5": importance(5),
    "importance, S = 50": importance(50),
    "smoothing guide": smoothing,
}


def learn(
    objective: Callable[[nz.SequenceModel], Bound],
    inputs: Tensor,
    x: Tensor,
    seed: int,
    epochs: int = EPOCHS,
    floor: float = FLOOR,
) -> list[Row]:
    """Learn γ and the parameters of the guide, if there is one, with Adam; returns γ at every tenth step."""
    pyro.set_rng_seed(seed)
    model = linear_gaussian(nz.Spread(START, floor=floor, learn=True))
    bound = objective(model)
    optimizer = torch.optim.Adam([p for p in bound.parameters() if p.requires_grad], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    rows: list[Row] = []
    for epoch in range(epochs):
        loss = bound(inputs, x) / x[..., 0].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (epoch + 1) % LOG_EVERY == 0:
            rows.append({"epoch": epoch + 1, "train_nats": loss.item()} | model.rnn.spreads())
    return rows


def run_linear_gaussian(only: str | None, seed: int) -> None:
    pyro.set_rng_seed(seed)
    inputs, x = sample_sequences(linear_gaussian(TRUTH), SEQUENCES)
    settings = {"sequences": SEQUENCES, "steps": STEPS, "units": UNITS, "truth": TRUTH, "seed": seed, "rate": RATE}
    settings |= {"likeliest": max_likelihood_spread(x), "floor": FLOOR}
    for name, objective in OBJECTIVES.items():
        if only in (None, name):
            save("linear-gaussian", settings, name, learn(objective, inputs, x, seed))


def run_chorales(only: str | None, epochs: int, seed: int) -> None:
    settings = {"epochs": epochs, "seed": seed, "floor": FLOOR}
    for name, run in chorales_configs(epochs, seed).items():
        if only in (None, name):
            save("chorales", settings, name, train_in(run, RUNS / f"{name}-{seed}", lambda rows: None).log)


def chorales_configs(epochs: int, seed: int) -> dict[str, Config]:
    """Configurations of the runs on the chorales: one tanh layer of 100 units, everything learned."""

    def run(inference: Inference | None = None, **options: Any) -> Config:
        return Config(
            data=Data(name="jsb"),
            model=Model(hidden_size=100),
            noise=Noise(spread=START, learn_spread=True, spread_floor=FLOOR),
            inference=inference or Inference(),
            optimization=Optimization(learning_rate=0.003, epochs=epochs, patience=None, **options),
            run=Run(seed=seed, twin=False, ensemble_samples=0),
        )

    return {
        "equation (1)": run(),
        "importance, S = 5": run(num_particles=5, bound="importance"),
        "importance, S = 50": run(num_particles=50, bound="importance"),
        "smoothing guide": run(Inference(guide="smoothing", kl_annealing=20)),
    }


def save(part: str, settings: dict[str, Any], name: str, rows: list[Row]) -> None:
    """Add a run's columns, rounded to six digits, to the part's file, which has the figure's order."""
    path = RESULTS / f"{part}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    runs[name] = {column: [float(f"{row[column]:.6g}") for row in rows] for column in COLUMNS if column in rows[0]}
    ordered = {name: runs[name] for name in OBJECTIVES if name in runs}
    write_json(path, settings | provenance(torch.device("cpu")) | {"runs": ordered})


def draw() -> None:
    """Plot the parts that have been run, side by side."""
    figure = Figure(figsize=(11, 4), dpi=150, layout="constrained")
    for axis, (part, title) in zip(figure.subplots(1, 2), TITLES.items(), strict=True):
        path = RESULTS / f"{part}.json"
        if not path.exists():
            axis.set_axis_off()
            continue
        result = json.loads(path.read_text())
        runs = {
            name: [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
            for name, columns in result["runs"].items()
        }
        plots.learned_spreads(runs, axis, title, result.get("likeliest"), result["floor"])
    figure.savefig(RESULTS / "spreads.png")


def main(
    part: tyro.conf.Positional[Literal["linear-gaussian", "chorales", "figure"]],
    only: str | None = None,
    epochs: int = 200,
    seed: int = 0,
) -> None:
    """Learn γ by each objective, and plot it during training.

    Args:
        part: What to run; "figure" plots existing results.
        only: Name of the one objective to run, as in the figure; other results are kept.
        epochs: Number of epochs on the chorales.
        seed: Random seed of data, weights and noise.
    """
    torch.set_num_threads(1)
    if part == "linear-gaussian":
        with program_settings():
            run_linear_gaussian(only, seed)
    elif part == "chorales":
        run_chorales(only, epochs, seed)
    draw()


if __name__ == "__main__":
    tyro.cli(main)
