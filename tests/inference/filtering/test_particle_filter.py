"""Parts of the particle filter: resampling, windows, states of particles, and errors."""

import itertools
import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from noisin_pyro import (
    LanguageModel,
    NoisyRNN,
    SequenceModel,
    Spread,
    evaluate,
    forecast,
    innovations,
    noise_off,
    unroll,
)
from noisin_pyro.data import Batch, Sequences, Stream
from noisin_pyro.inference import guides
from noisin_pyro.inference.filtering.particle_filter import Filtered, run
from noisin_pyro.inference.filtering.resampling import select, systematic_ancestors
from noisin_pyro.models import CELLS, Emission, States


class TestLinearGaussian:
    def test_is_near_the_exact_likelihood(self, linear_gaussian, exact_log_likelihood):
        model = linear_gaussian()
        inputs = torch.zeros(6, 20, 1).double()
        with torch.no_grad(), pyro.poutine.block():
            x = pyro.poutine.trace(model).get_trace(inputs).nodes["x"]["value"]
        result = evaluate(model, Sequences(inputs, x), "particle-filter", num_samples=20_000, islands=20)
        truth = -exact_log_likelihood(x, 1.0).sum().item() / 120
        assert result.kind == "estimate"
        # false-alarm rate 0.3 % (3 standard errors), at a fixed seed
        assert abs(result.nats_per_step - truth) < 3 * result.monte_carlo_error < 0.02
        assert 1000 < result.effective_samples < 20_000 and 5 < result.resamplings <= 20

    @pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
    def test_is_unbiased_whatever_the_threshold(self, linear_gaussian, exact_log_likelihood, assert_mean, threshold):
        model = linear_gaussian(hidden=1)
        x = torch.tensor([0.5, -1.0, 2.0, 1.5]).double().reshape(1, 4, 1).expand(4000, -1, -1)
        data = Sequences(torch.zeros(4000, 4, 1).double(), x)
        options = {"num_samples": 10, "islands": 1, "threshold": threshold, "log_probs": True}
        result = evaluate(model, data, "particle-filter", **options)
        ratio = (result.log_probs.sum(1) - exact_log_likelihood(x[:1], 1.0, hidden=1)).exp()
        assert_mean(ratio, 1.0)
        assert (result.resamplings == 0) == (threshold == 0)
        if threshold == 1:
            assert result.resamplings == 4

    def test_sequences_without_targets_change_neither_the_error_nor_the_number_of_resamplings(self, linear_gaussian):
        """A proposal weights their noise, but they are not scored."""
        model, steps = linear_gaussian(), 6
        guide = guides.get("smoothing", model, hidden_size=3)
        pyro.set_rng_seed(0)
        with torch.no_grad():
            for parameter in guide.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        x, inputs = torch.randn(4, steps, 2).double(), torch.zeros(4, steps, 1).double()
        mask = torch.zeros(4, steps).bool()
        mask[0] = True
        all_four = Sequences(inputs, x, mask=mask)
        alone = Sequences(inputs[:1], x[:1])
        of_four, of_one = (
            [evaluate(model, data, "particle-filter", 80, guide=guide, threshold=1.0, seed=i) for i in range(60)]
            for data in (all_four, alone)
        )
        assert {result.resamplings for result in of_four} == {steps} == {result.resamplings for result in of_one}
        errors = [torch.tensor([result.monte_carlo_error for result in runs]).log() for runs in (of_four, of_one)]
        # Student's t at a fixed seed; false-alarm rate 2e-4
        difference = errors[0].mean() - errors[1].mean()
        assert difference.abs() < 3.8 * torch.stack([each.var() for each in errors]).mean().mul(2 / 60).sqrt()


def seeded(model: SequenceModel, windows: list[Batch]) -> Filtered:
    """Two islands of ten particles, resampled at every step, with a fixed seed."""
    pyro.set_rng_seed(1)
    with torch.no_grad():
        return run(model, windows, 2, 10, 1.0)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
