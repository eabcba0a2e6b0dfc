"""Small models that the tests of the bound share."""

import itertools
import math

import pyro
import torch
from pyro import poutine
from torch import nn

from noisin_pyro import LanguageModel, SequenceModel, Spread, innovations

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


def likelihood_by_enumeration(
    model: SequenceModel, inputs: torch.Tensor, targets: torch.Tensor, **options: torch.Tensor
) -> torch.Tensor:
    """log p(x) of one sequence ``(T, ...)``, if noise is additive bernoulli: the sum over all its signs."""
    with pyro.poutine.block():
        trace = poutine.trace(innovations(model)).get_trace(inputs[None], targets[None])
    sizes = {name: site["value"].shape[1:] for name, site in trace.nodes.items() if name.endswith("_noise")}
    bits = sum(size.numel() for size in sizes.values())
    assert bits <= 12
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=bits)), dtype=torch.float64)
    pieces = signs.split([size.numel() for size in sizes.values()], 1)
    given = {name: piece.reshape(-1, 1, *sizes[name]) for (name, piece) in zip(sizes, pieces, strict=True)}
    with pyro.plate("paths", 2**bits, dim=-2), torch.no_grad():
        program = poutine.condition(innovations(model), given)
        trace = poutine.trace(program).get_trace(inputs[None], targets[None], **options)
    law, x = trace.nodes["x"]["fn"], trace.nodes["x"]["value"]
    return law.log_prob(x).squeeze(-1).logsumexp(0) - bits * math.log(2)
