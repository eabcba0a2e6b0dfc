"""Equation (1): against Trace_ELBO with the prior repeated, against closed forms, against finite differences."""

import math

import pyro
import pyro.optim
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

from noisin_pyro import NoisyRNN, PriorAsGuide_ELBO, SequenceModel, Spread, innovations

from .programs import WORDS, language_model, repeat_prior, value_and_gradients


class TestAgainstTheRepeatedPrior:
    @pytest.mark.parametrize("noise", ["gaussian", "gamma", "gamma:multiplicative"])
    @pytest.mark.parametrize("particles", [1, 3])
    def test_equal_for_equal_noise(self, noise, particles):
        model = language_model(noise)
        reference = Trace_ELBO(particles, vectorize_particles=particles > 1, max_plate_nesting=1)
        ours = PriorAsGuide_ELBO(particles, max_plate_nesting=1)
        result = []
        for elbo, guide in ((reference, repeat_prior(model)), (ours, None)):
            pyro.set_rng_seed(2)
            result.append(value_and_gradients(elbo.differentiable_loss(model, guide, *WORDS), model))
        (value, gradients), (our_value, our_gradients) = result
        torch.testing.assert_close(our_value, value)
        assert "rnn.spread_1.excess_unconstrained" in our_gradients
        assert gradients.keys() == our_gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(our_gradients[name], gradient, rtol=1e-9, atol=1e-9)

    @pytest.mark.slow
    @pytest.mark.parametrize(("noise", "cell"), [("gaussian", "tanh"), ("poisson:native", "sigmoid")])
    def test_equal_in_expectation(self, noise, cell, assert_mean):
        # two independent sets of draws; native poisson has score-function gradients
        model = language_model(noise, cell, learn=noise == "gaussian")
        reference = Trace_ELBO(20, vectorize_particles=True, max_plate_nesting=1)
        ours = PriorAsGuide_ELBO(20, max_plate_nesting=1)
        differences = []
        for _ in range(200):
            value, gradients = value_and_gradients(ours.differentiable_loss(model, None, *WORDS), model)
            other = reference.differentiable_loss(model, repeat_prior(model), *WORDS)
            other_value, other_gradients = value_and_gradients(other, model)
            assert gradients.keys() == other_gradients.keys() == dict(model.named_parameters()).keys()
            parts = [gradients[name] - other_gradients[name] for name in gradients]
            assert all(gradients[name].abs().max() > 0 for name in gradients)
            differences.append(torch.cat([part.flatten() for part in parts] + [(value - other_value).reshape(1)]))
        samples = torch.stack(differences)
        assert_mean(samples[:, samples.std(0) > 0], 0.0)

    @pytest.mark.slow
    def test_vectorized_and_looped_particles_agree(self, assert_mean):
        model = language_model()
        vectorized, looped = (PriorAsGuide_ELBO(4, vectorize_particles=v, max_plate_nesting=1) for v in (True, False))
        draws = [vectorized.loss(model, None, *WORDS) - looped.loss(model, None, *WORDS) for _ in range(300)]
        assert_mean(torch.tensor(draws).double(), 0.0)


class TestGradientThreeWays:
    def scalar_model(self, a: float, c: float, gamma: float) -> SequenceModel:
        rnn = NoisyRNN(1, 1, cell="identity", spread=Spread(gamma, floor=0.0, learn=True))
        model = SequenceModel(rnn, emission="gaussian", output_size=1).double()
        with torch.no_grad():
            for parameter in (rnn.weight_ih_l0, rnn.bias_ih_l0, rnn.bias_hh_l0, model.emission.linear.bias):
                parameter.zero_()
            rnn.weight_hh_l0.fill_(a)
            model.emission.linear.weight.fill_(c)
            rnn.spread_1.excess_unconstrained.fill_(math.log(math.expm1(gamma)))  # it was set in float32
        model.emission.scale = torch.ones(1, dtype=torch.float64)
        return model

    def test_closed_form_on_fixed_noise(self):
        a, c, gamma, (e1, e2), (x1, x2) = 0.8, 0.7, 0.6, (0.3, -1.1), (1.5, -0.4)
        model = self.scalar_model(a, c, gamma)
        noise = torch.tensor([e1, e2], dtype=torch.float64).reshape(1, 2, 1)
        program = poutine.condition(innovations(model), data={"z_1_noise": noise})
        targets = torch.tensor([x1, x2], dtype=torch.float64).reshape(1, 2, 1)
        PriorAsGuide_ELBO().loss_and_grads(program, None, torch.zeros(1, 2, 1).double(), targets)
        # z1 = γ e1, z2 = a z1 + γ e2, log p = -½ Σ (x - c z)²
        z1 = gamma * e1
        z2 = a * z1 + gamma * e2
        r1, r2 = x1 - c * z1, x2 - c * z2
        expected_a = r2 * c * z1
        expected_gamma = r1 * c * e1 + r2 * c * (a * e1 + e2)
        rho = model.rnn.spread_1.excess_unconstrained
        d_gamma = torch.sigmoid(rho.detach())  # γ = softplus(ρ)
        assert model.rnn.weight_hh_l0.grad.item() == pytest.approx(-expected_a, abs=1e-12)
        assert (rho.grad / d_gamma).item() == pytest.approx(-expected_gamma, abs=1e-12)

    def test_monte_carlo(self, assert_mean):
        a, c, gamma, x = 0.8, 0.7, 0.6, torch.tensor([1.5, -0.4], dtype=torch.float64)
        model = self.scalar_model(a, c, gamma)
        targets, inputs = x.reshape(1, 2, 1), torch.zeros(1, 2, 1).double()
        bound = PriorAsGuide_ELBO(50)(model)
        draws = []
        for _ in range(300):
            _, gradients = value_and_gradients(bound(inputs, targets), model)
            names = ("rnn.weight_hh_l0", "rnn.spread_1.excess_unconstrained")
            draws.append(torch.stack([gradients[name].sum() for name in names]))
        # E log p = -½ Σ [x² + c² Var z_t] + const, Var z_1 = γ², Var z_2 = γ² (1 + a²)
        d_gamma = torch.sigmoid(model.rnn.spread_1.excess_unconstrained.detach())
        expected = torch.stack([d_gamma.new_tensor(c**2 * gamma**2 * a), c**2 * gamma * (2 + a**2) * d_gamma])
        assert_mean(torch.stack(draws), expected)

    @pytest.mark.parametrize("noise", ["gaussian", "bernoulli", "gamma:multiplicative", "gamma"])
    def test_finite_differences_on_common_noise(self, noise):
        model = language_model(noise)
        bound = PriorAsGuide_ELBO(3, max_plate_nesting=1)(model)

        def loss() -> torch.Tensor:
            pyro.set_rng_seed(5)
            return bound(*WORDS)

        _, gradients = value_and_gradients(loss(), model)
        generator = torch.Generator().manual_seed(3)
        for name, parameter in model.named_parameters():
            if noise == "gamma:multiplicative" and "spread" in name:
                continue  # its law of ε moves with γ: torch's implicit gradient, checked in tests/noise
            direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            with torch.no_grad():
                parameter += 1e-5 * direction
                up = loss()
                parameter -= 2e-5 * direction
                down = loss()
                parameter += 1e-5 * direction
            expected = (gradients[name] * direction).sum()
            torch.testing.assert_close((up - down) / 2e-5, expected, rtol=1e-5, atol=1e-6)
