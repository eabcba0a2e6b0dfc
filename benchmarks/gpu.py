"""Everything that still has to be seen on a GPU, in one call: ``python benchmarks/gpu.py`` writes ``results/gpu.json``.

- the reduction of additive noise to the fused kernels agrees with the loop, for every cell that has one (float64);
- the bound and its gradient never wait for the device (``torch.cuda.set_sync_debug_mode``);
- what noise costs: a training step of the noisy RNN over one of ``nn.RNN``, as a careful PyTorch user writes it,
  alternating in one process, at table 2's shape (1 layer, tanh, 256 units, batch 20, window 35, 10,000 words).
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from noisin_pyro import LanguageModel, NoisyRNN, PriorAsGuide_ELBO, Spread
from noisin_pyro.models.cells import CELLS
from noisin_pyro.models.kernels import Weights
from noisin_pyro.models.scan import Recurrence
from noisin_pyro.noise import get
from noisin_pyro.training.run import program_settings

VOCABULARY, UNITS, BATCH, WINDOW = 10_000, 256, 20, 35
REPEATS = 200


class PlainRNN(nn.Module):
    """The deterministic contestant: torch's own layers and loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, UNITS)
        self.rnn = nn.RNN(UNITS, UNITS, batch_first=True)
        self.linear = nn.Linear(UNITS, VOCABULARY)

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        z, _ = self.rnn(self.embedding(inputs))
        return F.cross_entropy(self.linear(z).flatten(0, 1), targets.flatten(), reduction="sum")


def largest_difference(device: str) -> dict[str, float]:
    """Between the reduction and the loop, over all states, of every cell that has a reduction."""
    found = {}
    for name, cell in CELLS.items():
        if not cell.reducible:
            continue
        rnn = NoisyRNN(3, 5, cell=name).double().to(device)
        weights = Weights(*rnn._weights(0))
        like = rnn.weight_hh_l0.detach()
        x, noise, z = (torch.randn(*shape, dtype=like.dtype, device=device) for shape in ((4, 7, 3), (4, 7, 5), (4, 5)))
        recurrence = Recurrence(rnn.cell, weights, x, z, z if rnn.cell.has_memory else None)
        fused, _ = recurrence.transport(get("gaussian"), like.new_full((1, 1), 0.5), noise)
        steps = noise.unbind(-2)
        looped, _ = recurrence.loop(lambda t, mean, steps=steps: mean + 0.5 * steps[t])
        found[name] = float((fused - looped).detach().abs().max())
    return found


def step(loss: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    """One training step: loss, gradient, clipping, update."""
    optimizer.zero_grad()
    (loss(*batch) / batch[1].numel()).backward()
    nn.utils.clip_grad_norm_(loss.parameters(), 5.0)
    optimizer.step()


def milliseconds(device: str, contestants: dict[str, nn.Module]) -> dict[str, list[float]]:
    """The time of each contestant's step, alternating."""
    words = torch.randint(VOCABULARY, (2, BATCH, WINDOW), device=device)
    batch = (words[0], words[1])
    optimizers = {name: torch.optim.Adam(module.parameters(), lr=1e-3) for name, module in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(REPEATS + 10):
        for name, module in contestants.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            step(module, optimizers[name], batch)
            end.record()
            end.synchronize()
            if repeat >= 10:
                times[name].append(start.elapsed_time(end))
    return times


def main() -> int:
    if not torch.cuda.is_available():
        print("gpu.py: no CUDA device here; run it where there is one", file=sys.stderr)
        return 2
    device = "cuda"
    torch.manual_seed(0)
    with program_settings():
        result: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "seed": 0}
        result["reduction_against_loop"] = largest_difference(device)
        contestants: dict[str, nn.Module] = {"nn.RNN": PlainRNN().to(device)}
        for name, spread in {"fixed": 0.3, "learned": Spread(0.3, learn=True), "deterministic": 0.0}.items():
            contestants[name] = PriorAsGuide_ELBO()(LanguageModel(VOCABULARY, UNITS, spread=spread).to(device))
        times = milliseconds(device, contestants)
        torch.cuda.set_sync_debug_mode("error")
        words = torch.randint(VOCABULARY, (2, BATCH, WINDOW), device=device)
        for name in ("fixed", "learned"):
            contestants[name](words[0], words[1]).backward()
        torch.cuda.set_sync_debug_mode("default")
    result["shape"] = {"vocabulary": VOCABULARY, "units": UNITS, "batch": BATCH, "window": WINDOW}
    result["repeats"] = REPEATS
    result["milliseconds"] = {name: statistics.median(values) for name, values in times.items()}
    result["ratio_to_nn.RNN"] = {
        name: statistics.median(a / b for a, b in zip(values, times["nn.RNN"], strict=True))
        for name, values in times.items()
    }
    path = Path(__file__).parents[1] / "results" / "gpu.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
