"""Text generation by ancestral sampling (paper, section 3, the generative process)."""

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

from noisin_pyro._lookup import integer
from noisin_pyro.inference.traces import latent_sites
from noisin_pyro.models import Mask, NoisyPath, NormalWeights
from noisin_pyro.models.sequence_model import require_output


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
    """Generate texts: sample z_t from the noise and x_t given z_t, and use x_t as the next input.

    The noise is on; pass ``noise_off(model)`` to generate without it. Weights with a normal prior are sampled once for
    all texts and steps, and dropout masks once for each text.

    Args:
        model: a :class:`LanguageModel`, or any program with its arguments and a categorical emission.
        num_steps: number of tokens to generate after the prompt.
        prompt: tokens at the beginning of every text, ``(P,)`` ``torch.long`` (default: none).
        temperature: 1 samples from the model; values below 1 sharpen the distribution; 0 is greedy.
        num_samples: number of texts S, each with its own noise.
        seed: seed of this call, which then leaves the state of torch's generators unchanged. By default torch's
            generators are used.
        start: the token that precedes the text; 0 is ``<eos>`` in every :class:`Vocabulary`, as for :class:`Stream`.

    Returns:
        Tokens ``(S, num_steps)``, without the prompt, on the model's device.

    Raises:
        ValueError: an argument out of range, an emission that is not categorical, or weights or γ with other priors,
            which every call of the model would sample again.
    """
    num_steps, num_samples = integer("num_steps", num_steps), integer("num_samples", num_samples)
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be a number >= 0 (1: the model's own; 0: greedy), got {temperature}")
    inputs = _first_inputs(model, prompt, start).repeat(num_samples, 1)
    with seeded(seed, inputs.device), poutine.block():
        # with targets the program does not sample x along the prompt; the emission does not depend on the targets
        trace = poutine.trace(model).get_trace(inputs, targets=inputs)
        model = poutine.condition(model, data=_weights(trace))
        nodes: dict[str, Any] = dict(trace.nodes)
        out = require_output(nodes["_RETURN"]["value"])
        sampled = [_sample(out.emission, temperature)]
        for _ in range(num_steps - 1):
            out = model(sampled[-1], targets=sampled[-1], state=out.state)
            sampled.append(_sample(out.emission, temperature))
    return torch.cat(sampled, dim=1)


def _first_inputs(model: Callable[..., Any], prompt: Tensor | None, start: int) -> Tensor:
    """The start token and the prompt, ``(1, 1 + P)``."""
    device = next((p.device for p in model.parameters()), None) if isinstance(model, torch.nn.Module) else None
    first = torch.tensor([start], device=device)
    if prompt is None:
        return first[None]
    if not isinstance(prompt, Tensor) or prompt.dim() != 1 or prompt.dtype != torch.long:
        got = f"{prompt.dtype} {tuple(prompt.shape)}" if isinstance(prompt, Tensor) else type(prompt).__name__
        raise ValueError(
            f"prompt must be a one-dimensional torch.long tensor of tokens, got {got}; use Vocabulary.encode"
        )
    return torch.cat([first, prompt.to(first.device)])[None]


def _sample(emission: Any, temperature: float) -> Tensor:
    """Sample x_t at the last step, ``(S, 1)``."""
    if not isinstance(emission, Categorical):
        kind = type(emission).__name__
        raise ValueError(
            f"generate needs a model with a categorical emission, such as LanguageModel, got an emission {kind}"
        )
    scores = emission.logits[:, -1].double()
    if temperature == 0:
        return scores.argmax(-1, keepdim=True)
    scores = scores - scores.amax(-1, keepdim=True)  # so that a small temperature overflows to -inf only, never to inf
    return torch.multinomial((scores / temperature).softmax(-1), 1)


def _weights(trace: poutine.Trace) -> dict[str, Tensor]:
    """The sampled weights and dropout masks of a run, which are the same at all steps of a text."""
    sampled = {}
    for site in latent_sites(prune_subsample_sites(trace)):
        if isinstance(site["fn"], (NormalWeights, Mask)):
            sampled[site["name"]] = site["value"]
        # a latent outside the plate of sequences is shared by all sequences and steps
        elif not (site["cond_indep_stack"] or isinstance(site["fn"], NoisyPath)):
            raise ValueError(
                f"generate needs fixed weights and γ, but {site['name']!r} is sampled; condition on it first"
            )
    return sampled


@contextlib.contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed torch's generators and restore their state afterwards; do nothing if ``seed`` is None."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
