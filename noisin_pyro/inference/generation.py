"""Text from a language model by ancestral sampling (paper, section 3, the generative process)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import Categorical

from noisin_pyro.inference.traces import latent_sites
from noisin_pyro.models import Mask, NoisyPath, NormalWeights


@torch.no_grad()
def generate(
    model: Callable[..., Any],
    num_steps: int,
    prompt: Tensor | None = None,
    temperature: float = 1.0,
    num_samples: int = 1,
    seed: int | None = None,
    start: int = 0,
) -> Tensor:
    """Draw texts from the model: z_t from its noise, then x_t given z_t, which is the next input.

    The noise is on; use ``noise_off(model)`` to generate without it. Weights with a normal prior are drawn once for all
    texts and steps, dropout masks once for each text.

    Args:
        model: a :class:`LanguageModel`, or any program with its arguments and a categorical emission.
        num_steps: number of tokens to draw after the prompt.
        prompt: tokens that every text starts with, ``(P,)`` ``torch.long`` (default: none).
        temperature: 1 samples from the model; values below 1 sharpen the distribution; 0 is greedy.
        num_samples: number of texts S, each with its own noise.
        seed: seed of this call; torch's generators keep their state. By default torch's generators are used.
        start: the token that precedes the text; 0 is ``<eos>`` in every :class:`Vocabulary`, as for :class:`Stream`.

    Returns:
        Tokens ``(S, num_steps)``, without the prompt, on the model's device.

    Raises:
        ValueError: an argument out of range, an emission that is not categorical, or other priors on weights or γ,
            which every call of the model would draw anew.
    """
    for name, value in (("num_steps", num_steps), ("num_samples", num_samples)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be a number >= 0 (1: the model's own; 0: greedy), got {temperature}")
    inputs = _first_inputs(model, prompt, start).repeat(num_samples, 1)
    with seeded(seed, inputs.device), poutine.block():
        # given targets, the program does not draw x at each step of the prompt; its emission does not depend on them
        trace = poutine.trace(model).get_trace(inputs, targets=inputs)
        model = poutine.condition(model, data=_weights(trace))
        nodes: dict[str, Any] = dict(trace.nodes)
        out = nodes["_RETURN"]["value"]
        drawn = [_draw(out.emission, temperature)]
        for _ in range(num_steps - 1):
            out = model(drawn[-1], targets=drawn[-1], state=out.state)
            drawn.append(_draw(out.emission, temperature))
    return torch.cat(drawn, dim=1)


def _first_inputs(model: Callable[..., Any], prompt: Tensor | None, start: int) -> Tensor:
    """The inputs before the first draw, ``(1, 1 + P)``."""
    device = next((p.device for p in model.parameters()), None) if isinstance(model, torch.nn.Module) else None
    first = torch.tensor([start], device=device)
    if prompt is None:
        return first[None]
    if not isinstance(prompt, Tensor) or prompt.dim() != 1 or prompt.dtype != torch.long:
        got = f"{prompt.dtype} {tuple(prompt.shape)}" if isinstance(prompt, Tensor) else type(prompt).__name__
        raise ValueError(f"prompt must be a one-dimensional torch.long tensor of tokens, got {got}; encode the words")
    return torch.cat([first, prompt.to(first.device)])[None]


def _draw(emission: Any, temperature: float) -> Tensor:
    """x_t of the last step, ``(S, 1)``."""
    if not isinstance(emission, Categorical):
        kind = type(emission).__name__
        raise ValueError(
            f"generate draws words, but this model's emission is {kind}; give a model with a categorical emission"
        )
    scores = emission.logits[:, -1].double()
    if temperature == 0:
        return scores.argmax(-1, keepdim=True)
    scores = scores - scores.amax(-1, keepdim=True)  # a small temperature then overflows to -inf only, never to inf
    return torch.multinomial((scores / temperature).softmax(-1), 1)


def _weights(trace: poutine.Trace) -> dict[str, Tensor]:
    """The weights that this run drew from normal priors, and its dropout masks, which stay the same along a text."""
    drawn = {}
    for site in latent_sites(prune_subsample_sites(trace)):
        if isinstance(site["fn"], (NormalWeights, Mask)):
            drawn[site["name"]] = site["value"]
        # a latent outside the plate of sequences is shared by all sequences and steps
        elif not (site["cond_indep_stack"] or isinstance(site["fn"], NoisyPath)):
            raise ValueError(f"generate needs one network, but {site['name']!r} is sampled; condition on it first")
    return drawn


@contextlib.contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed torch's generators and restore their state afterwards; do nothing if ``seed`` is None."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