class TestStates:
    """States of the particles, with a fixed seed."""

    def test_windows_equal_one_long_window(self, cell, layers):
        model = LanguageModel(5, 3, num_layers=layers, cell=cell, spread=1.0).double()
        inputs, targets = torch.randint(5, (2, 2, 8))
        whole = seeded(model, [Batch(inputs, targets, None, False)])
        for window in (1, 3):
            pairs = zip(inputs.split(window, 1), targets.split(window, 1), strict=True)
            cut = seeded(model, [Batch(x, y, None, True) for x, y in pairs])
            for result, expected in zip(cut, whole, strict=True):
                torch.testing.assert_close(result, expected)

    def test_padded_steps_change_nothing(self, cell, layers):
        model = LanguageModel(5, 3, num_layers=layers, cell=cell, spread=1.0).double()
        inputs, targets = torch.randint(5, (2, 3, 6))
        full = seeded(model, [Batch(inputs, targets, None, False)])
        padded = seeded(model, [Batch(inputs, targets, torch.tensor([6, 0, 4]), False)])
        expected = full.increments.clone()
        expected[:, 1], expected[:, 2, 4:] = 0.0, 0.0
        torch.testing.assert_close(padded.increments, expected)
        assert padded.resamplings.tolist() == [12, 0, 8]
        assert padded.effective_samples[0] == full.effective_samples[0] and padded.effective_samples[1] == 0


class TestResampling:
    def test_is_systematic(self):
        # each particle has floor(K·W) offspring, or one more
        log_w = torch.randn(2, 50, 3).double().log_softmax(1)
        ancestors = systematic_ancestors(log_w, torch.ones(2, 3, dtype=torch.bool))
        for island, row in itertools.product(range(2), range(3)):
            offspring = ancestors[island, :, row].bincount(minlength=50)
            expected = 50 * log_w[island, :, row].exp()
            assert ((offspring - expected).abs() < 1).all() and offspring.sum() == 50

    def test_is_unbiased(self, assert_mean):
        log_w = torch.randn(5).double().log_softmax(0).reshape(1, 5, 1).expand(4000, 5, 1)
        ancestors = systematic_ancestors(log_w, torch.ones(4000, 1, dtype=torch.bool)).squeeze(-1)
        offspring = torch.nn.functional.one_hot(ancestors, 5).sum(1).double()
        assert_mean(offspring, 5 * log_w[0, :, 0].exp())

    def test_copies_all_states_of_the_ancestor_and_leaves_other_sequences_unchanged(self):
        due = torch.tensor([[True, False], [False, True]])
        log_w = torch.full((2, 4, 2), -math.inf).double()
        log_w[:, 2] = 0.0  # all weight is on the third
        number = torch.arange(16.0).reshape(8, 2, 1)
        states = select(States((number, number + 100), (number + 200, None)), systematic_ancestors(log_w, due))
        expected = number.reshape(2, 4, 2).clone()
        expected[0, :, 0], expected[1, :, 1] = number[2, 0], number[6, 1]
        for result, shift in zip((*states.z, states.c[0]), (0, 100, 200), strict=True):
            assert torch.equal(result.reshape(2, 4, 2), expected + shift)
        assert states.c[1] is None

    def test_impossible_observation_has_probability_zero(self):
        class Certain(Emission):
            event_dim = 0

            def forward(self, z):
                return dist.Categorical(logits=torch.tensor([0.0, -math.inf]).expand(*z.shape[:-1], 2))

        model = SequenceModel(NoisyRNN(1, 2), Certain(2, 2))
        targets = torch.tensor([[0, 1, 0], [0, 0, 0]])
        result = evaluate(model, Sequences(torch.zeros(2, 3, 1), targets), "particle-filter", log_probs=True)
        assert result.nats_per_step == result.perplexity == math.inf
        assert result.log_probs[0, 1] == -math.inf and result.log_probs[1].tolist() == [0.0] * 3


