"""Small models, arrays and masks of the tests in this folder."""

from typing import Any

import pyro
import torch
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro import NoisyRNN, SequenceModel, evaluate
from noisin_pyro.models import Output

SAMPLES = {"mean": None, "ensemble": 5, "importance": 5, "particle-filter": 8}
STEPS = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
LENGTHS = torch.tensor([4, 5, 3])
SCORED = STEPS & (torch.arange(5) < LENGTHS[:, None])
ROWS = torch.tensor([True, False, True])


def make(emission: str = "gaussian", noise: str = "gaussian", spread: float = 0.5, **options: Any) -> SequenceModel:
    return SequenceModel(NoisyRNN(2, 3, noise=noise, spread=spread, **options), emission, 2).double()


def arrays(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 5, 2, generator=generator).double(), torch.randn(3, 5, 2, generator=generator).double()


def score(model: Any, data: Any, method: str, **options: Any) -> nz.inference.Evaluation:
    pyro.set_rng_seed(0)
    return evaluate(model, data, method, num_samples=SAMPLES[method], **options)


def loss_and_gradient(model: SequenceModel, *args: Tensor, bound: str = "elbo", **options: Any) -> tuple[Tensor, ...]:
    """The loss at a fixed seed, and its gradient."""
    pyro.set_rng_seed(0)
    value = nz.PriorAsGuide_ELBO(4, bound=bound).differentiable_loss(model, None, *args, **options)
    return value.detach(), *torch.autograd.grad(value, list(model.parameters()))


def with_own_mask(model: SequenceModel, mask: Tensor, masked_output: bool = False, time_plate: bool = False) -> Any:
    """A program that masks the observed site by itself."""

    def program(inputs: Tensor, targets: Tensor, state: Any = None, lengths: Any = None) -> Output:
        time = inputs.shape[1]
        real = torch.ones(len(inputs), time).bool() if lengths is None else torch.arange(time) < lengths[:, None]
        with pyro.plate("sequences", len(inputs), dim=-1):
            z, end = model.rnn(inputs, state, lengths)
            emission = model.emission(z)
            masked = emission.mask(mask[:, :time] & real)
            if not time_plate:
                pyro.sample("obs", masked.to_event(1), obs=targets)
        if time_plate:
            with pyro.plate("rows", len(inputs), dim=-2), pyro.plate("time", time, dim=-1):
                pyro.sample("obs", masked, obs=targets)
        return Output(masked if masked_output else emission, end)

    return program
