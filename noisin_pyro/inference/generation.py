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
from torch.utils._pytree import tree_map_only

from noisin_pyro._lookup import as_number, integer
from noisin_pyro.data.sequences import is_integer_tensor
from noisin_pyro.inference.filtering.resampling import resample
from noisin_pyro.inference.importance_weights import effective_sample_size
from noisin_pyro.inference.traces import latent_sites
from noisin_pyro.models import LanguageModel, Mask, NoisyPath, NormalWeights, SequenceModel, underlying
from noisin_pyro.models.output import require_output

MIN_PARTICLES, THRESHOLD = 400, 0.5


@torch.no_grad()
def generate(
    model: Callable[..., Any],
    num_steps: int,
    prompt: Tensor | None = None,
    temperature: float = 1.0,
    num_samples: int = 1,
    seed: int | None = None,
    start: int = 0,
    num_particles: int | None = None,
) -> Tensor:
    """Generate texts: sample z_t from the noise and x_t given z_t, and use x_t as the next input.

    The noise is on; pass ``noise_off(model)`` to generate without it. Dropout masks are sampled once for each text.

    After a prompt, at temperature 1, texts are samples of p(text | prompt), up to an error that vanishes as
    ``num_particles`` grows: a particle filter weights the noise along the prompt, and dropout masks, by the prompt.
    Weights with a normal prior are sampled once for all texts and steps, whatever the prompt.

    Args:
        model: a :class:`LanguageModel`, or any program with its arguments and a categorical emission.
        num_steps: number of tokens to generate after the prompt.
        prompt: tokens at the beginning of every text, ``(P,)`` integers (default: none).
        temperature: 1 samples from the model; values below 1 sharpen the distribution; 0 is greedy.
        num_samples: number of texts S, each with its own noise.
        seed: seed of this call, which then leaves the state of torch's generators unchanged. By default torch's
            generators are used.
        start: the token that precedes the text; 0 is ``<eos>`` in every :class:`Vocabulary`, as for :class:`Stream`.
        num_particles: number of particles along the prompt (default: ``num_samples``, but at least 400).

    Returns:
        Tokens ``(S, num_steps)``, without the prompt, on the model's device.

    Raises:
        ValueError: an argument out of range, an emission that is not categorical, a prompt outside the vocabulary, or
            weights or γ with other priors, which every call of the model would sample again.
    """
    num_steps, num_samples = integer("num_steps", num_steps), integer("num_samples", num_samples)
    particles = max(num_samples, MIN_PARTICLES) if num_particles is None else integer("num_particles", num_particles)
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be a number >= 0 (1: the model's own; 0: greedy), got {temperature}")
    read = _first_inputs(model, prompt, integer("start", start, 0))
    program, _ = underlying(model)
    if isinstance(program, SequenceModel) and program.emission.event_dim > 0:
        kind = type(program.emission).__name__
        raise ValueError(f"generate is for a categorical emission, got {kind}; use forecast, which continues series")
    with seeded(seed, read.device), poutine.block():
        has_prompt = read.shape[1] > 1
        latents, out = _first_run(model, read[:, :1].expand(1 if has_prompt else num_samples, 1))
        _check_words(read, out.emission)
        model, masks = poutine.condition(model, data=_values(latents, NormalWeights)), _values(latents, Mask)
        if has_prompt and all(isinstance(site["fn"], NormalWeights) for site in latents):
            inputs = read.expand(num_samples, -1)
            out = model(inputs, targets=inputs)
        elif has_prompt:
            masks, out = _after_prompt(model, read[0], num_samples, particles)
        model = poutine.condition(model, data=masks)
        sampled = [_sample(out.emission, temperature)]
        for _ in range(num_steps - 1):
            out = model(sampled[-1], targets=sampled[-1], state=out.state)
            sampled.append(_sample(out.emission, temperature))
    return torch.cat(sampled, dim=1)


def _after_prompt(
    model: Callable[..., Any], read: Tensor, num_samples: int, num_particles: int
) -> tuple[dict[str, Tensor], Any]:
    """Dropout masks and the output of S samples after the prompt, drawn from a particle filter along it.

    It calls the program for each token, since dropout masks are part of a particle, and since any program that returns
    its state may generate. ``filter_window`` steps the layers of a :class:`SequenceModel` without dropout.

    Args:
        read: the start token and the prompt, ``(1 + P,)``.
    """
    latents, out = _first_run(model, read[:1].expand(num_particles, 1))
    masks = _values(latents, Mask)
    log_w = torch.zeros(1, num_particles, 1, dtype=torch.float64, device=read.device)
    for number, word in enumerate(read[1:], start=1):
        log_p = out.emission.log_prob(word.expand(num_particles, 1)).double()
        log_w = log_w + log_p.reshape(log_w.shape)
        if not bool((log_w > -math.inf).any()):
            raise ValueError(f"prompt: the model cannot produce token {number}, {int(word)}, after those before it")
        log_w = log_w.log_softmax(1)
        if number == len(read) - 1:
            index = log_w.flatten().exp().multinomial(num_samples, replacement=True)
        else:
            ancestors, log_w = resample(log_w, effective_sample_size(log_w, 1) < THRESHOLD * num_particles)
            index = ancestors.flatten()
        masks = {name: mask.index_select(-2, index) for name, mask in masks.items()}
        state = tree_map_only(Tensor, lambda part, index=index: part.index_select(-2, index), out.state)
        inputs = word.expand(len(index), 1)
        out = poutine.condition(model, data=masks)(inputs, targets=inputs, state=state)
    return masks, out


def _first_run(model: Callable[..., Any], inputs: Tensor) -> tuple[list[Any], Any]:
    """The latent sites and the output of the model, from its first state."""
    # with targets the program does not sample x along the prompt; the emission does not depend on the targets
    trace = poutine.trace(model).get_trace(inputs, targets=inputs)
    nodes: dict[str, Any] = dict(trace.nodes)
    latents = latent_sites(prune_subsample_sites(trace))
    for site in latents:
        # a latent outside the plate of sequences is shared by all sequences and steps
        if not (site["cond_indep_stack"] or isinstance(site["fn"], (NormalWeights, Mask, NoisyPath))):
            raise ValueError(
                f"generate needs fixed weights and γ, but {site['name']!r} is sampled; condition on it first"
            )
    return latents, require_output(nodes["_RETURN"]["value"])


def _values(latents: list[Any], kind: type) -> dict[str, Tensor]:
    """Values of latent sites that are the same at all steps: weights, or dropout masks."""
    return {site["name"]: site["value"] for site in latents if isinstance(site["fn"], kind)}


def _first_inputs(model: Callable[..., Any], prompt: Tensor | None, start: int) -> Tensor:
    """The start token and the prompt, ``(1, 1 + P)``."""
    device = next((p.device for p in model.parameters()), None) if isinstance(model, torch.nn.Module) else None
    program, _ = underlying(model)
    words = program.emission.output_size if isinstance(program, LanguageModel) else math.inf
    if start >= words:
        raise ValueError(
            f"start must be a token from 0 to {words - 1}, got {start}; use the index of the token before the text"
        )
    first = torch.tensor([start], device=device)
    if prompt is None:
        return first[None]
    if not is_integer_tensor(prompt) or prompt.dim() != 1:
        got = f"{prompt.dtype} {tuple(prompt.shape)}" if isinstance(prompt, Tensor) else type(prompt).__name__
        raise ValueError(f"prompt must be a one-dimensional tensor of integer tokens, got {got}; use Vocabulary.encode")
    return torch.cat([first, prompt.to(first)])[None]


def _check_words(read: Tensor, emission: Any) -> None:
    if not isinstance(emission, Categorical):
        kind = type(emission).__name__
        raise ValueError(
            f"generate needs a model with a categorical emission, such as LanguageModel, got an emission {kind}"
        )
    words = emission.param_shape[-1]
    if not 0 <= int(read.min()) <= int(read.max()) < words:
        raise ValueError(
            f"prompt must contain tokens from 0 to {words - 1}, got {int(read.min())} to {int(read.max())}; encode it "
            "with the vocabulary of the model"
        )


def _sample(emission: Any, temperature: float) -> Tensor:
    """Sample x_t at the last step, ``(S, 1)``."""
    scores = emission.logits[:, -1].double()
    if temperature == 0:
        return scores.argmax(-1, keepdim=True)
    scores = scores - scores.amax(-1, keepdim=True)  # so that a small temperature overflows to -inf only, never to inf
    return torch.multinomial((scores / temperature).softmax(-1), 1)


@contextlib.contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed torch's generators and restore their state afterwards; do nothing if ``seed`` is None."""
    if seed is None:
        yield
        return
    if not isinstance(as_number(seed), int):
        raise ValueError(f"seed must be an integer, got {seed!r}")
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(seed))
        yield
