"""One rule for masks: a step that is padding, missing or masked is in no sum and in no count, in every method alike."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro import LanguageModel, NoisyRNN, SequenceModel, evaluate
from noisin_pyro.data import Sequences, Stream
from noisin_pyro.models import Output

from .programs import likelihood_by_enumeration

SAMPLES = {"mean": None, "ensemble": 5, "importance": 5, "particle-filter": 8}
STEPS = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
LENGTHS = torch.tensor([4, 5, 3])
SCORED = STEPS & (torch.arange(5) < LENGTHS[:, None])
ROWS = torch.tensor([True, False, True])


def make(emission: str = "gaussian", noise: str = "gaussian", spread: float = 0.5, **options: Any) -> SequenceModel:
    return SequenceModel(NoisyRNN(2, 3, noise=noise, spread=spread, **options), emission, 2).double()


def arrays(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 5, 2, generator=generator).double(), torch.randn(3, 5, 2, generator=generator).double()


def score(model: Any, data: Any, method: str, **options: Any) -> nz.inference.Evaluation:
    pyro.set_rng_seed(0)
    return evaluate(model, data, method, num_samples=SAMPLES[method], **options)


def with_own_mask(model: SequenceModel, mask: Tensor, masked_output: bool = False, time_plate: bool = False) -> Any:
    """A program that masks the observed site by itself."""

    def program(inputs: Tensor, targets: Tensor, state: Any = None, lengths: Any = None) -> Output:
        time = inputs.shape[1]
        real = torch.ones(len(inputs), time).bool() if lengths is None else torch.arange(time) < lengths[:, None]
        with pyro.plate("sequences", len(inputs), dim=-1):
            z, end = model.rnn(inputs, state, lengths)
            emission = model.emission(z)
            masked = emission.mask(mask[:, :time] & real)
            if not time_plate:
                pyro.sample("obs", masked.to_event(1), obs=targets)
        if time_plate:
            with pyro.plate("rows", len(inputs), dim=-2), pyro.plate("time", time, dim=-1):
                pyro.sample("obs", masked, obs=targets)
        return Output(masked if masked_output else emission, end)

    return program


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


class TestPrograms:
    """Masks that are not the data's: of ``poutine.mask``, and of the observed site in a program of one's own."""

    @pytest.mark.parametrize("method", ["mean", "ensemble", "importance"])
    def test_own_masks_equal_those_of_the_data(self, method):
        model, (x, y) = make(), arrays()
        expected = score(model, Sequences(x, y, LENGTHS, STEPS), method, log_probs=True)
        for options in ({}, {"masked_output": True}):
            result = score(with_own_mask(model, STEPS, **options), Sequences(x, y, LENGTHS), method, log_probs=True)
            assert result.nats_per_step == pytest.approx(expected.nats_per_step, abs=1e-12)
            assert result.num_steps == expected.num_steps
            torch.testing.assert_close(result.log_probs, expected.log_probs, rtol=0, atol=1e-12)
        result.difference(expected)  # the same targets

    def test_time_may_be_a_plate(self):
        model, (x, y) = make(spread=0.0), arrays()
        result = score(with_own_mask(model, STEPS, time_plate=True), Sequences(x, y, LENGTHS), "mean")
        assert result == score(model, Sequences(x, y, LENGTHS, STEPS), "mean")

    @pytest.mark.parametrize("method", ["mean", "ensemble", "importance"])
    def test_poutine_mask_equals_dropped_sequences(self, method):
        model, (x, y) = make("bernoulli"), arrays()
        y = (y > 0).double()
        result = score(poutine.mask(model, mask=ROWS), Sequences(x, y, LENGTHS), method, log_probs=True)
        expected = score(model, Sequences(x, y, LENGTHS), method, log_probs=True)  # the same noise
        torch.testing.assert_close(result.log_probs, expected.log_probs * ROWS[:, None])
        assert result.lengths.tolist() == [4, 0, 3]
        dropped = evaluate(model, Sequences(x[ROWS], y[ROWS], LENGTHS[ROWS]))
        if method == "mean":
            assert result.nats_per_step == pytest.approx(dropped.nats_per_step, abs=1e-12)
            assert result.standard_error == pytest.approx(dropped.standard_error, abs=1e-12)

    def test_the_guide_of_a_masked_sequence_is_in_no_sum(self):
        model, (x, y) = make(), arrays()
        guide = nz.guides.get("mean-field", model)
        with torch.no_grad():
            for parameter in guide.parameters():
                parameter.add_(0.2)
        view = nz.innovations(model)
        result = score(
            poutine.mask(view, mask=ROWS), Sequences(x, y), "importance", guide=lambda *a, **k: guide(*a, **k)
        )
        full = score(view, Sequences(x, y), "importance", guide=lambda *a, **k: guide(*a, **k))
        torch.testing.assert_close(result.totals, full.totals * ROWS)

    def test_tokens_of_a_text(self):
        model, tokens = LanguageModel(5, 3, spread=0.4).double(), torch.randint(5, (23,))
        data = Stream(tokens, batch_size=2, window=4)

        def program(inputs: Tensor, targets: Tensor, state: Any = None, lengths: Any = None) -> Any:
            return model(inputs, targets, state, lengths, mask=targets != 3)

        for method in ("mean", "ensemble", "importance"):
            result, full = (score(each, data, method, log_probs=True) for each in (program, model))
            assert result.num_steps == int((tokens != 3).sum())
            if method != "importance":  # the weights before a step are by the targets before it
                torch.testing.assert_close(result.log_probs, full.log_probs[tokens != 3])
            assert result.nats_per_step == pytest.approx(-result.log_probs.mean().item(), abs=1e-12)

    def test_the_particle_filter_refuses_masks_that_it_does_not_see(self):
        class Padded(LanguageModel):
            def forward(
                self, inputs: Any, targets: Any = None, state: Any = None, lengths: Any = None, *_: Any, **__: Any
            ):
                return super().forward(inputs, targets, state, lengths, mask=targets != 3)

        x, y = arrays()
        for program in (poutine.mask(make(), mask=ROWS), with_own_mask(make(), STEPS)):
            with pytest.raises(ValueError, match="method='particle-filter' needs a SequenceModel"):
                score(program, Sequences(x, y), "particle-filter")
        text = Stream(torch.tensor([0, 1, 2, 4, 0, 1, 3, 3]), batch_size=1, window=4)
        with pytest.raises(ValueError, match=r"step by step, without Padded\.forward; .*missing targets are given by"):
            score(Padded(5, 3).double(), text, "particle-filter")
        exact = score(Padded(5, 3, spread=0.0).double(), text, "particle-filter")
        assert (exact.kind, exact.num_steps) == ("exact", 6)

    def test_masks_that_give_no_count_are_refused(self):
        model, (x, y) = make(), arrays()
        data = Sequences(x, y)

        def program(observe: Any) -> Any:
            def run(inputs: Tensor, targets: Tensor, state: Any = None, lengths: Any = None) -> Output:
                with pyro.plate("sequences", len(inputs), dim=-1):
                    z, end = model.rnn(inputs, state, lengths)
                    observe(model.emission(z), targets)
                return Output(model.emission(z), end)

            return run

        def per_step(emission: Any, targets: Tensor) -> None:
            for t, law in enumerate(emission.base_dist.loc.unbind(-2)):
                site = dist.Normal(law, 1.0).to_event(1).mask(STEPS[:, t])
                pyro.sample(f"x_{t}", site, obs=targets[:, t])

        def per_feature(emission: Any, targets: Tensor) -> None:
            features = dist.Normal(emission.base_dist.loc, 1.0).mask(torch.tensor([True, False]))
            pyro.sample("x", features.to_event(2), obs=targets)

        def twice(emission: Any, targets: Tensor) -> None:
            pyro.sample("x", emission.mask(STEPS).to_event(1), obs=targets)
            pyro.sample("y", emission.to_event(1), obs=targets)

        def beside(emission: Any, targets: Tensor) -> None:
            pyro.sample("x", emission.to_event(1), obs=targets)
            pyro.factor("score", targets.sum((-1, -2)))

        def level(emission: Any, targets: Tensor) -> None:
            pyro.sample("level", dist.Normal(0.0, 1.0), obs=targets[:, 0, 0])
            pyro.sample("x", emission.to_event(1), obs=targets)

        for observe, message in (
            (per_step, r"observes no site of the targets' shape, \(3, 5, 2\), only 'x_0'"),
            (per_feature, "masks parts of single steps at 'x'"),
            (twice, "observes 'y' beside the targets at 'x', which some methods would score and others not"),
            (beside, "observes 'score' beside the targets at 'x'"),
            (level, "observes 'level' beside the targets at 'x'"),
        ):
            for method in ("mean", "ensemble", "importance"):
                with pytest.raises(ValueError, match=message):
                    score(program(observe), data, method)
        with pytest.raises(ValueError, match="data has missing targets, but model has no argument mask; add mask=None"):
            score(program(twice), Sequences(x, y, mask=STEPS), "mean")
        ignorant = program(lambda emission, targets: pyro.sample("x", emission.to_event(1), obs=targets))
        with pytest.raises(ValueError, match="scores steps at 'x' that are padding or missing"):
            score(ignorant, Sequences(x, y, LENGTHS), "mean")
        swallowing = lambda *args, mask=None, **options: ignorant(*args, **options)  # noqa: E731
        with pytest.raises(ValueError, match="scores steps at 'x' that are padding or missing"):
            score(swallowing, Sequences(x, y, mask=STEPS), "importance")
        with pytest.raises(ValueError, match="masks every step"):
            score(poutine.mask(model, mask=torch.zeros(3).bool()), data, "importance")

    @pytest.mark.parametrize("method", ["mean", "ensemble", "importance"])
    def test_another_emission_than_the_observed_one_is_refused(self, method):
        model, (x, y) = make(), arrays()

        def program(inputs: Tensor, targets: Tensor, state: Any = None, lengths: Any = None) -> Output:
            with pyro.plate("sequences", len(inputs), dim=-1):
                z, end = model.rnn(inputs, state, lengths)
                pyro.sample("x", model.emission(z).to_event(1), obs=targets)
            return Output(dist.Normal(model.emission(z).base_dist.loc, 2.0).to_event(1), end)

        with pytest.raises(
            ValueError, match=r"log-probability -.*, but at the observed site 'x' they have -.*; return"
        ):
            score(program, Sequences(x, y), method)

    @pytest.mark.parametrize("method", ["mean", "ensemble", "importance"])
    def test_sites_that_no_method_scores_are_ignored(self, method):
        """What is computed, and conditioned weights outside the plate of the sequences."""
        model, (x, y) = make(), arrays()

        def program(*args: Any, **options: Any) -> Any:
            pyro.sample("weight", dist.Normal(0.0, 1.0), obs=torch.tensor(0.3))
            out = model(*args, **options)
            with pyro.plate("rows", 3, dim=-1):
                pyro.deterministic("logits", out.emission.base_dist.loc, event_dim=2)
            return out

        results = [score(each, Sequences(x, y, LENGTHS), method) for each in (program, model)]
        assert results[0].nats_per_step == results[1].nats_per_step

    def test_conditioned_dropout_masks_are_refused_by_importance_alone(self):
        model, (x, y) = make(regularizer="variational-dropout", spread=0.0), arrays()
        trace: Any = poutine.trace(model).get_trace(x, y)
        masks = {name: site["value"] for name, site in trace.nodes.items() if name.endswith("mask")}
        conditioned = poutine.condition(model, masks)
        expected = poutine.condition(model, masks)(x, y).emission.log_prob(y).sum()
        result = score(conditioned, Sequences(x, y), "ensemble")
        assert result.kind == "exact" and result.nats_per_step == pytest.approx(-expected.item() / 15)
        with pytest.raises(ValueError, match=r"samples the noise, but 'z_1_.*mask' is conditioned on"):
            score(conditioned, Sequences(x, y), "importance")


class TestTraining:
    """The bound with missing targets: value and gradient are those of the data without them."""

    @staticmethod
    def loss(model: SequenceModel, *args: Tensor, bound: str = "elbo", **options: Any) -> tuple[Tensor, ...]:
        """The loss at a fixed seed, and its gradient."""
        pyro.set_rng_seed(0)
        value = nz.PriorAsGuide_ELBO(4, bound=bound).differentiable_loss(model, None, *args, **options)
        return value.detach(), *torch.autograd.grad(value, list(model.parameters()))

    @pytest.mark.parametrize("bound", ["elbo", "importance"])
    @pytest.mark.parametrize("emission", ["gaussian", "bernoulli", "poisson", "categorical"])
    def test_value_and_gradient_equal_those_of_dropped_data(self, emission, bound):
        model, (x, _) = make(emission, spread=0.0), arrays()
        mask = ROWS[:, None] & (torch.arange(5) < 3)
        y = torch.ones(3, 5).long()
        if emission != "categorical":
            y = torch.tensor([0.0, 1.0]).double().expand(3, 5, 2).where(mask[..., None], math.nan)
        result = self.loss(model, x, y, bound=bound, mask=mask)
        expected = self.loss(model, x[ROWS, :3], y[ROWS, :3], bound=bound)
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("bound", ["elbo", "importance"])
    @pytest.mark.parametrize("cell", ["tanh", "lstm"])
    def test_a_mask_of_the_last_steps_equals_lengths(self, cell, bound):
        model, (x, y) = make(cell=cell, spread=nz.Spread(0.5, learn=True), num_layers=2), arrays()
        mask = torch.arange(5) < LENGTHS[:, None]
        result = self.loss(model, x, y.where(mask[..., None], math.nan), bound=bound, mask=mask)
        expected = self.loss(model, x, y, bound=bound, lengths=LENGTHS)
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("name", ["mean-field", "filtering", "smoothing"])
    def test_guides_ignore_missing_targets(self, name):
        model, (x, y) = make(), arrays()
        guide = nz.guides.get(name, model)
        with torch.no_grad():
            for parameter in guide.parameters():
                parameter.add_(0.1)
        bound, result = nz.PriorAsGuide_ELBO(2, max_plate_nesting=1)(model, guide), []
        for value in (math.nan, 0.0, 7.0):
            pyro.set_rng_seed(0)
            bound.zero_grad()
            loss = bound(x, y.where(STEPS[..., None], value), mask=STEPS, lengths=LENGTHS)
            loss.backward()
            result.append([loss.detach(), *(p.grad.clone() for p in bound.parameters() if p.grad is not None)])
        assert all(part.isfinite().all() for part in result[0])
        for other in result[1:]:
            assert all(torch.equal(one, two) for one, two in zip(result[0], other, strict=True))

    def test_masks_of_another_shape_are_refused(self):
        model, (x, y) = make(), arrays()
        for guide in (None, nz.guides.get("smoothing", model)):
            for mask in (STEPS[:, :4], STEPS.T, STEPS.double()):
                with pytest.raises(ValueError, match=r"mask must be booleans of shape \(\.\.\., 3, 5\), got"):
                    nz.PriorAsGuide_ELBO()(model, guide)(x, y, mask=mask)

    def test_an_emission_of_bounded_support_has_finite_gradients(self):
        class LogNormal(nz.models.Emission):
            def forward(self, z: Tensor) -> Any:
                return dist.LogNormal(self.read_out(z), 1.0).to_event(1)

        model, (x, y) = SequenceModel(NoisyRNN(2, 3), LogNormal(3, 2)).double(), arrays()
        y = y.exp().where(STEPS[..., None], math.nan)
        assert all(part.isfinite().all() for part in self.loss(model, x, y, mask=STEPS))
        assert math.isfinite(evaluate(model, Sequences(x, y, mask=STEPS), "particle-filter").nats_per_step)


class TestFilteringBound:
    """The particle filter as the objective, with missing targets, and guides as its proposals."""

    @staticmethod
    def loss(model: SequenceModel, *args: Tensor, guide: Any = None, **options: Any) -> tuple[Tensor, ...]:
        pyro.set_rng_seed(0)
        elbo = nz.PriorAsGuide_ELBO(8, bound="filtering", max_plate_nesting=1)
        value = elbo.differentiable_loss(model, guide, *args, **options)
        grads = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
        return value.detach(), *(grad for grad in grads if grad is not None)

    @pytest.mark.parametrize("emission", ["gaussian", "categorical"])
    @pytest.mark.parametrize("name", [None, "mean-field", "smoothing"])
    def test_a_mask_of_the_last_steps_equals_lengths_without_a_proposal(self, name, emission):
        model, (x, y) = make(emission, spread=nz.Spread(0.5, learn=True)), arrays()
        mask = torch.arange(5) < LENGTHS[:, None]
        guide = None if name is None else nz.guides.get(name, model)  # starts at the prior
        if emission == "categorical":
            y, missing = torch.ones(3, 5).long(), torch.where(mask, 1, 99)
        else:
            missing = y.where(mask[..., None], math.nan)
        if name is None:
            result, expected = self.loss(model, x, missing, mask=mask), self.loss(model, x, y, lengths=LENGTHS)
            torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
        values = [self.loss(model, x, missing, guide=guide, mask=mask), self.loss(model, x, y, guide=guide, mask=mask)]
        assert all(part.isfinite().all() for part in values[0])
        torch.testing.assert_close(*values, rtol=0, atol=0)

    def test_gaps_without_noise_equal_the_elbo(self):
        model, (x, y) = make(spread=0.0), arrays()
        y = y.where(STEPS[..., None], math.nan)
        expected = TestTraining.loss(model, x, y, mask=STEPS, lengths=LENGTHS)
        torch.testing.assert_close(self.loss(model, x, y, mask=STEPS, lengths=LENGTHS), expected)

    @pytest.mark.parametrize("threshold", [0.0, 1.0])
    def test_proposals_are_unbiased_with_gaps(self, threshold, linear_gaussian, assert_mean):
        model, copies = linear_gaussian(hidden=1), 4000
        guide = nz.guides.get("smoothing", model)
        with torch.no_grad():
            for parameter in guide.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        x = torch.tensor([0.5, 9.0, 2.0, 1.5]).double().reshape(1, 4, 1)
        mask = torch.tensor([[True, False, True, True]])
        lag = torch.arange(4)[:, None] - torch.arange(4)
        powers = torch.where(lag >= 0, 0.9 ** lag.clamp(min=0).double(), 0.0)
        is_scored = mask[0]
        covariance = (powers @ powers.T + torch.eye(4))[is_scored][:, is_scored]
        exact = torch.distributions.MultivariateNormal(torch.zeros(3).double(), covariance).log_prob(x[0, is_scored, 0])
        data = Sequences(torch.zeros(copies, 4, 1).double(), x.expand(copies, -1, -1), mask=mask.expand(copies, -1))
        options = {"num_samples": 10, "islands": 1, "threshold": threshold, "guide": guide}
        result = evaluate(model, data, "particle-filter", log_probs=True, **options)
        assert_mean((result.totals - exact).exp(), 1.0)
        torch.testing.assert_close(result.log_probs.sum(1), result.totals)


def test_programs_without_a_site_of_all_targets_are_refused():
    """Sums and counts of a factor, of a part of the targets or of another variable are not those of the targets."""
    model, (inputs, targets) = make(), arrays()

    def factor(inputs: Tensor, targets: Tensor, state: Any = None, lengths: Any = None) -> Any:
        with poutine.block():
            out = model(inputs, targets, state, lengths)
        with pyro.plate("rows", len(inputs), dim=-1):
            pyro.factor("score", (out.emission.log_prob(targets) * STEPS).sum(-1))
        return out

    def part(inputs: Tensor, targets: Tensor, state: Any = None, lengths: Any = None) -> Any:
        with poutine.block():
            out = model(inputs, targets, state, lengths)
        with pyro.plate("rows", len(inputs), dim=-1):
            pyro.sample("first", dist.Normal(0.0, 1.0).expand([3, 3, 2]).to_event(2), obs=targets[:, :3])
        return out

    for program in (factor, part):
        for method in ("mean", "ensemble", "importance"):
            with pytest.raises(ValueError, match="observes no site of the targets' shape"):
                score(program, Sequences(inputs, targets), method)


def test_effective_sample_sizes_are_averages_over_scored_steps():
    model, (inputs, targets) = make(), arrays()
    guide = nz.guides.get("smoothing", model)
    for options in ({}, {"guide": guide}):
        result = score(model, Sequences(inputs, targets, LENGTHS, mask=STEPS), "particle-filter", **options)
        assert 1 <= result.effective_samples <= result.num_samples


@pytest.mark.parametrize("bound", ["elbo", "importance", "filtering"])
@pytest.mark.parametrize("guide", [None, "mean-field", "smoothing"])
@pytest.mark.parametrize("value", [math.nan, -1.0])
def test_padding_of_any_value_has_no_effect_on_loss_and_gradients(bound: Any, guide: str | None, value: float) -> None:
    inputs, lengths = torch.randn(3, 4, 2), torch.tensor([2, 4, 4])
    model = nz.SequenceModel(nz.models.NoisyRNN(2, 3), "bernoulli", 2)
    parts = [model] if guide is None else [model, nz.guides.get(guide, model)]
    results = []
    for padding in (0.0, value):
        targets = torch.ones(3, 4, 2)
        targets[0, 2:] = padding
        pyro.set_rng_seed(0)
        for part in parts:
            part.zero_grad()
        loss = nz.PriorAsGuide_ELBO(4, bound=bound)(*parts)(inputs, targets, lengths=lengths)
        loss.backward()
        grads = [p.grad.flatten() for part in parts for p in part.parameters() if p.grad is not None]
        results.append(torch.cat([loss.detach().reshape(1), *grads]))
    torch.testing.assert_close(*results)
    data = [nz.data.Sequences(inputs, each, lengths) for each in (targets, targets.nan_to_num(1.0).abs())]
    means = [nz.evaluate(model, each, method="mean").nats_per_step for each in data]
    assert means[0] == means[1]


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


def test_a_mask_by_step_around_the_filtering_bound_is_refused() -> None:
    inputs, targets = arrays()
    loss = nz.PriorAsGuide_ELBO(4, bound="filtering")
    with poutine.mask(mask=SCORED), pytest.raises(ValueError, match=r"must have shape \(3,\), got \(3, 5\)"):
        loss.loss(make(), None, inputs, targets)
    with poutine.mask(mask=ROWS):
        assert math.isfinite(loss.loss(make(), None, inputs, targets))
