"""Layers and programs inside torch's transforms and tracers: the same numbers, or an error with the remedy."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, JitTrace_ELBO, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import noisin_pyro as nz
from noisin_pyro.models import CELLS, NoisyRNN
from noisin_pyro.recurrence.dispatch import BACKENDS

COPIES, BATCH, STEPS, FEATURES, UNITS = 3, 4, 5, 2, 3
LENGTHS = torch.tensor([5, 0, 2, 3])


@pytest.fixture
def parameters_in_modules() -> Iterator[None]:
    with pyro.settings.context(module_local_params=True):
        yield


@pytest.fixture
def torch_may_warn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def inputs(*batch: int) -> Tensor:
    return torch.randn(*(batch or (BATCH,)), STEPS, FEATURES, dtype=torch.float64)


def given_noise(rnn: NoisyRNN, x: Tensor, epsilon: Tensor, *args: Any) -> Tensor:
    """The states for given innovations."""
    return poutine.condition(nz.innovations(rnn), {"z_1_noise": epsilon})(x, *args)[0]


def close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def layers(**options: Any) -> list[NoisyRNN]:
    """A layer for each backend that can run it."""
    made = []
    for backend in BACKENDS:
        rnn = NoisyRNN(FEATURES, UNITS, backend=backend, **options).double()
        try:
            rnn.backends(BATCH)
        except ValueError:
            continue
        made.append(rnn)
    return made


@pytest.mark.usefixtures("parameters_in_modules")
class TestVmap:
    @pytest.mark.parametrize("noise", ["gaussian", "gamma", "gaussian:multiplicative", "categorical"])
    @pytest.mark.parametrize("cell", CELLS)
    def test_given_noise(self, cell: str, noise: str) -> None:
        for rnn in layers(cell=cell, noise=noise):
            x = inputs(COPIES, BATCH)
            law = rnn.noise.law(torch.ones(1, dtype=torch.float64), UNITS)
            epsilon = law.expand(torch.Size([COPIES, BATCH, STEPS])).sample()
            result = torch.func.vmap(lambda x, e, rnn=rnn: given_noise(rnn, x, e))(x, epsilon)
            close(result, torch.stack([given_noise(rnn, *pair) for pair in zip(x, epsilon, strict=True)]))

    def test_lengths_and_states(self) -> None:
        for rnn in layers(cell="lstm", spread=0.0):
            x, z = inputs(COPIES, BATCH), torch.randn(COPIES, 1, BATCH, UNITS, dtype=torch.float64)
            lengths = torch.stack([LENGTHS, LENGTHS.flip(0), LENGTHS])
            result = torch.func.vmap(lambda x, z, n, rnn=rnn: rnn(x, (z, z), n)[1][1])(x, z, lengths)
            close(result, torch.stack([rnn(x[i], (z[i], z[i]), lengths[i])[1][1] for i in range(COPIES)]))

    def test_an_ensemble_of_weights(self) -> None:
        for rnn in layers(cell="gru", spread=0.0):
            others = [NoisyRNN(FEATURES, UNITS, cell="gru", spread=0.0).double() for _ in range(COPIES)]
            weights, _ = torch.func.stack_module_state(others)
            x = inputs()
            result = torch.func.vmap(lambda w, rnn=rnn, x=x: torch.func.functional_call(rnn, w, (x,))[0])(weights)
            close(result, torch.stack([other(x)[0] for other in others]))

    def test_gradients_of_each_sequence(self) -> None:
        for rnn in layers(cell="relu", spread=0.0):
            x, weights = inputs(), dict(rnn.named_parameters())

            def value(weights: dict[str, Tensor], x: Tensor, rnn: NoisyRNN = rnn) -> Tensor:
                return torch.func.functional_call(rnn, weights, (x.unsqueeze(0),))[0].sin().sum()

            result = torch.func.vmap(torch.func.grad(value), (None, 0))(weights, x)
            for i in range(BATCH):
                expected = torch.autograd.grad(value(weights, x[i]), list(weights.values()))
                for name, gradient in zip(weights, expected, strict=True):
                    close(result[name][i], gradient)

    @pytest.mark.usefixtures("torch_may_warn")
    @pytest.mark.parametrize("noise", ["gaussian", "gamma", "poisson", "bernoulli", "gumbel", "categorical"])
    def test_noise_of_its_own_for_each_copy(self, noise: str) -> None:
        rnn = NoisyRNN(FEATURES, UNITS, noise=noise, regularizer="D").double()
        same = inputs().expand(COPIES, -1, -1, -1)
        z = torch.func.vmap(lambda x: rnn(x)[0], randomness="different")(same)
        assert len(z.flatten(1).unique(dim=0)) == COPIES
        if noise == "gaussian":  # torch has "same" for few laws
            z = torch.func.vmap(lambda x: rnn(x)[0], randomness="same")(same)
            assert len(z.flatten(1).unique(dim=0)) == 1

    @pytest.mark.parametrize(("cell", "noise"), [("tanh", "laplace"), ("lstm", "beta"), ("sigmoid", "gamma:native")])
    def test_laws_that_torch_cannot_draw_are_refused(self, cell: str, noise: str) -> None:
        rnn = NoisyRNN(FEATURES, UNITS, cell=cell, noise=noise).double()
        with pytest.raises(ValueError, match=r"noise cannot be drawn .* condition innovations.* or use noise_off"):
            torch.func.vmap(lambda x: rnn(x)[0], randomness="different")(inputs(COPIES, BATCH))
        x, off = inputs(COPIES, BATCH), nz.noise_off(rnn)
        close(torch.func.vmap(lambda x: off(x)[0])(x), torch.stack([off(each)[0] for each in x]))


@pytest.mark.usefixtures("parameters_in_modules", "torch_may_warn")
@pytest.mark.parametrize("cell", CELLS)
def test_forward_mode_with_given_noise(cell: str) -> None:
    """The derivative along a direction, by forward mode inside and outside torch.func and by reverse mode."""
    epsilon = torch.randn(BATCH, STEPS, UNITS, dtype=torch.float64)
    for rnn in layers(cell=cell, spread=0.4):
        x, direction = inputs(), inputs()
        tangent = torch.func.jvp(lambda x, rnn=rnn: given_noise(rnn, x, epsilon), (x,), (direction,))[1]
        with forward_ad.dual_level():
            dual = forward_ad.unpack_dual(given_noise(rnn, forward_ad.make_dual(x, direction), epsilon)).tangent
        weight = torch.randn_like(tangent)
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((weight * given_noise(rnn, leaf, epsilon)).sum(), leaf)
        close(tangent, dual)
        close((weight * tangent).sum(), (gradient * direction).sum())


@pytest.mark.usefixtures("parameters_in_modules")
def test_softmax_and_emissions_in_transforms() -> None:
    model, words = nz.LanguageModel(7, UNITS, spread=0.0).double(), torch.randint(7, (COPIES, BATCH, STEPS))

    def score(words: Tensor) -> Tensor:
        return model(words, words).emission.log_prob(words)

    close(torch.func.vmap(score)(words), torch.stack([score(each) for each in words]))
    for emission in ("bernoulli", "gaussian", "poisson"):
        sequences = nz.SequenceModel(NoisyRNN(FEATURES, UNITS, spread=0.0), emission, 2).double()
        x = inputs(COPIES, BATCH)
        means = torch.func.vmap(lambda x, model=sequences: model(x, torch.ones_like(x)).emission.mean)(x)
        close(means, torch.stack([sequences(each, torch.ones_like(each)).emission.mean for each in x]))


def jit_program(cell: str = "tanh", noise: str = "gaussian", **options: Any) -> tuple[Callable[..., Any], list[Tensor]]:
    model = nz.SequenceModel(NoisyRNN(FEATURES, UNITS, 1, cell, noise, 0.4, **options), "gaussian", 2)
    return nz.innovations(model), [torch.randn(BATCH, STEPS, FEATURES), torch.randn(BATCH, STEPS, 2)]


@pytest.mark.usefixtures("torch_may_warn")
class TestJit:
    @pytest.mark.parametrize(
        "options",
        [
            {"cell": "lstm"},
            {"cell": "gru"},
            {"noise": "gamma:multiplicative"},
            {"noise": "dirichlet"},
            {"cell": "identity", "input_spread": 0.2},
            {"backend": "fused"},
        ],
    )
    def test_elbos_equal_those_without_jit(self, options: dict[str, Any]) -> None:
        results = []
        for elbo in (Trace_ELBO(), JitTrace_ELBO(ignore_jit_warnings=True)):
            pyro.clear_param_store()
            pyro.set_rng_seed(0)
            model, data = jit_program(**options)
            guide = AutoNormal(model)
            elbo.loss_and_grads(model, guide, *data)  # sets up the guide, and compiles
            parameters = [value.unconstrained() for value in pyro.get_param_store().values()]
            for parameter in parameters:
                parameter.grad = None
            pyro.set_rng_seed(1)
            loss = elbo.loss_and_grads(model, guide, *data)
            results.append([torch.tensor(loss), *(parameter.grad for parameter in parameters)])
        assert len(results[0]) > 6
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("cell", ["tanh", "lstm"])
    def test_potential_of_nuts(self, cell: str) -> None:
        model, data = jit_program(cell)
        model(*data)
        model.requires_grad_(False)
        potentials = [
            initialize_model(model, tuple(data), jit_compile=jit, skip_jit_warnings=True, num_chains=1)[1]
            for jit in (False, True)
        ]
        epsilon = torch.randn(BATCH, STEPS, UNITS)
        expected, actual = (potential({"z_1_noise": epsilon}) for potential in potentials)
        torch.testing.assert_close(actual, expected)
        kernel = NUTS(model, jit_compile=True, ignore_jit_warnings=True, max_tree_depth=2)
        chain = MCMC(kernel, num_samples=2, warmup_steps=1, disable_progbar=True)
        chain.run(*data)
        assert chain.get_samples()["z_1_noise"].shape == (2, BATCH, STEPS, UNITS)

    @pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
    def test_the_scan_is_refused_by_name(self, cell: str) -> None:
        rnn = NoisyRNN(FEATURES, UNITS, cell=cell, spread=0.0, backend="scan")
        with pytest.raises(ValueError, match=r"inside autocast or torch.jit.trace, only fused, loop"):
            torch.jit.trace(rnn, (torch.randn(BATCH, STEPS, FEATURES),))

    def test_lengths_are_traced(self) -> None:
        rnn = NoisyRNN(FEATURES, UNITS, spread=0.0)
        x = torch.randn(BATCH, STEPS, FEATURES)
        rnn(x)  # registers the parameters
        traced = torch.jit.trace(rnn, example_kwarg_inputs={"inputs": x, "lengths": LENGTHS})
        for lengths in (LENGTHS, LENGTHS.flip(0)):
            torch.testing.assert_close(traced(inputs=x, lengths=lengths)[1], rnn(x, None, lengths)[1])


@pytest.mark.parametrize("spread", [0.0, 0.3])
@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm", "gru"])
def test_saved_tensors_are_unpacked_once(cell: str, spread: float) -> None:
    """As activation checkpointing and offloading to the host need it."""
    for rnn in layers(cell=cell, spread=spread):
        unpacked: list[int] = []

        def pack(tensor: Tensor, unpacked: list[int] = unpacked) -> tuple[int, Tensor]:
            unpacked.append(0)
            return len(unpacked) - 1, tensor

        def unpack(packed: tuple[int, Tensor], unpacked: list[int] = unpacked) -> Tensor:
            unpacked[packed[0]] += 1
            return packed[1]

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            z, _ = rnn(inputs())
        z.sin().sum().backward()
        assert unpacked and max(unpacked) == 1


def test_checkpointing_of_a_softmax() -> None:
    model, words = nz.LanguageModel(7, UNITS, spread=0.0).double(), torch.randint(7, (BATCH, STEPS))

    def score(z: Tensor) -> Tensor:
        return model.emission(z).log_prob(words)

    results = []
    for run in (score, lambda z: checkpoint(score, z, use_reentrant=False)):
        z = torch.linspace(-1, 1, BATCH * STEPS * UNITS, dtype=torch.float64).reshape(BATCH, STEPS, UNITS)
        z.requires_grad_()
        results.append(torch.autograd.grad(run(z).sum(), [z, *model.emission.parameters()]))
    close(*results)
