"""The bound with every kind of guide that Pyro has: draws as in Trace_ELBO, and exact where the guide is."""

import inspect
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions.transforms import affine_autoregressive, iterated
from pyro.infer import Trace_ELBO, autoguide
from pyro.infer.autoguide import AutoGuideList, AutoNormal
from pyro.poutine.guide import GuideMessenger

import noisin_pyro as nz
from noisin_pyro import PriorAsGuide_ELBO

ABSTRACT = {"AutoContinuous", "AutoGuide", "AutoMessenger"}
CONTINUOUS: dict[str, Any] = {
    name: getattr(autoguide, name)
    for name in (
        "AutoDelta",
        "AutoDiagonalNormal",
        "AutoGaussian",
        "AutoHierarchicalNormalMessenger",
        "AutoIAFNormal",
        "AutoLaplaceApproximation",
        "AutoLowRankMultivariateNormal",
        "AutoMultivariateNormal",
        "AutoNormal",
        "AutoNormalMessenger",
        "AutoRegressiveMessenger",
        "AutoStructured",
    )
}
CONTINUOUS["AutoNormalizingFlow"] = partial(
    autoguide.AutoNormalizingFlow, init_transform_fn=partial(iterated, 2, affine_autoregressive)
)


def of_parts(model):
    """An AutoGuideList of automatic guides and a program of one's own, which Pyro wraps in an AutoCallable."""
    guide = AutoGuideList(model)
    guide.append(AutoNormal(poutine.block(model, expose=["m"])))

    def rest(*_):
        pyro.sample("s", dist.LogNormal(0.1, 0.3))

    guide.append(rest)
    guide.append(AutoNormal(poutine.block(model, expose=["z"])))
    return guide


class Amortized(GuideMessenger):
    """A GuideMessenger that is not a module: each posterior is a function of the prior and of the model's data."""

    def get_posterior(self, name: str, prior: Any) -> Any:
        (x,), _ = self.args_kwargs
        if name == "s":
            return dist.LogNormal(pyro.param("s_loc", torch.tensor(0.2)), 0.3)
        weight = pyro.param(f"{name}_weight", torch.tensor(0.4))
        return dist.Normal(prior.loc + weight * (x if name == "z" else x.mean()), 0.5)


GUIDES: dict[str, Any] = {**CONTINUOUS, "AutoGuideList": of_parts, "GuideMessenger": Amortized}
X = torch.tensor([0.4, -1.0, 2.0])


@pytest.fixture(autouse=True)
def own_parameters():
    with pyro.settings.context(module_local_params=True):
        yield


def hierarchical(x):
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    s = pyro.sample("s", dist.LogNormal(0.0, 0.5))
    with pyro.plate("data", 3):
        z = pyro.sample("z", dist.Normal(m, s))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def discrete(x):
    with pyro.plate("data", 3):
        b = pyro.sample("b", dist.Bernoulli(torch.tensor([0.3, 0.5, 0.6])))
        pyro.sample("x", dist.Normal(b, 1.0), obs=x)


def test_these_are_all_of_pyro_s():
    kinds = {name for name in autoguide.__all__ if inspect.isclass(getattr(autoguide, name))}
    assert kinds - ABSTRACT == {*CONTINUOUS, "AutoGuideList", "AutoCallable", "AutoDiscreteParallel"}


