"""The second-order term of output noise: against Hessians by autograd, and against the expected loss by Monte Carlo."""

import pyro
import pytest
import torch
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.noise import Standardized

UNITS, STEPS, WIDTH = 3, 4, 5
LENGTHS = torch.tensor([4, 2, 3])
Z = 4.89  # of each z-test below: false-alarm rate 1e-6


def make(emission: str, noise: str, spread: float = 0.3, weight_prior: str = "dirac") -> nz.SequenceModel:
    pyro.set_rng_seed(3)
    rnn = nz.NoisyRNN(2, UNITS, 2, "sigmoid", noise, spread=spread, feedback=False)
    return nz.SequenceModel(rnn, emission, WIDTH, weight_prior).double()


def data(emission: str, lengths: Tensor | None = LENGTHS) -> nz.data.Sequences:
    inputs = torch.randn(3, STEPS, 2, generator=torch.Generator().manual_seed(5)).double()
    targets = (torch.arange(3 * STEPS * WIDTH).reshape(3, STEPS, WIDTH) % 2).double()
    return nz.data.Sequences(inputs, targets[..., 0].long() if emission == "categorical" else targets, lengths)


def clean_states(model: nz.SequenceModel, sequences: nz.data.Sequences) -> Tensor:
    read: list[Tensor] = []
    hook = model.emission.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    with torch.no_grad():
        nz.noise_off(model)(sequences.inputs, sequences.targets)
    hook.remove()
    return read[0]


def loss_at(model: nz.SequenceModel, z: Tensor, sequences: nz.data.Sequences) -> Tensor:
    """Nats of each step ``(..., B, T)``, 0 at padded steps."""
    real = torch.arange(STEPS) < sequences.lengths[:, None]
    return -torch.where(real, model.emission(z).log_prob(sequences.targets), 0.0)


def covariance(noise: str, h: Tensor, spread: float) -> Tensor:
    """Covariance of z around h ``(H,)``, from the table of families."""
    name, _, form = noise.partition(":")
    if name in ("categorical", "dirichlet"):  # ε adds up to 0, and its units are all alike
        shared = (torch.eye(UNITS).double() - 1 / UNITS) * UNITS / (UNITS - 1)
        scale = spread * (h if form else torch.ones_like(h))
        return scale[:, None] * shared * scale
    variances = {"": torch.ones_like(h), "multiplicative": h.square(), "native": h * (1 - h) if name == "beta" else h}
    return torch.diag(spread**2 * variances[form])


@pytest.mark.parametrize("noise", [
    "gaussian", "laplace", "bernoulli", "categorical", "dirichlet",
    "gamma:multiplicative", "bernoulli:multiplicative", "categorical:multiplicative", "beta:native", "poisson:native",
])  # fmt: skip
@pytest.mark.parametrize("emission", ["categorical", "bernoulli", "gaussian", "poisson"])
def test_penalty_is_half_the_trace_of_covariance_times_hessian(emission: str, noise: str) -> None:
    model, sequences = make(emission, noise), data(emission)
    if emission == "gaussian":
        model.emission.scale = torch.arange(1.0, WIDTH + 1).double()  # type: ignore[assignment]
    h, expected = clean_states(model, sequences), 0.0
    for b in range(3):
        for t in range(STEPS):

            def of_step(z: Tensor, b: int = b, t: int = t) -> Tensor:
                path = torch.zeros_like(h)
                path[b, t] = z
                return loss_at(model, path, sequences)[b, t]

            hessian = torch.autograd.functional.hessian(of_step, h[b, t])
            assert isinstance(hessian, Tensor)
            expected += 0.5 * float((covariance(noise, h[b, t], 0.3) * hessian).sum())
    for view in (model, nz.unroll(model)):
        assert nz.noise_penalty(view, sequences) == pytest.approx(expected / int(LENGTHS.sum()), rel=1e-10)
    assert nz.noise_penalty(model, sequences, batch_size=2) == pytest.approx(expected / int(LENGTHS.sum()), rel=1e-10)


