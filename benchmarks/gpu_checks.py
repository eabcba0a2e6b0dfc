"""Checks that need a GPU: ``checks(device)`` returns their results, their limits and what failed."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor

from noisin_pyro import LanguageModel, NoisyRNN, PriorAsGuide_ELBO, Spread
from noisin_pyro.data import Stream
from noisin_pyro.recurrence.cells import CELLS
from noisin_pyro.recurrence.dispatch import BACKENDS
from noisin_pyro.training.loop import train_epoch
from noisin_pyro.training.optim import build_optimizer
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.train_step import CUDAGraphTrainStep, TrainStep

MAX_DIFFERENCE = 1e-9  # of float64 results that differ only in the order of operations


def backend_differences(device: str) -> dict[str, float]:
    """Largest absolute difference of states and gradients from the loop's, by cell and noise, over all backends."""
    differences = {}
    for cell in CELLS:
        for noise in ("gaussian", "gaussian:multiplicative"):
            results = {}
            for backend in BACKENDS:
                torch.manual_seed(0)
                rnn = NoisyRNN(3, 5, 2, cell=cell, noise=noise, backend=backend).double().to(device)
                x = torch.randn(4, 7, 3, device=device, dtype=torch.float64)
                torch.manual_seed(1)
                try:
                    with pyro.plate("sequences", 4, dim=-1):
                        z, _ = rnn(x)
                except ValueError:
                    continue  # this backend does not support the cell with this noise
                results[backend] = [z, *torch.autograd.grad(z.sin().sum(), list(rnn.parameters()))]
            loop = results["loop"]
            differences[f"{cell}, {noise}"] = max(_max_difference(each, loop) for each in results.values())
    return differences


def captured_differences(device: str) -> dict[str, float]:
    """Largest absolute difference of parameters after two epochs of captured steps from those of single steps, by cell.

    Without noise, since a replayed graph draws other random numbers. On a CPU the captured function is simply called.
    """
    differences = {}
    captured = CUDAGraphTrainStep if device == "cuda" else partial(CUDAGraphTrainStep, record=lambda step: step)
    for cell in ("tanh", "lstm", "gru"):
        torch.manual_seed(0)
        stream = Stream(torch.randint(50, (4 * 10 * 60 + 7,)), 4, 10).to(device)
        model = LanguageModel(50, 16, 2, cell=cell, spread=0.0).double().to(device)
        parameters = []
        for kind in (TrainStep, captured):
            bound = PriorAsGuide_ELBO(max_plate_nesting=1)(copy.deepcopy(model))
            steps = kind(bound, build_optimizer("adam", bound.parameters(), 0.01), 0.1)
            for _ in range(2):
                train_epoch(steps, stream.batches())
            parameters.append(list(bound.parameters()))
        differences[cell] = _max_difference(*parameters)
    return differences


def _max_difference(one: Iterable[Tensor], other: Iterable[Tensor]) -> float:
    """The largest absolute difference; NaN if there is one, which exceeds every limit."""
    differences = [(a - b).detach().abs().max() for a, b in zip(one, other, strict=True)]
    return float(torch.stack(differences).max())  # unlike Python's max, torch's keeps a NaN


def synchronizing_steps(device: str) -> dict[str, str]:
    """Errors of captured steps that wait for the GPU, by cell and noise; empty strings for those that do not."""
    errors = {}
    for cell in ("tanh", "lstm", "gru"):
        for noise in ("gaussian", "gaussian:multiplicative", "gamma", "bernoulli:multiplicative"):
            spread = Spread(0.3, learn=noise.startswith("gaussian"))
            model = LanguageModel(50, 16, 2, cell=cell, noise=noise, spread=spread).to(device)
            bound = PriorAsGuide_ELBO(max_plate_nesting=1)(model)
            steps = CUDAGraphTrainStep(bound, build_optimizer("adam", bound.parameters(), 0.01), 5.0)
            for number, batch in enumerate(Stream(torch.randint(50, (200,)), 4, 10).to(device).batches(), start=1):
                if batch.lengths is None:
                    steps.take(batch, number)
            torch.cuda.set_sync_debug_mode("error")
            try:
                steps._step()
                errors[f"{cell}, {noise}"] = ""
            except RuntimeError as error:
                errors[f"{cell}, {noise}"] = str(error)
            finally:
                torch.cuda.set_sync_debug_mode("default")
    return errors


def checks(device: str) -> dict[str, Any]:
    """All checks with their limits, and the names of those that failed."""
    with program_settings():
        differences = {"backends": backend_differences(device), "captured steps": captured_differences(device)}
        errors = synchronizing_steps(device) if device == "cuda" else {}
    failed = [
        f"{check}: {name} differs by {value:.2g}, more than {MAX_DIFFERENCE:g}"
        for check, values in differences.items()
        for name, value in values.items()
        if not value <= MAX_DIFFERENCE  # also true of a NaN
    ]
    failed += [f"captured step: {name} waits for the GPU: {error}" for name, error in errors.items() if error]
    return {
        "max_difference_allowed": MAX_DIFFERENCE,
        "differences": differences,
        "synchronizing_steps": errors,
        "failed": failed,
    }
