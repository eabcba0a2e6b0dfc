"""Missing targets of ``Sequences``: in no sum and in no count, in every method alike."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro import NoisyRNN, SequenceModel, evaluate
from noisin_pyro.data import Sequences

from ..programs import likelihood_by_enumeration
from .shared import LENGTHS, ROWS, SAMPLES, SCORED, STEPS, arrays, make, score


class TestSequences:
    @pytest.mark.parametrize("method", SAMPLES)
    def test_a_mask_of_the_last_steps_equals_shorter_lengths(self, method):
        model, (x, y) = make(num_layers=2), arrays()
        mask = torch.arange(5) < torch.tensor([5, 2, 4])[:, None]
        y[1, 2:] = math.nan
        one = score(model, Sequences(x, y, mask=mask), method, log_probs=True)
        other = score(model, Sequences(x, y.nan_to_num(), torch.tensor([5, 2, 4])), method, log_probs=True)
        assert one.nats_per_step == pytest.approx(other.nats_per_step, abs=1e-12)
        assert (one.num_steps, one.standard_error) == (11, pytest.approx(other.standard_error, abs=1e-12))
        assert one.monte_carlo_error == pytest.approx(other.monte_carlo_error, abs=1e-12)
        torch.testing.assert_close(one.log_probs, other.log_probs, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("batch_size", [None, 2])
    @pytest.mark.parametrize("method", SAMPLES)
    def test_counts_and_sums_are_those_of_the_scored_steps(self, method, batch_size):
        x, y = arrays()
        result = score(make(), Sequences(x, y, LENGTHS, STEPS), method, log_probs=True, batch_size=batch_size)
        assert result.num_steps == int(SCORED.sum())
        assert result.lengths.tolist() == SCORED.sum(1).tolist()
        assert torch.equal(result.log_probs != 0, SCORED)
        torch.testing.assert_close(result.log_probs.sum(1), result.totals)
        assert result.nats_per_step == pytest.approx(-result.totals.sum().item() / result.num_steps)

    @pytest.mark.parametrize("method", SAMPLES)
    def test_missing_values_never_matter(self, method):
        model, (x, y) = make("poisson"), arrays()
        y = y.abs().round()
        result = []
        for value in (0.0, 1e30, math.nan, -math.inf):
            with_missing = y.where(STEPS[..., None], value)
            result.append(score(model, Sequences(x, with_missing, LENGTHS, STEPS), method).nats_per_step)
        assert result == [result[0]] * 4 and math.isfinite(result[0])

    def test_a_sequence_without_targets_equals_a_dropped_one(self):
        model, (x, y) = make(), arrays()
        mask = ROWS[:, None].expand(3, 5)
        one, other = score(model, Sequences(x, y, mask=mask), "mean"), score(model, Sequences(x[ROWS], y[ROWS]), "mean")
        assert one == other  # all numbers, the standard error included
        guide = nz.guides.get("mean-field", model)
        with torch.no_grad():
            for parameter in guide.parameters():
                parameter.add_(0.1)
        result = score(model, Sequences(x, y, mask=mask), "importance", guide=guide)
        assert result.totals[1] == 0 and result.num_steps == 10

    @pytest.mark.parametrize("cell", ["tanh", "lstm"])
    @pytest.mark.parametrize("method", ["importance", "particle-filter"])
    def test_likelihoods_with_missing_targets_are_unbiased(self, method, cell, assert_mean):
        model = SequenceModel(NoisyRNN(1, 2, cell=cell, noise="bernoulli", spread=1.5), "gaussian", 2).double()
        copies, mask = 1500, torch.tensor([[0, 1, 1], [1, 0, 1], [1, 1, 0]]).bool()
        x, y = torch.randn(3, 3, 1).double(), 1.5 * torch.randn(3, 3, 2).double()
        rows = zip(x, y, mask, strict=True)
        exact = torch.stack([likelihood_by_enumeration(model, a, b, mask=m[None]) for a, b, m in rows])
        data = Sequences(x.repeat(copies, 1, 1), y.repeat(copies, 1, 1), mask=mask.repeat(copies, 1))
        islands = {"islands": 1} if method == "particle-filter" else {}
        result = evaluate(model, data, method, num_samples=4, **islands)
        assert_mean((result.totals.reshape(copies, 3) - exact).exp(), 1.0)

    def test_missing_targets_of_the_linear_gaussian_model(self, linear_gaussian):
        """Kalman's recursion without an update at missing steps: the joint Gaussian of the others."""
        model, (_, y) = linear_gaussian(), arrays()
        data = Sequences(torch.zeros(3, 5, 1).double(), y, LENGTHS, STEPS)
        lag = torch.arange(5)[:, None] - torch.arange(5)
        powers = torch.where(lag >= 0, 0.9 ** lag.clamp(min=0).double(), 0.0)
        emission = (0.5 + 0.5 * torch.eye(2)).double()
        covariance = torch.kron(powers @ powers.T, emission @ emission.T) + torch.eye(10).double()
        exact = []
        for row, steps in zip(y, SCORED, strict=True):
            is_scored = steps.repeat_interleave(2)
            law = torch.distributions.MultivariateNormal(
                torch.zeros(int(is_scored.sum())).double(), covariance[is_scored][:, is_scored]
            )
            exact.append(law.log_prob(row[steps].flatten()))
        exact = torch.stack(exact)
        result = evaluate(model, data, "particle-filter", num_samples=20_000, islands=20)
        # false-alarm rate 6e-5 at 20 islands (5 standard errors), at a fixed seed
        assert abs(result.nats_per_step + exact.sum().item() / 7) < 5 * result.monte_carlo_error < 0.05

        def posterior(inputs: Tensor, targets: Tensor, state=None, lengths=None, mask=None) -> None:
            prior = torch.kron(powers @ powers.T, torch.eye(2).double())
            laws = []
            for row, steps in zip(targets, SCORED, strict=True):
                is_scored = steps.repeat_interleave(2)
                read = torch.kron(torch.eye(5).double(), emission)[is_scored]
                precision = torch.linalg.inv(prior) + read.T @ read
                laws.append((torch.linalg.solve(precision, read.T @ row[steps].flatten()), torch.linalg.inv(precision)))
            means, covariances = (torch.stack(part) for part in zip(*laws, strict=True))
            flat = dist.MultivariateNormal(means, covariances)
            with pyro.plate("sequences", 3, dim=-1):
                pyro.sample(
                    "z_1", dist.TransformedDistribution(flat, [dist.transforms.ReshapeTransform((10,), (5, 2))])
                )

        # z at the padded steps has no density in the model, so all lengths are equal here
        full = Sequences(data.inputs, y, mask=SCORED)
        result = evaluate(model, full, "importance", num_samples=30, guide=posterior)
        torch.testing.assert_close(result.totals, exact, rtol=0, atol=1e-6)  # the model's 0.9 is that of float32

    def test_noise_penalty(self):
        model, (x, y) = make(feedback=False), arrays()
        steps = torch.arange(5) < torch.tensor([5, 2, 4])[:, None]
        masked = nz.noise_penalty(model, Sequences(x, y, mask=steps))
        assert masked == pytest.approx(nz.noise_penalty(model, Sequences(x, y, torch.tensor([5, 2, 4]))), rel=1e-12)


