"""Exact expectations of a stochastic loss and its gradient, over every draw of a few sites."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

X = torch.tensor([0.4, -1.0, 2.0], dtype=torch.float64)
# Gauss-Hermite nodes and weights of a standard normal: exact for polynomials of degree 5
NODES = {-math.sqrt(3.0): 1 / 6, 0.0: 2 / 3, math.sqrt(3.0): 1 / 6}

Program = Callable[..., Any]


def parameters() -> dict[str, Tensor]:
    values = {"m": 0.3, "l": 0.2}
    return {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in values.items()}


class Drawn(Messenger):
    """Gives latent sites their values instead of sampling: bits, or noise that the site's normal law transforms."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values and not msg["is_observed"] and not msg["done"]:
            value, law = self.values[msg["name"]], msg["fn"]
            if law.support.is_discrete:
                value = (
                    value + 0 * law.probs.detach()
                )  # as a draw, it depends on upstream sites: TraceGraph_ELBO's edges
            else:
                value = law.loc + law.scale * value
                value = value if law.has_rsample else value.detach()
            msg["value"], msg["done"] = value, True


def draws(
    sampler: Program, bits: dict[str, tuple[int, ...]], normals: tuple[str, ...] = ()
) -> Iterator[tuple[Messenger, Tensor]]:
    """All draws of a program's sites, each with its probability.

    Args:
        sampler: the program whose laws the sites are drawn from.
        bits: shapes of the Bernoulli sites.
        normals: names of the normal sites, scalars.
    """
    sizes = [math.prod(shape) for shape in bits.values()]
    for flat in itertools.product([0.0, 1.0], repeat=sum(sizes)):
        pieces = torch.tensor(flat, dtype=torch.float64).split(sizes)
        for nodes in itertools.product(NODES, repeat=len(normals)):
            values = {name: piece.reshape(bits[name]) for name, piece in zip(bits, pieces, strict=True)}
            values |= {name: torch.tensor(node, dtype=torch.float64) for name, node in zip(normals, nodes, strict=True)}
            draw = Drawn(values)
            with torch.no_grad():
                trace: Any = poutine.trace(draw(sampler)).get_trace()
                log_p = sum(trace.nodes[name]["fn"].log_prob(trace.nodes[name]["value"]).sum() for name in bits)
            yield draw, torch.as_tensor(log_p).exp() * math.prod(NODES[node] for node in nodes)


def expectation(loss: Callable[[Messenger], Tensor], *sampler: Any) -> Tensor:
    """E[loss(draw)], whose gradient is the expectation of the gradients.

    Args:
        loss: computes a loss, with ``draw`` around the programs that sample.
        sampler: the arguments of :func:`draws`.
    """
    total = torch.zeros((), dtype=torch.float64)
    for draw, probability in draws(*sampler):
        total = total + probability * loss(draw)
    return total


def value_and_gradients(loss: Tensor, *groups: dict[str, Tensor]) -> Tensor:
    """A loss and its gradients with respect to groups of parameters, as one vector."""
    leaves = [leaf for group in groups for leaf in group.values()]
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    parts = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(gradients, leaves, strict=True)]
    return torch.stack([loss.detach(), *parts])
