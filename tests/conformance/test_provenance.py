"""Pyro's provenance passes through a layer on every backend, as it passes through nn.RNN."""

from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from pyro.infer.inspect import get_dependencies
from pyro.ops.provenance import ProvenanceTensor, get_provenance
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.models import CELLS, NoisyRNN, Spread
from noisin_pyro.recurrence.dispatch import BACKENDS
from noisin_pyro.recurrence.softmax import Softmax

BATCH, STEPS, FEATURES, UNITS = 6, 3, 2, 3


@pytest.fixture(autouse=True)
def parameters_in_modules() -> Iterator[None]:
    with pyro.settings.context(module_local_params=True):
        yield


def parents(model: Callable[..., Any], site: str, *args: Any) -> set[str]:
    """The sites that a site's distribution depends on."""
    dependencies: Any = get_dependencies(model, args)
    return set(dependencies["prior_dependencies"][site]) - {site}


def upstream(rnn: Any, where: str) -> Callable[[], None]:
    """A program with a discrete latent ``b`` upstream of the layer's inputs, state or memory."""
    x = torch.randn(BATCH, STEPS, FEATURES)
    has_memory = isinstance(rnn, torch.nn.LSTM) or getattr(rnn, "cell", CELLS["tanh"]()).has_memory

    def model() -> None:
        b = pyro.sample("b", dist.Bernoulli(0.5))
        with pyro.plate("sequences", BATCH):
            z, c = (torch.ones(1, BATCH, UNITS) * (b if name == where else 1.0) for name in ("state", "memory"))
            h, _ = rnn(x * (b if where == "inputs" else 1.0), (z, c) if has_memory else z)
            pyro.sample("y", dist.Normal(h.sum(-1), 0.5).to_event(1), obs=torch.ones(BATCH, STEPS))

    return model


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("where", ["inputs", "state", "memory"])
@pytest.mark.parametrize("cell", CELLS)
def test_what_is_upstream_of_a_layer_is_upstream_of_its_states(cell: str, where: str, backend: str) -> None:
    if (where == "memory" and cell != "lstm") or (backend == "fused" and cell in ("gru", "identity")):
        return
    clean, noisy = (NoisyRNN(FEATURES, UNITS, cell=cell, spread=spread, backend=backend) for spread in (0.0, 0.3))
    assert parents(upstream(clean, where), "y") == {"b"}
    assert parents(upstream(noisy, where), "z_1") == {"b"}
    assert parents(upstream(noisy, where), "y") == {"z_1"}
    assert parents(nz.innovations(upstream(noisy, where)), "y") == {"b", "z_1_noise"}
    assert parents(nz.noise_off(upstream(noisy, where)), "y") == {"b"}


@pytest.mark.parametrize("where", ["inputs", "state"])
def test_torch_passes_it_on_too(where: str) -> None:
    assert parents(upstream(torch.nn.RNN(FEATURES, UNITS, batch_first=True), where), "y") == {"b"}


@pytest.mark.parametrize("backend", ["scan", "fused", "loop"])
def test_graph_of_a_model(backend: str) -> None:
    """A stack with sampled spreads: each layer depends on the layer below, x on the last one (paper, section 2.1)."""
    rnn = NoisyRNN(FEATURES, UNITS, 2, spread=Spread(prior=dist.Gamma(2.0, 4.0)), backend=backend)
    model = nz.SequenceModel(rnn, "gaussian", 1)
    data = torch.randn(BATCH, STEPS, FEATURES), torch.randn(BATCH, STEPS, 1)
    assert parents(model, "z_1", *data) == {"rnn.spread_1.gamma"}
    assert parents(model, "z_2", *data) == {"rnn.spread_2.gamma", "z_1"}
    assert parents(model, "x", *data) == {"z_2"}
    noise = {"z_1_noise", "z_2_noise", "rnn.spread_1.gamma", "rnn.spread_2.gamma"}
    assert parents(nz.innovations(model), "x", *data) == noise


@pytest.mark.parametrize("backend", ["scan", "fused", "loop"])
def test_unrolled_states_are_a_markov_chain(backend: str) -> None:
    model = nz.LanguageModel(7, UNITS, backend=backend)
    words = torch.randint(7, (BATCH, STEPS))
    assert parents(nz.unroll(model), "z_1_3", words, words) == {"z_1_2"}
    assert parents(nz.unroll(model), "x", words, words) == {"z_1_1", "z_1_2", "z_1_3"}


