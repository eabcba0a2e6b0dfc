"""With a guide of innovations, the model and ``innovations(model)`` give the same results."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro.infer import SVI
from pyro.infer.autoguide import AutoNormal

import noisin_pyro as nz
from noisin_pyro.data import Sequences
from noisin_pyro.inference.guides.view import view_for

GUIDES = ["mean-field", "filtering", "smoothing", "AutoNormal", "own AutoNormal"]


def make(**options: Any) -> nz.SequenceModel:
    return nz.SequenceModel(nz.NoisyRNN(2, 3, 2, **{"spread": 0.5, **options}), "bernoulli", 4).double()


@pytest.fixture
def data() -> Sequences:
    x = torch.bernoulli(torch.full((3, 5, 4), 0.5)).double()
    return Sequences(torch.randn(3, 5, 2).double(), x, torch.tensor([5, 3, 4]))


def guide_of(name: str, model: nz.SequenceModel, data: Sequences) -> Callable[..., Any]:
    guide = AutoNormal(nz.innovations(model)) if name.startswith("own") else nz.guides.get(name, model)
    guide(data.inputs, data.targets, lengths=data.lengths)  # automatic guides make their parameters in the first call
    for parameter in guide.parameters():
        parameter.data = parameter.data.double() + 0.01 * torch.randn_like(parameter.data).double()
    return guide


def both(model: nz.SequenceModel, score: Callable[[Any], Any]) -> tuple[Any, Any]:
    """The results for the model and for its view, with the same seed."""
    results = []
    for program in (model, nz.innovations(model)):
        pyro.set_rng_seed(3)
        results.append(score(program))
    return results[0], results[1]


@pytest.mark.parametrize("name", GUIDES)
class TestBothFormsAgree:
    @pytest.mark.parametrize("bound", ["elbo", "importance"])
    @pytest.mark.parametrize("vectorized", [True, False])
    def test_bounds_and_their_gradients(self, name, bound, vectorized, data):
        model = make()
        guide = guide_of(name, model, data)

        def loss_and_gradients(program):
            objective = nz.PriorAsGuide_ELBO(3, vectorized, bound)(program, guide)
            objective.zero_grad()
            loss = objective(data.inputs, data.targets, lengths=data.lengths)
            loss.backward()
            return loss.detach(), [p.grad.clone() for p in objective.parameters() if p.grad is not None]

        (loss, gradients), (expected, expected_gradients) = both(model, loss_and_gradients)
        assert torch.equal(loss, expected)
        for gradient, other in zip(gradients, expected_gradients, strict=True):
            assert torch.equal(gradient, other)

    def test_evaluate(self, name, data):
        model = make()
        guide = guide_of(name, model, data)
        one, two = both(model, lambda program: nz.evaluate(program, data, guide=guide, num_samples=30))
        assert one == two and (one.method, one.kind) == ("importance", "bound")

    def test_posterior(self, name, data):
        model = make()
        guide = guide_of(name, model, data)
        one, two = both(model, lambda program: nz.posterior(program, data, guide, 20, seed=1, progress=False))
        np.testing.assert_array_equal(one.posterior.z_2, two.posterior.z_2)
        np.testing.assert_array_equal(one.sample_stats.pareto_k, two.sample_stats.pareto_k)

    def test_compare(self, name, data):
        model = make()
        guide = guide_of(name, model, data)
        one, two = both(model, lambda program: nz.compare({"m": (program, guide)}, data, num_samples=20, seed=1).rows)
        assert [row | {"seconds_per_step": None} for row in one] == [row | {"seconds_per_step": None} for row in two]
        assert len(one) == 5 + isinstance(guide, nz.guides.Guide)  # a named guide is a proposal too


def test_both_forms_agree_for_native_beta(data):
    model = make(cell="sigmoid", noise="beta", spread=0.2)
    guide = guide_of("smoothing", model, data)
    one, two = both(model, lambda program: nz.evaluate(program, data, guide=guide, num_samples=30))
    assert one == two


def test_svi_takes_the_model_and_its_guide(data):
    model = make()
    with pyro.settings.context(module_local_params=False), pyro.get_param_store().scope():
        guide = nz.guides.get("smoothing", model)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), nz.PriorAsGuide_ELBO(2))
        before = {name: value.clone() for name, value in guide.named_parameters()}
        for _ in range(3):
            svi.step(data.inputs, data.targets, lengths=data.lengths)
        assert not all(torch.equal(value, before[name]) for name, value in guide.named_parameters())


class TestTheView:
    def test_is_not_applied_for_custom_guides(self):
        model = make()

        def own(*args, **kwargs):
            pyro.sample("z_1_noise", dist.Normal(0.0, 1.0))

        assert view_for(None, model) is model
        assert view_for(own, model) is model
        assert view_for(AutoNormal(model), model) is model

    def test_is_applied_once(self):
        model = make()
        guide = nz.guides.get("smoothing", model)
        for program in (nz.innovations(model), pyro.condition(nz.innovations(model), {}), nz.unroll(model)):
            assert view_for(guide, program) is program

    def test_is_applied_for_automatic_guides_with_dropout(self):
        model = nz.LanguageModel(5, 3, regularizer="variational-dropout", spread=0.5)
        view: Any = view_for(nz.guides.get("AutoNormal", model), model)
        assert view is not model and view.model is model

    def test_does_not_turn_the_noise_on_again(self, data):
        model = make()
        bound = nz.PriorAsGuide_ELBO()(nz.noise_off(model), nz.guides.get("smoothing", model))
        with pytest.raises(ValueError, match="is not in the model"):
            bound(data.inputs, data.targets)
