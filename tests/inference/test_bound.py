"""Use of the bound: hybrid guides, SVI and modules, return values, and errors."""

import math

import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI
from pyro.infer.autoguide import AutoNormal
from torch.utils._python_dispatch import TorchDispatchMode

from noisin_pyro import LanguageModel, PriorAsGuide_ELBO, Spread, guides, innovations, unroll

from .programs import WORDS, language_model


class Watch(TorchDispatchMode):
    """Fails on operations that wait for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return func(*args, **(kwargs or {}))


class TestHybridGuides:
    def test_kl_of_guided_sites_only(self):
        # γ has a prior and a guide; z has no guide and costs no KL
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
        assert -loss == pytest.approx(float(paid.detach()))

    @pytest.mark.slow
    def test_a_guide_equal_to_the_prior_changes_nothing(self, assert_mean):
        model = LanguageModel(7, 4, spread=Spread(prior=dist.LogNormal(-1.0, 0.3))).double()

        def guide(*_):
            pyro.sample("rnn.spread_1.gamma", dist.LogNormal(-1.0, 0.3))

        elbo = PriorAsGuide_ELBO(max_plate_nesting=1)
        draws = [elbo.loss(model, guide, *WORDS) - elbo.loss(model, None, *WORDS) for _ in range(500)]
        assert_mean(torch.tensor(draws).double(), 0.0)

    @pytest.mark.parametrize("particles", [1, 4])
    def test_sampled_spread_is_shared_by_the_sequences(self, particles):
        model = LanguageModel(7, 4, spread=Spread(prior=dist.LogNormal(-1.0, 0.3))).double()
        bound = PriorAsGuide_ELBO(particles)(model, AutoNormal(poutine.block(model, expose=["rnn.spread_1.gamma"])))
        bound(*WORDS).backward()
        assert torch.isfinite(bound(*WORDS))


class TestTraining:
    def test_svi_and_torch_optimizer_take_the_same_step(self):
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
        assert math.isfinite(elbo.loss(language_model(), None, *WORDS))

        def deeper():
            with pyro.plate("a", 3, dim=-2), pyro.plate("b", 2, dim=-1):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(3, 2))

        assert math.isfinite(elbo.loss(deeper, None))
        assert math.isfinite(elbo.loss(language_model(), None, *WORDS))

    @pytest.mark.parametrize("bound", ["elbo", "importance"])
    @pytest.mark.parametrize("particles", [1, 3])
    def test_a_step_does_not_synchronize_with_the_device(self, bound, particles):
        with self.without_validation():
            for noise in ("gaussian", "gamma:multiplicative", "bernoulli", "poisson:native"):
                native = noise == "poisson:native"
                model = language_model(noise, "sigmoid" if native else "tanh", learn=not native)
                step = PriorAsGuide_ELBO(particles, bound=bound, max_plate_nesting=1)(model)
                with Watch():
                    step(*WORDS).backward()

    @pytest.mark.parametrize("bound", ["elbo", "importance"])
    @pytest.mark.parametrize("name", ["smoothing", "AutoNormal", "AutoNormalMessenger"])
    def test_nor_with_a_guide_and_a_tensor_as_scale(self, name, bound):
        with self.without_validation():
            model = language_model()
            guide, scale = guides.get(name, model), torch.tensor(0.5, dtype=torch.float64)
            program = poutine.scale(innovations(model), scale=scale)
            step = PriorAsGuide_ELBO(3, bound=bound, max_plate_nesting=1)(program, poutine.scale(guide, scale=scale))
            step(*WORDS)  # makes the guide's parameters
            with Watch():
                step(*WORDS).backward()

    def without_validation(self):
        validations = ("distributions_pyro", "distributions_torch", "infer", "poutine")
        return pyro.settings.context(module_local_params=True, **{f"validate_{name}": False for name in validations})


class TestRefusals:
    def test_options(self):
        with pytest.raises(ValueError, match="num_particles must be a positive integer, got 0"):
            PriorAsGuide_ELBO(0)
        with pytest.raises(ValueError, match="bound must be one of elbo, importance, filtering, got 'iwae'"):
            PriorAsGuide_ELBO(bound="iwae")

    def test_guide_site_that_is_not_in_the_model(self):
        def guide(*_):
            pyro.sample("z_7", dist.Normal(0.0, 1.0))

        with pytest.raises(ValueError, match=r"guide samples 'z_7', which is not in the model.*: z_1"):
            PriorAsGuide_ELBO().loss(language_model(), guide, *WORDS)

    @pytest.mark.parametrize("view", [lambda model: model, innovations, unroll])
    def test_guide_over_a_discrete_family(self, view):
        model = view(language_model("bernoulli"))
        with pytest.raises(ValueError, match=r"bernoulli noise is discrete.* leave the site to the prior"):
            PriorAsGuide_ELBO().loss(model, poutine.block(model, hide=["x"]), *WORDS)

    @pytest.mark.parametrize("particles", [1, 3])
    @pytest.mark.parametrize("bound", ["elbo", "importance"])
    def test_a_model_whose_sites_are_hidden(self, bound, particles):
        with pytest.raises(ValueError, match=r"model has no sample site.* poutine\.block"):
            PriorAsGuide_ELBO(particles, bound=bound).loss(poutine.block(language_model()), None, *WORDS)

    def test_importance_with_a_shared_latent(self):
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

        with pytest.raises(ValueError, match="needs the same scale at all sites"):
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

        assert math.isfinite(
            PriorAsGuide_ELBO().loss(noise_program, poutine.block(noise_program, expose=["z_1_noise"]))
        )

    def test_guides_of_one_s_own_are_checked_against_the_model_s_sites(self):
        def guide(*_, **__):
            with pyro.plate("sequences", 3):
                pyro.sample("z_1_noise", dist.Normal(torch.zeros(6, 4).double(), 1.0).to_event(2))

        def per_step(*_, **__):
            with pyro.plate("sequences", 3):
                for t in range(1, 7):
                    pyro.sample(f"z_1_{t}", dist.Normal(torch.zeros(4).double(), 9.0).to_event(1))

        with pytest.raises(ValueError, match="bernoulli noise is discrete"):
            PriorAsGuide_ELBO().loss(innovations(language_model("bernoulli")), guide, *WORDS)
        with pytest.raises(ValueError, match="padded steps"):
            PriorAsGuide_ELBO().loss(unroll(language_model()), per_step, *WORDS, lengths=torch.tensor([6, 1, 0]))

    def test_guide_over_states_with_a_moving_support(self):
        model = language_model("gamma")
        with pytest.raises(ValueError, match=r"support that moves with its mean.*use innovations"):
            PriorAsGuide_ELBO().loss(model, poutine.block(model, hide=["x"]), *WORDS)