def loss_and_gradients(elbo, model, guide, *args) -> list[torch.Tensor]:
    """The loss and its gradient with respect to every parameter, at one seed."""
    pyro.set_rng_seed(1)
    loss = elbo.differentiable_loss(model, guide, *args)
    leaves = [value for _, value in pyro.get_param_store().named_parameters()]
    leaves += guide.parameters() if isinstance(guide, torch.nn.Module) else []
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    assert leaves and any(g is not None and g.abs().max() > 0 for g in gradients)
    return [loss.detach(), *(torch.zeros(()) if g is None else g for g in gradients)]


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("name", GUIDES)
def test_equals_trace_elbo(name, particles):
    guide = GUIDES[name](hierarchical)
    guide(X)  # makes the parameters
    options = {"num_particles": particles, "vectorize_particles": particles > 1, "max_plate_nesting": 1}
    ours, theirs = (
        loss_and_gradients(elbo, hierarchical, guide, X)
        for elbo in (PriorAsGuide_ELBO(**options), Trace_ELBO(**options))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings(r"ignore:[\s\S]*you need to use TraceEnum_ELBO")
def test_automatic_guide_of_discrete_sites_equals_trace_elbo():
    guide = autoguide.AutoDiscreteParallel(discrete)
    guide(X)
    ours, theirs = (loss_and_gradients(elbo, discrete, guide, X) for elbo in (PriorAsGuide_ELBO(), Trace_ELBO()))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("vectorize", [False, True])
@pytest.mark.parametrize("name", GUIDES)
def test_the_first_run_may_be_in_the_particles_plate(name, vectorize):
    # parameters are made in the first run; they are those of one sample
    options = {"num_particles": 3, "vectorize_particles": vectorize, "max_plate_nesting": 1}
    guide = GUIDES[name](hierarchical)
    PriorAsGuide_ELBO(**options).loss(hierarchical, guide, X)
    if isinstance(guide, torch.nn.Module):
        shapes = {parameter: tuple(value.shape) for parameter, value in guide.named_parameters()}
        other = GUIDES[name](hierarchical)
        other(X)
        assert shapes == {parameter: tuple(value.shape) for parameter, value in other.named_parameters()}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_guide_of_global_sites_leaves_the_rest_to_the_prior(name):
    # the rule by its definition: log p(x | z) of the model's own draw, and the guided sites' log p - log q
    guide = CONTINUOUS[name](poutine.block(hierarchical, hide=["z", "x"]))
    pyro.set_rng_seed(0)
    guide(X)
    pyro.set_rng_seed(1)
    loss = PriorAsGuide_ELBO().loss(hierarchical, guide, X)
    pyro.set_rng_seed(1)
    if isinstance(guide, GuideMessenger):
        guide(X)
        guide_trace = guide.get_traces()[1]
    else:
        guide_trace = poutine.trace(guide).get_trace(X)
    model_trace = poutine.trace(poutine.replay(hierarchical, guide_trace)).get_trace(X)
    paid = model_trace.log_prob_sum(lambda site, _: site != "z") - guide_trace.log_prob_sum()
    assert -loss == pytest.approx(paid.item(), abs=1e-4)


# the parameters of N(mean, sd²), and of no correlation with x, in each guide that contains the posterior
POSTERIOR: dict[str, Any] = {
    "AutoNormal": lambda mean, sd: {"locs.z": mean, "scales.z": sd},
    "AutoDiagonalNormal": lambda mean, sd: {"loc": mean.reshape(1), "scale": sd.reshape(1)},
    "AutoMultivariateNormal": lambda mean, sd: {
        "loc": mean.reshape(1),
        "scale": sd.reshape(1),
        "scale_tril": torch.ones(1, 1),
    },
    "AutoNormalMessenger": lambda mean, sd: {"locs.z": mean, "scales.z": sd},
    "AutoHierarchicalNormalMessenger": lambda mean, sd: {"locs.z": mean, "scales.z": sd},  # the prior's mean is 0
    "AutoRegressiveMessenger": lambda mean, sd: {"locs.z": mean, "scales.z": sd},  # mean + sd · a draw from N(0, 1)
}


def conjugate(x):
    z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
    pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize("name", POSTERIOR)
def test_the_exact_posterior_gives_the_exact_likelihood(name):
    x = torch.tensor(5.0)
    guide = CONTINUOUS[name](conjugate)
    guide(x)
    for path, value in POSTERIOR[name](torch.tensor(2.5), torch.tensor(0.5**0.5)).items():
        *parents, leaf = path.split(".")
        owner = guide
        for parent in parents:
            owner = getattr(owner, parent)
        is_plain = leaf in dict(owner.named_parameters(recurse=False))
        setattr(owner, leaf, torch.nn.Parameter(value) if is_plain else value)
    exact = -dist.Normal(0.0, 2.0**0.5).log_prob(x).item()
    for particles in (1, 4):
        assert PriorAsGuide_ELBO(particles).loss(conjugate, guide, x) == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize("name", [name for name in CONTINUOUS if "Messenger" in name])
def test_training_a_messenger_finds_the_posterior(name):
    # N(2.5, 1/2). If log p(x) cancels, what is left is the KL, whose minimum is the prior
    x = torch.tensor(5.0)
    guide = CONTINUOUS[name](conjugate)
    bound = PriorAsGuide_ELBO(20)(conjugate, guide)
    bound(x)
    optimizer = torch.optim.Adam(bound.parameters(), lr=0.2)
    for _ in range(80):
        optimizer.zero_grad()
        bound(x).backward()
        optimizer.step()
    with torch.no_grad(), pyro.plate("draws", 2000):
        draws = guide(x)["z"]
    # 2000 draws of sd 0.71: a mean with standard error 0.016, beside the optimizer's own error
    assert draws.mean() == pytest.approx(2.5, abs=0.15)
    assert draws.std() == pytest.approx(0.5**0.5, abs=0.1)


class TestNoisyModels:
    """The same guides over the innovations, and the states, of a noisy RNN."""

    inputs, x = torch.linspace(-1, 1, 60).reshape(4, 5, 3), torch.linspace(1, -1, 40).reshape(4, 5, 2)

    def make(self, **options):
        return nz.SequenceModel(nz.NoisyRNN(3, 2, spread=0.5, **options), "gaussian", 2)

    @pytest.mark.parametrize("name", CONTINUOUS)
    @pytest.mark.parametrize("particles", [1, 3])
    def test_equals_trace_elbo_on_innovations(self, name, particles):
        view = nz.innovations(self.make())
        guide = CONTINUOUS[name](view)
        guide(self.inputs, self.x)
        options = {"num_particles": particles, "vectorize_particles": particles > 1, "max_plate_nesting": 1}
        losses = []
        for elbo in (PriorAsGuide_ELBO(**options), Trace_ELBO(**options)):
            pyro.set_rng_seed(1)
            losses.append(elbo.loss(view, guide, self.inputs, self.x))
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)

    @pytest.mark.parametrize("name", [name for name in CONTINUOUS if "Hierarchical" not in name])
    def test_equals_trace_elbo_on_states(self, name):
        model = self.make()
        guide = CONTINUOUS[name](model)
        guide(self.inputs, self.x)
        losses = []
        for elbo in (PriorAsGuide_ELBO(), Trace_ELBO()):
            pyro.set_rng_seed(1)
            losses.append(elbo.loss(model, guide, self.inputs, self.x))
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)

    def test_a_hierarchical_guide_of_states_is_refused(self):
        model = self.make()
        with pytest.raises(ValueError, match=r"no mean, variance or loc in closed form.*use innovations\(model\)"):
            PriorAsGuide_ELBO().loss(model, autoguide.AutoHierarchicalNormalMessenger(model), self.inputs, self.x)

    @pytest.mark.parametrize("name", [name for name in CONTINUOUS if "Messenger" in name])
    @pytest.mark.parametrize("noise", ["gaussian", "gamma", "dirichlet", "gumbel"])
    def test_messengers_over_every_kind_of_support(self, name, noise):
        model = self.make(noise=noise)
        guide = nz.guides.get(name, model)
        bound = PriorAsGuide_ELBO(2)(model, guide)
        bound(self.inputs, self.x)
        bound.zero_grad()
        bound(self.inputs, self.x).backward()
        assert model.emission.linear.weight.grad.abs().sum() > 0
        for parameter, value in guide.named_parameters():  # a weight of the prior's mean has no effect where that is 0
            assert torch.isfinite(value.grad).all()
            assert value.grad.abs().sum() > 0 or parameter.startswith("weights")
        assert bound.returned.state.shape == (1, 2, 4, 2)

    def test_a_messenger_with_dropout_leaves_the_masks_to_the_prior(self):
        model = nz.LanguageModel(5, 3, regularizer="variational-dropout", spread=0.5)
        words = torch.randint(5, (2, 4, 6))
        guide = nz.guides.get("AutoNormalMessenger", model)
        assert PriorAsGuide_ELBO(3)(model, guide)(*words) > 0
        sites = {name.partition(".")[2].removesuffix("_unconstrained") for name, _ in guide.named_parameters()}
        assert sites == {"z_1_noise"}