class TestRefusals:
    DATA = Stream(torch.randint(5, (23,), generator=torch.Generator().manual_seed(0)), batch_size=3, window=6)

    def test_programs_that_are_not_sequence_models(self):
        model = LanguageModel(5, 3)
        for program in (noise_off(model), noise_off(unroll(model)), lambda *args, **kwargs: model(*args, **kwargs)):
            with pytest.raises(ValueError, match=r"needs a SequenceModel, got (View|function)"):
                evaluate(program, self.DATA, "particle-filter")

    def test_sampled_weights_and_spreads_unless_conditioned_on(self):
        prior = Spread(prior=dist.LogNormal(-1.0, 0.3))
        model = LanguageModel(5, 3, spread=prior, weight_prior="normal").double()
        with pytest.raises(ValueError, match=r"'rnn.\w+.*' is sampled; condition on it first"):
            evaluate(model, self.DATA, "particle-filter")
        values = {"rnn.weight_ih_l0": torch.randn(3, 3).double(), "rnn.weight_hh_l0": torch.randn(3, 3).double()}
        with pytest.raises(ValueError, match=r"'rnn.spread_1.gamma' is sampled"):
            evaluate(pyro.condition(model, values), self.DATA, "particle-filter")
        plain = LanguageModel(5, 3, spread=0.7).double()
        names = {f"rnn.{name}": value for name, value in plain.rnn.named_parameters()}
        for name in values:
            values[name] = names[name].detach()
        for name in ("rnn.bias_ih_l0", "rnn.bias_hh_l0"):
            model.get_parameter(name).data = names[name].detach()
        model.embedding, model.emission = plain.embedding, plain.emission
        given = pyro.condition(model, values | {"rnn.spread_1.gamma": torch.tensor(0.7, dtype=torch.float64)})
        result = []
        for program in (plain, given, innovations(given), unroll(given)):
            pyro.set_rng_seed(3)
            result.append(evaluate(program, self.DATA, "particle-filter", num_samples=40).nats_per_step)
        assert result == pytest.approx([result[0]] * 4, abs=1e-12)

    def test_conditioned_states(self):
        model = LanguageModel(5, 3)
        given = pyro.condition(model, {"z_1": torch.zeros(3, 6, 3)})
        with pytest.raises(ValueError, match="samples the states, but 'z_1' is conditioned on"):
            evaluate(given, self.DATA, "particle-filter")
        for view, name, shape in ((innovations, "z_1_noise", (6, 3)), (unroll, "z_1_2", (3,))):
            given = pyro.condition(view(model), {name: torch.zeros(3, *shape)})
            with pytest.raises(ValueError, match=f"samples the states, but '{name}' is conditioned on"):
                evaluate(given, self.DATA, "particle-filter")

    def test_handlers_have_remedies(self):
        model = LanguageModel(5, 3)
        lifted = poutine.lift(model, prior={"rnn.bias_hh_l0": dist.Normal(torch.zeros(3), 1.0).to_event(1)})
        for program, remedy in (
            (poutine.scale(model, 0.5), "drop it, since scores do not apply it"),
            (poutine.mask(model, torch.tensor(True)), "give missing targets by the data's mask"),
            (lifted, "'importance' and 'ensemble' of evaluate sample them"),
        ):
            with pytest.raises(ValueError, match=remedy):
                evaluate(program, self.DATA, "particle-filter")

    def test_layers_with_a_forward_of_their_own_or_with_hooks(self):
        class Doubled(NoisyRNN):
            def forward(self, *args: Any, **kwargs: Any) -> Any:
                z, state = super().forward(*args, **kwargs)
                return 2 * z, state

        series = Sequences(torch.randn(3, 5, 2), torch.randn(3, 5, 2))
        for spread in (0.0, 0.3):
            own = SequenceModel(Doubled(2, 3, spread=spread), "gaussian", 2)
            hooked = SequenceModel(NoisyRNN(2, 3, spread=spread), "gaussian", 2)
            hooked.rnn.register_forward_hook(lambda _module, _given, out: (2 * out[0], out[1]))
            for model, skipped in ((own, r"Doubled\.forward"), (hooked, "the forward hooks of NoisyRNN")):
                if spread:
                    with pytest.raises(ValueError, match=f"step by step, without {skipped}"):
                        evaluate(model, series, "particle-filter")
                    with pytest.raises(ValueError, match=f"step by step, without {skipped}"):
                        forecast(model, series, 2)
                else:  # nothing is run step by step
                    assert evaluate(model, series, "particle-filter").kind == "exact"

    def test_parametrized_weights(self):
        series, scores = Sequences(torch.randn(3, 5, 2), torch.randn(3, 5, 2)), []
        for parametrize in (False, True):
            pyro.set_rng_seed(0)
            model = SequenceModel(NoisyRNN(2, 3), "gaussian", 2)
            if parametrize:
                torch.nn.utils.parametrizations.weight_norm(model.rnn, "weight_hh_l0")
            scores.append(evaluate(model, series, "particle-filter", 8, islands=1).nats_per_step)
        assert scores[0] == pytest.approx(scores[1], rel=1e-5)
