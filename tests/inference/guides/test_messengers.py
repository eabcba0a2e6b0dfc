"""GuideMessengers, which sample in a run of the model, for all that takes a guide."""

import copy
import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormalMessenger
from pyro.poutine.guide import GuideMessenger

import noisin_pyro as nz
from noisin_pyro.data import Sequences

MESSENGERS = ["AutoNormalMessenger", "AutoHierarchicalNormalMessenger", "AutoRegressiveMessenger"]


@pytest.fixture(autouse=True)
def own_parameters():
    with pyro.settings.context(module_local_params=True):
        yield


@pytest.fixture
def model(linear_gaussian) -> nz.SequenceModel:
    """One step of one unit: z ~ N(0, 1), x ~ N(z, 1)."""
    return linear_gaussian(hidden=1)


@pytest.fixture
def data() -> Sequences:
    return Sequences(torch.zeros(4, 1, 1).double(), torch.tensor([-1.0, 0.3, 2.0, 5.0]).double().reshape(4, 1, 1))


def exact_posterior(name: str, model: nz.SequenceModel, data: Sequences) -> Any:
    """A messenger whose law is p(z | x) = N(x / 2, 1/2)."""
    guide: Any = nz.guides.get(name, model)
    guide(data.inputs, data.targets)
    guide.locs.z_1_noise = data.targets / 2
    guide.scales.z_1_noise = torch.full_like(data.targets, math.sqrt(0.5))
    return guide


def nats(data: Sequences) -> float:
    """-log p(x) of each sequence on average, which is of one step."""
    return (data.targets.square() / 4 + math.log(4 * math.pi) / 2).mean().item()


@pytest.mark.parametrize("name", MESSENGERS)
class TestWithTheExactPosterior:
    """Every sample's weight is p(x), so each number is exact."""

    @pytest.mark.parametrize("bound", ["elbo", "importance"])
    @pytest.mark.parametrize("vectorize", [True, False])
    def test_bound(self, name, bound, vectorize, model, data):
        guide = exact_posterior(name, model, data)
        elbo = nz.PriorAsGuide_ELBO(3, vectorize_particles=vectorize, bound=bound)
        loss = elbo(model, guide)(data.inputs, data.targets)
        assert loss.item() == pytest.approx(4 * nats(data), abs=1e-9)

    def test_evaluate(self, name, model, data):
        guide = exact_posterior(name, model, data)
        for each, size in ((guide, 1), (guide, 20), (copy.deepcopy(guide), 20)):
            result = nz.evaluate(model, data, guide=each, num_samples=size)
            assert (result.method, result.kind) == ("importance", "bound")
            assert result.nats_per_step == pytest.approx(nats(data), abs=1e-9)

    def test_compare(self, name, model, data):
        guide = exact_posterior(name, model, data)
        rows = nz.compare({"m": (model, guide)}, data, ["importance"], num_samples=20, seed=1).rows
        assert [row["guide"] for row in rows] == ["prior", name]
        assert rows[1]["nats_per_step"] == pytest.approx(nats(data), abs=1e-9)

    def test_posterior(self, name, model, data):
        guide = exact_posterior(name, model, data)
        draws = nz.posterior(model, data, guide, 4000, seed=1, progress=False).posterior.z_1.values[0, :, :, 0, 0]
        # 4000 draws of sd 0.71; 4.9 standard errors, a false alarm in a million for each sequence
        np.testing.assert_allclose(draws.mean(0), data.targets.flatten() / 2, atol=4.9 * math.sqrt(0.5 / 4000))


class Shift(GuideMessenger):
    """A messenger of one's own, with an auxiliary site that has the same law in the model."""

    def get_posterior(self, name: str, prior: Any) -> Any:
        if name.startswith("aux"):
            return prior
        shift = pyro.sample("aux", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        return dist.Normal(pyro.param("shift", torch.tensor(0.5)) + 0.1 * shift, 0.8)


@pytest.mark.filterwarnings("ignore:Found auxiliary vars in the model")
def test_auxiliary_sites_are_in_the_messengers_model_too():
    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(2.0))

    losses = []
    for elbo in (pyro.infer.Trace_ELBO(), nz.PriorAsGuide_ELBO()):
        pyro.set_rng_seed(1)
        losses.append(elbo.loss(model, Shift(model)))
    assert losses[1] == pytest.approx(losses[0])


class TestRefusals:
    def test_inside_another_guide(self, model, data):
        # traced as a program, its trace has x, whose density would cancel that of the model
        view = nz.innovations(model)
        messenger = AutoNormalMessenger(view)
        for elbo in (nz.PriorAsGuide_ELBO(), nz.PriorAsGuide_ELBO(2, bound="importance")):
            with pytest.raises(ValueError, match=r"guide observes 'x'.*a GuideMessenger is passed itself"):
                elbo(view, lambda *args: messenger(*args))(data.inputs, data.targets)

    def test_conditioned(self, model, data):
        guide = AutoNormalMessenger(model)
        with pytest.raises(ValueError, match="guide observes 'z"):
            z_1 = torch.zeros(*data.targets.shape[:2], model.rnn.hidden_size).to(data.targets)
            conditioned = poutine.condition(guide, data={"z_1": z_1})
            nz.PriorAsGuide_ELBO()(model, conditioned)(data.inputs, data.targets)

    def test_of_another_view(self, model, data):
        guide = AutoNormalMessenger(model)
        with pytest.raises(ValueError, match="guide samples 'z_1', which the model computes in this view"):
            nz.PriorAsGuide_ELBO()(nz.innovations(model), guide)(data.inputs, data.targets)

    def test_of_a_model_without_the_data(self, model, data):
        guide = AutoNormalMessenger(nz.innovations(lambda inputs, targets: model(inputs)))
        with pytest.raises(ValueError, match="guide samples 'x', which the model observes"):
            nz.PriorAsGuide_ELBO()(nz.innovations(model), guide)(data.inputs, data.targets)

    @pytest.mark.parametrize("name", MESSENGERS)
    def test_of_another_batch(self, name, model, data):
        guide = exact_posterior(name, model, data)
        fewer = Sequences(data.inputs[:3], data.targets[:3])
        with pytest.raises(ValueError, match=f"{name} cannot run on this batch.*amortized_plates"):
            nz.PriorAsGuide_ELBO()(model, guide)(fewer.inputs, fewer.targets)
        with pytest.raises(ValueError, match=f"{name} cannot run on this batch"):
            nz.evaluate(model, fewer, guide=guide)
        with pytest.raises(ValueError, match=f"{name} cannot run on this batch"):
            nz.posterior(model, fewer, guide, 3, progress=False)
        shared = nz.guides.get(name, model, amortized_plates=("sequences",))
        for batch in (data, fewer):
            assert nz.evaluate(model, batch, guide=shared, num_samples=2).kind == "bound"


def test_handlers_of_the_model_apply(model, data):
    # a messenger samples in its own run, but the model that is scored is the one that is given
    guide = exact_posterior("AutoNormalMessenger", model, data)
    view, losses = nz.innovations(model), []
    for program in (view, poutine.scale(view, 0.5)):
        pyro.set_rng_seed(1)
        losses.append(nz.PriorAsGuide_ELBO(kl_weight=0.0).loss(program, guide, data.inputs, data.targets))
    assert losses[1] == pytest.approx(losses[0] / 2)
