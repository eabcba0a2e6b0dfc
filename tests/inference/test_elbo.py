"""Equation (1) and its relatives: against Trace_ELBO, against closed forms, against finite differences."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from noisin_pyro import LanguageModel, NoisyRNN, PriorAsGuide_ELBO, SequenceModel, Spread, innovations, unroll
from noisin_pyro.inference.weights import log_weights

WORDS = torch.randint(7, (2, 3, 6), generator=torch.Generator().manual_seed(1))


def language_model(noise="gaussian", cell="tanh", learn=True, spread=0.5) -> LanguageModel:
    gamma = Spread(spread, learn=True) if learn else spread
    return LanguageModel(7, 4, cell=cell, noise=noise, spread=gamma).double()


def repeat_prior(model):
    """The guide that a Pyro user would write: the model's own latents."""
    return poutine.block(model, hide=["x"])


def value_and_gradients(loss, model: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


class TestAgainstTheRepeatedPrior:
    @pytest.mark.parametrize("noise", ["gaussian", "gamma", "gamma:multiplicative"])
    @pytest.mark.parametrize("particles", [1, 3])
    def test_equal_for_equal_noise(self, noise, particles):
        model = language_model(noise)
        reference = Trace_ELBO(particles, vectorize_particles=particles > 1, max_plate_nesting=1)
        ours = PriorAsGuide_ELBO(particles, max_plate_nesting=1)
        found = []
        for elbo, guide in ((reference, repeat_prior(model)), (ours, None)):
            pyro.set_rng_seed(2)
            found.append(value_and_gradients(elbo.differentiable_loss(model, guide, *WORDS), model))
        (value, gradients), (our_value, our_gradients) = found
        torch.testing.assert_close(our_value, value)
        assert "rnn.spread_1.excess_unconstrained" in our_gradients
        assert gradients.keys() == our_gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(our_gradients[name], gradient, rtol=1e-9, atol=1e-9)

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

    def test_vectorised_and_looped_particles_agree(self, assert_mean):
        model = language_model()
        vectorised, looped = (PriorAsGuide_ELBO(4, vectorize_particles=v, max_plate_nesting=1) for v in (True, False))
        draws = [vectorised.loss(model, None, *WORDS) - looped.loss(model, None, *WORDS) for _ in range(300)]
        assert_mean(torch.stack(draws), 0.0)


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
                continue  # its law of ε moves with γ: torch's implicit gradient, checked in the noise room
            direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            with torch.no_grad():
                parameter += 1e-5 * direction
                up = loss()
                parameter -= 2e-5 * direction
                down = loss()
                parameter += 1e-5 * direction
            expected = (gradients[name] * direction).sum()
            torch.testing.assert_close((up - down) / 2e-5, expected, rtol=1e-5, atol=1e-6)


class TestLinearGaussian:
    """Where log p(x) is exact."""

    def data(self, model: SequenceModel, batch: int = 4, steps: int = 3):
        inputs = torch.zeros(batch, steps, 1).double()
        with torch.no_grad(), poutine.block():
            trace = poutine.trace(model).get_trace(inputs)
        return inputs, trace.nodes["x"]["value"]

    def test_bounds_are_ordered(self, linear_gaussian, exact_log_likelihood):
        model = linear_gaussian()
        inputs, x = self.data(model)
        truth = exact_log_likelihood(x, 1.0).sum()
        values = {}
        for bound, particles in (("elbo", 1), ("importance", 2), ("importance", 20)):
            elbo = PriorAsGuide_ELBO(particles, bound=bound, max_plate_nesting=1)
            values[bound, particles] = torch.stack([-elbo.loss(model, None, inputs, x) for _ in range(2000)])
        ordered = [values["elbo", 1], values["importance", 2], values["importance", 20]]
        for smaller, larger in itertools.pairwise(ordered):
            error = (smaller.var() / 2000 + larger.var() / 2000).sqrt()
            assert smaller.mean() < larger.mean() - 5 * error
        last = ordered[-1]
        assert last.mean() < truth - 5 * last.std() / 2000**0.5

    def test_importance_tightens_to_the_truth(self, linear_gaussian, exact_log_likelihood):
        model = linear_gaussian()
        inputs, x = self.data(model, steps=2)
        value = -PriorAsGuide_ELBO(200_000, bound="importance").loss(model, None, inputs, x)
        # four sequences, each a log-mean of 2e5 weights whose coefficient of variation is below 10
        assert value.item() == pytest.approx(exact_log_likelihood(x, 1.0).sum().item(), abs=0.2)

    def test_importance_never_falls_over_subsets_of_one_draw(self, linear_gaussian):
        model = linear_gaussian()
        inputs, x = self.data(model)
        elbo = PriorAsGuide_ELBO(6, bound="importance", max_plate_nesting=1)
        pyro.set_rng_seed(9)
        ((model_trace, guide_trace),) = elbo._get_traces(model, None, (inputs, x), {})
        plates = frozenset(f for f in model_trace.nodes["x"]["cond_indep_stack"] if f.name == "sequences")
        log_w = log_weights(model_trace, guide_trace, plates)
        assert log_w.shape == (6, 4)
        averages = []
        for size in range(1, 7):
            subsets = torch.tensor(list(itertools.combinations(range(6), size)))
            averages.append((log_w[subsets].logsumexp(1) - math.log(size)).mean(0))
        assert (torch.stack(averages).diff(dim=0) >= 0).all()
        pyro.set_rng_seed(9)
        torch.testing.assert_close(-elbo.loss(model, None, inputs, x), averages[-1].sum())

    def test_learned_spread_goes_to_its_floor(self, linear_gaussian):
        # identity cell, additive noise, concave emission: the best γ under equation (1) is the floor
        model = linear_gaussian(spread=Spread(1.0, floor=0.1, learn=True))
        inputs, x = self.data(model, batch=20, steps=5)
        self.learn_spread(model, PriorAsGuide_ELBO(10)(model), inputs, x, steps=600, rate=0.2)
        assert 0.1 <= model.rnn.spreads()["gamma_1"] < 0.12

    def test_importance_bound_finds_the_likeliest_spread_at_one_step(self, linear_gaussian, exact_log_likelihood):
        x = self.data(linear_gaussian(hidden=1), batch=400, steps=1)[1]
        grid = torch.linspace(0.3, 2.0, 341).double()
        likeliest = grid[torch.stack([exact_log_likelihood(x, g, 1).sum() for g in grid]).argmax()].item()
        model = linear_gaussian(hidden=1, spread=Spread(0.3, floor=0.0, learn=True))
        bound = PriorAsGuide_ELBO(100, bound="importance")(model)
        found = self.learn_spread(model, bound, torch.zeros(400, 1, 1).double(), x, steps=300, rate=0.05)
        assert found == pytest.approx(likeliest, rel=0.05)

    @staticmethod
    def learn_spread(model, bound, inputs, x, steps: int, rate: float) -> float:
        """Gradient steps on γ alone; its average over the last half."""
        optimizer = torch.optim.Adam([model.rnn.spread_1.excess_unconstrained], lr=rate)
        history = []
        for _ in range(steps):
            optimizer.zero_grad()
            (bound(inputs, x) / len(x)).backward()
            optimizer.step()
            history.append(model.rnn.spreads()["gamma_1"])
        return sum(history[steps // 2 :]) / (steps - steps // 2)


class TestHybridGuides:
    def test_pays_exactly_its_own_sites(self):
        # γ has a prior and a guide; z has neither a guide nor a cost
        model = LanguageModel(7, 4, spread=Spread(prior=dist.LogNormal(-1.0, 0.3))).double()
        guide = AutoNormal(poutine.block(model, expose=["rnn.spread_1.gamma"]))
        guide(*WORDS)
        elbo = PriorAsGuide_ELBO()
        pyro.set_rng_seed(4)
        loss = elbo.loss(model, guide, *WORDS)
        pyro.set_rng_seed(4)
        guide_trace = poutine.trace(guide).get_trace(*WORDS)
        trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(*WORDS)
        gamma = guide_trace.nodes["rnn.spread_1.gamma"]
        paid = trace.nodes["x"]["fn"].log_prob(trace.nodes["x"]["value"]).sum()
        paid = paid + dist.LogNormal(-1.0, 0.3).log_prob(gamma["value"]) - guide_trace.log_prob_sum()
        torch.testing.assert_close(-loss, paid)

    def test_a_guide_equal_to_the_prior_changes_nothing(self, assert_mean):
        model = LanguageModel(7, 4, spread=Spread(prior=dist.LogNormal(-1.0, 0.3))).double()

        def guide(*_):
            pyro.sample("rnn.spread_1.gamma", dist.LogNormal(-1.0, 0.3))

        elbo = PriorAsGuide_ELBO(max_plate_nesting=1)
        draws = [elbo.loss(model, guide, *WORDS) - elbo.loss(model, None, *WORDS) for _ in range(500)]
        assert_mean(torch.stack(draws), 0.0)

    @pytest.mark.parametrize("particles", [1, 4])
    def test_sampled_spread_is_shared_by_the_sequences(self, particles):
        model = LanguageModel(7, 4, spread=Spread(prior=dist.LogNormal(-1.0, 0.3))).double()
        bound = PriorAsGuide_ELBO(particles)(model, AutoNormal(poutine.block(model, expose=["rnn.spread_1.gamma"])))
        bound(*WORDS).backward()
        assert torch.isfinite(bound(*WORDS))


class TestTraining:
    def test_svi_with_the_default_store_and_a_module_with_torch_take_the_same_step(self):
        stepped = []
        for way in ("svi", "module"):
            pyro.set_rng_seed(11)
            if way == "svi":
                model = language_model()
                svi = SVI(model, None, pyro.optim.SGD({"lr": 0.1}), PriorAsGuide_ELBO())
                loss = svi.step(*WORDS)
                assert isinstance(loss, float)
                assert len(pyro.get_param_store()) > 0
            else:
                pyro.clear_param_store()
                with pyro.settings.context(module_local_params=True):
                    model = language_model()
                    bound = PriorAsGuide_ELBO()(model)
                    optimizer = torch.optim.SGD(bound.parameters(), lr=0.1)
                    bound(*WORDS).backward()
                    optimizer.step()
                    assert len(pyro.get_param_store()) == 0
            stepped.append({name: p.detach().clone() for name, p in model.named_parameters()})
        for name, parameter in stepped[0].items():
            torch.testing.assert_close(stepped[1][name], parameter)

    def test_a_module_that_shares_a_name_does_not_share_parameters(self):
        with pyro.settings.context(module_local_params=True):
            models = [language_model(), language_model()]
            for model in models:
                PriorAsGuide_ELBO()(model)(*WORDS).backward()
            first, second = (m.rnn.spread_1.excess_unconstrained for m in models)
            assert first is not second and first.grad is not None and second.grad is not None

    def test_returned_state_is_detached_and_carries_on(self):
        model = LanguageModel(7, 4, cell="lstm").double()
        bound = PriorAsGuide_ELBO(num_particles=3)(model)
        bound(*WORDS).backward()
        state = bound.returned.state
        assert [s.shape for s in state] == [(1, 3, 3, 4)] * 2
        assert not any(s.requires_grad for s in state)
        assert not bound.returned.emission.log_prob(WORDS[1]).requires_grad
        bound(*WORDS, state=state).backward()

    def test_one_instance_serves_models_of_different_depth(self):
        elbo = PriorAsGuide_ELBO(num_particles=2)
        assert torch.isfinite(elbo.loss(language_model(), None, *WORDS))

        def deeper():
            with pyro.plate("a", 3, dim=-2), pyro.plate("b", 2, dim=-1):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(3, 2))

        assert torch.isfinite(elbo.loss(deeper, None))
        assert torch.isfinite(elbo.loss(language_model(), None, *WORDS))

    @pytest.mark.parametrize("bound", ["elbo", "importance"])
    @pytest.mark.parametrize("particles", [1, 3])
    def test_a_step_never_asks_the_device(self, bound, particles):
        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
                return func(*args, **(kwargs or {}))

        validations = ("distributions_pyro", "distributions_torch", "infer", "poutine")
        with pyro.settings.context(module_local_params=True, **{f"validate_{name}": False for name in validations}):
            for noise in ("gaussian", "gamma:multiplicative", "bernoulli", "poisson:native"):
                native = noise == "poisson:native"
                model = language_model(noise, "sigmoid" if native else "tanh", learn=not native)
                step = PriorAsGuide_ELBO(particles, bound=bound, max_plate_nesting=1)(model)
                with Watch():
                    step(*WORDS).backward()


class TestRefusals:
    def test_options(self):
        with pytest.raises(ValueError, match="num_particles must be a positive integer, got 0"):
            PriorAsGuide_ELBO(0)
        with pytest.raises(ValueError, match="bound must be one of elbo, importance, got 'iwae'"):
            PriorAsGuide_ELBO(bound="iwae")

    def test_guide_site_that_the_model_lacks(self):
        def guide(*_):
            pyro.sample("z_7", dist.Normal(0.0, 1.0))

        with pytest.raises(ValueError, match=r"guide samples 'z_7', which the model lacks.*: z_1"):
            PriorAsGuide_ELBO().loss(language_model(), guide, *WORDS)

    @pytest.mark.parametrize("view", [lambda model: model, innovations, unroll])
    def test_guide_over_a_discrete_family(self, view):
        model = view(language_model("bernoulli"))
        with pytest.raises(ValueError, match=r"bernoulli noise is discrete.* leave the site to the prior"):
            PriorAsGuide_ELBO().loss(model, poutine.block(model, hide=["x"]), *WORDS)

    def test_importance_with_a_latent_that_the_sequences_share(self):
        model = LanguageModel(7, 4, spread=Spread(prior=dist.LogNormal(-1.0, 0.3)))
        with pytest.raises(ValueError, match=r"'rnn.spread_1.gamma' is sampled outside the plate 'sequences'"):
            PriorAsGuide_ELBO(2, bound="importance").loss(model, None, *WORDS)

    def test_importance_with_unequal_scales(self):
        def model():
            with pyro.plate("sequences", 3):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                with poutine.scale(scale=0.5):
                    pyro.sample("y", dist.Normal(z, 1.0), obs=torch.zeros(3))
                pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(3))

        with pytest.raises(ValueError, match="needs one scale for all sites"):
            PriorAsGuide_ELBO(2, bound="importance").loss(model, None)

    def test_guide_over_what_the_model_observes_or_computes(self):
        model = language_model()
        guide = AutoNormal(model)
        guide(*WORDS)
        with pytest.raises(ValueError, match="'z_1', which the model computes in this view"):
            PriorAsGuide_ELBO().loss(innovations(model), guide, *WORDS)
        with pytest.raises(ValueError, match="'x', which the model observes"):
            PriorAsGuide_ELBO().loss(model, lambda inputs, targets: model(inputs), *WORDS)

    @pytest.mark.parametrize("view", [lambda model: model, unroll])
    def test_guide_over_padded_states(self, view):
        # their masked density is flat, so a wide guide would win without end
        model, lengths = view(language_model()), torch.tensor([6, 1, 0])

        def program():
            return model(*WORDS, lengths=lengths)

        with pytest.raises(ValueError, match="padded steps"):
            PriorAsGuide_ELBO().loss(program, poutine.block(program, hide=["x"]))
        in_noise = innovations(model)

        def noise_program():
            return in_noise(*WORDS, lengths=lengths)

        assert torch.isfinite(
            PriorAsGuide_ELBO().loss(noise_program, poutine.block(noise_program, expose=["z_1_noise"]))
        )

    def test_guide_over_states_whose_support_moves(self):
        model = language_model("gamma")
        with pytest.raises(ValueError, match=r"support that moves with its mean.*use innovations"):
            PriorAsGuide_ELBO().loss(model, poutine.block(model, hide=["x"]), *WORDS)