@pytest.mark.parametrize("emission", ["categorical", "bernoulli", "poisson"])
@pytest.mark.parametrize("noise", ["gaussian", "gaussian:multiplicative"])
def test_remainder_of_the_expected_loss_is_of_fourth_order(emission: str, noise: str) -> None:
    sequences = data(emission)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        epsilon = torch.randn(20_000, 3, STEPS, UNITS).double()
    rest, errors = [], []
    for spread in (0.6, 0.3):
        model = make(emission, noise, spread)
        h = clean_states(model, sequences)
        scale = spread * (h if ":" in noise else torch.ones_like(h))
        with torch.no_grad():
            losses = [loss_at(model, h + sign * scale * epsilon, sequences).sum((-1, -2)) for sign in (1, -1)]
            excess = (losses[0] + losses[1]) / 2 - loss_at(model, h, sequences).sum()
            # what has the penalty for its mean, and all but the fourth power of the fluctuation
            small = 1e-3
            nearby = [loss_at(model, h + sign * small * scale * epsilon, sequences).sum((-1, -2)) for sign in (1, -1)]
            quadratic = ((nearby[0] + nearby[1]) / 2 - loss_at(model, h, sequences).sum()) / small**2
        steps = int(LENGTHS.sum())
        penalty = nz.noise_penalty(model, sequences)
        assert abs(float(quadratic.mean()) / steps - penalty) < Z * float(quadratic.std()) / 20_000**0.5 / steps
        result = (excess - quadratic) / steps
        rest.append(float(result.mean()))
        errors.append(Z * float(result.std()) / 20_000**0.5)
        direct = excess / steps
        assert abs(float(direct.mean()) - penalty - rest[-1]) < Z * float(direct.std()) / 20_000**0.5
    assert abs(rest[0]) > errors[0], "else there is nothing to see"
    assert abs(rest[1]) + errors[1] < (abs(rest[0]) - errors[0]) / 8


def test_penalty_agrees_with_the_expected_loss_of_the_model() -> None:
    model, sequences = make("categorical", "laplace", spread=0.1), data("categorical")
    bound = nz.PriorAsGuide_ELBO(num_particles=2000)(model)
    clean = float(nz.evaluate(model, sequences).nats_per_step)
    with torch.no_grad():
        losses = torch.stack(
            [bound(sequences.inputs, sequences.targets, lengths=LENGTHS) for _ in range(60)]
        ) / int(LENGTHS.sum())  # fmt: skip
    penalty, error = nz.noise_penalty(model, sequences), Z * float(losses.std()) / 60**0.5
    # what is left is of the fourth power: below a tenth of the penalty at this spread
    assert abs(float(losses.mean()) - clean - penalty) < error + 0.1 * penalty


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_windows_of_a_stream_carry_the_noise_free_state(cell: str) -> None:
    pyro.set_rng_seed(0)
    model = nz.LanguageModel(6, UNITS, cell=cell, noise="gaussian:multiplicative", feedback=False).double()
    tokens = torch.randint(6, (41,))
    cut, whole = (nz.noise_penalty(model, nz.data.Stream(tokens, 3, window)) for window in (4, 20))
    assert cut == pytest.approx(whole, rel=1e-12) and whole > 0


def test_penalty_of_a_model_with_conditioned_weights() -> None:
    model, sequences = make("bernoulli", "gaussian"), data("bernoulli")
    expected = nz.noise_penalty(model, sequences)
    random = make("bernoulli", "gaussian", weight_prior="normal")
    with pytest.raises(ValueError, match="weight_ih_l0' is sampled; condition on it"):
        nz.noise_penalty(random, sequences)
    weights = {f"rnn.{name}": p.detach() for name, p in model.rnn.named_parameters() if name.startswith("weight")}
    assert nz.noise_penalty(pyro.condition(random, weights), sequences) == pytest.approx(expected, rel=1e-10)


def test_penalty_is_zero_without_noise() -> None:
    assert nz.noise_penalty(make("bernoulli", "gaussian", spread=0.0), data("bernoulli")) == 0.0


class Uneven(torch.distributions.MultivariateNormal):
    """A joint law of the units with a covariance that noise_penalty does not support."""


def test_unsupported_models_are_refused() -> None:
    sequences, states = data("bernoulli"), torch.zeros(3, STEPS, UNITS).double()
    back = nz.SequenceModel(nz.NoisyRNN(2, UNITS, noise="gaussian"), "bernoulli", WIDTH).double()
    dropped = nz.SequenceModel(nz.NoisyRNN(2, UNITS, feedback=False, regularizer="D"), "bernoulli", WIDTH).double()
    model = make("bernoulli", "gaussian")

    class Own(type(model.emission)):  # type: ignore[misc]
        pass

    own = nz.SequenceModel(make("bernoulli", "gaussian").rnn, Own(UNITS, WIDTH)).double()

    class Coupled(nz.noise.Family):
        name = "coupled"

        def law(self, spread: Tensor, size: int) -> Standardized:
            return Standardized(Uneven(spread.new_zeros(size), torch.eye(size, dtype=spread.dtype) + 0.5))

    coupled = nz.NoisyRNN(2, UNITS, noise=Coupled(), feedback=False)
    for program, message in (
        (back, "build the model with feedback=False"),
        (dropped, "does not support dropout"),
        (own, "supports the emissions categorical, bernoulli"),
        (nz.noise_off(model), "in any view but noise_off"),
        (pyro.condition(model, {"z_2": states}), "states are conditioned on"),
        (nz.SequenceModel(coupled, "bernoulli", WIDTH).double(), "does not support Uneven"),
    ):
        with pytest.raises(ValueError, match=message):
            nz.noise_penalty(program, sequences)
