"""Small models that the tests of the bound share."""

import torch
from pyro import poutine
from torch import nn

from noisin_pyro import LanguageModel, Spread

WORDS = torch.randint(7, (2, 3, 6), generator=torch.Generator().manual_seed(1))


def language_model(noise="gaussian", cell="tanh", learn=True, spread=0.5) -> LanguageModel:
    gamma = Spread(spread, learn=True) if learn else spread
    return LanguageModel(7, 4, cell=cell, noise=noise, spread=gamma).double()


def repeat_prior(model):
    """The guide that a Pyro user would write: the model's own latents."""
    return poutine.block(model, hide=["x"])


def value_and_gradients(loss, model: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