def test_infinite_targets_are_refused() -> None:
    model = nz.SequenceModel(nz.models.NoisyRNN(2, 3), "gaussian", 2)
    with pytest.raises(ValueError, match="targets must be finite"):
        model(torch.randn(1, 2, 2), torch.full((1, 2, 2), math.inf))


@pytest.mark.parametrize("emission", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.long])
def test_vectors_of_whole_numbers_and_booleans_score_as_real_numbers(emission: str, dtype: torch.dtype) -> None:
    model = nz.SequenceModel(nz.models.NoisyRNN(2, 3, spread=0.0), emission, 2)
    inputs, targets = torch.randn(3, 4, 2), torch.randint(2, (3, 4, 2))
    losses = [nz.PriorAsGuide_ELBO()(model)(inputs, each).item() for each in (targets.float(), targets.to(dtype))]
    assert losses[0] == losses[1]
    data = [nz.data.Sequences(inputs, each) for each in (targets.float(), targets.to(dtype))]
    numbers = [nz.evaluate(model, each, method="mean").nats_per_step for each in data]
    assert numbers[0] == numbers[1]


def test_32_bit_tokens_are_those_of_64_bits() -> None:
    tokens, model = torch.randint(9, (8,)), nz.LanguageModel(9, 4)
    texts = [nz.generate(model, 5, prompt=each, seed=0) for each in (tokens, tokens.int())]
    assert texts[0].equal(texts[1])
    data = nz.data.Sequences(tokens.int()[None], tokens.int()[None])
    assert data.targets.dtype == data.inputs.dtype == torch.long