def test_masks_and_weights() -> None:
    model = nz.SequenceModel(NoisyRNN(FEATURES, UNITS, regularizer="D"), "gaussian", 1, weight_prior="normal")
    data = torch.randn(BATCH, STEPS, FEATURES), torch.randn(BATCH, STEPS, 1)
    weights = {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}
    assert parents(model, "z_1", *data) == weights | {"z_1_input_mask", "z_1_recurrent_mask"}
    assert parents(model, "x", *data) == {"z_1", "z_output_mask"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_and_gradients_stay_the_same(backend: str) -> None:
    rnn = NoisyRNN(FEATURES, UNITS, spread=0.0, backend=backend).double()
    x = torch.randn(BATCH, STEPS, FEATURES, dtype=torch.float64)
    results = []
    for inputs in (x, ProvenanceTensor(x, frozenset({"x"}))):
        z, end = rnn(inputs)
        assert get_provenance(z) == get_provenance(end) == get_provenance(inputs)
        z, end = (getattr(part, "_t", part) for part in (z, end))
        gradients = torch.autograd.grad(z.sin().sum() + end.sum(), [*rnn.parameters()])
        results.append([z, end, *gradients])
    for plain, tracked in zip(*results, strict=True):
        torch.testing.assert_close(tracked, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tracked", ["z", "weight", "bias", "y"])
def test_softmax(tracked: str) -> None:
    parts = {"z": torch.randn(5, 4), "weight": torch.randn(7, 4), "bias": torch.randn(7), "y": torch.randint(7, (5,))}
    given = parts | {tracked: ProvenanceTensor(parts[tracked], frozenset({"b"}))}
    expected, log_prob = (Softmax(*list(each.values())[:3]).log_prob(each["y"]) for each in (parts, given))
    assert get_provenance(log_prob) == {"b"}
    torch.testing.assert_close(log_prob._t, expected)


def score_program(rnn: Any) -> tuple[Callable[[], None], Callable[[], None], Tensor]:
    """A discrete latent upstream of the state, its guide, and the guide's parameter."""
    start, q = torch.full((1, BATCH, UNITS), 10.0), torch.tensor(0.5, requires_grad=True)
    x = torch.linspace(-1, 1, BATCH * STEPS * FEATURES).reshape(BATCH, STEPS, FEATURES)

    def program() -> None:
        b = pyro.sample("b", dist.Bernoulli(0.5))
        with pyro.plate("sequences", BATCH):
            z, _ = rnn(x, start * b)
            pyro.sample("y", dist.Normal(z.sum(-1), 0.3).to_event(1), obs=torch.zeros(BATCH, STEPS))

    def guide() -> None:
        pyro.sample("b", dist.Bernoulli(q))
        if isinstance(rnn, NoisyRNN) and rnn.noisy_layers:
            with pyro.plate("sequences", BATCH):
                pyro.sample("z_1_noise", dist.Normal(torch.zeros(STEPS, UNITS), 1.0).to_event(2))

    return nz.innovations(program), guide, q


def score_gradients(rnn: Any, draws: int) -> Tensor:
    """What ``TraceGraph_ELBO``, which finds downstream costs by provenance, estimates for q."""
    model, guide, q = score_program(rnn)
    pyro.set_rng_seed(3)
    gradients = []
    for _ in range(draws):
        q.grad = None
        TraceGraph_ELBO().loss_and_grads(model, guide)
        gradients.append(q.grad)
    return torch.stack(gradients)


@pytest.mark.parametrize("backend", BACKENDS)
def test_score_function_terms_are_those_of_torch(backend: str) -> None:
    plain = torch.nn.RNN(FEATURES, UNITS, batch_first=True).requires_grad_(False)
    clean, noisy, looped = (
        NoisyRNN(FEATURES, UNITS, spread=spread, backend=each).requires_grad_(False)
        for spread, each in ((0.0, backend), (0.3, backend), (0.3, "loop"))
    )
    for rnn in (clean, noisy, looped):
        rnn.load_state_dict(plain.state_dict())
    expected = score_gradients(plain, 3)
    assert expected.abs().min() > 1.0  # a layer that loses provenance gives 0, up to log q
    torch.testing.assert_close(score_gradients(clean, 3), expected)
    torch.testing.assert_close(score_gradients(noisy, 3), score_gradients(looped, 3))


@pytest.mark.slow
def test_score_function_terms_by_enumeration() -> None:
    pyro.set_rng_seed(1)
    rnn = NoisyRNN(FEATURES, UNITS, spread=0.3).requires_grad_(False)
    model, guide, q = score_program(rnn)
    gradients = score_gradients(rnn, 400)
    losses = [
        [
            Trace_ELBO().loss(poutine.condition(model, {"b": torch.tensor(b)}), poutine.block(guide, hide=["b"]))
            for b in (1.0, 0.0)
        ]
        for _ in range(100)
    ]
    on, off = torch.tensor(losses).unbind(-1)
    exact = on - off + (q / (1 - q)).log().detach()
    # False-alarm rate 6e-7 (5 standard errors), at a fixed seed.
    error = (gradients.var() / len(gradients) + exact.var() / len(exact)).sqrt()
    assert (gradients.mean() - exact.mean()).abs() < 5 * error < exact.mean().abs()
