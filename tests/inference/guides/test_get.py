"""Guides by name: which models they serve, and what is refused."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro.infer import SVI
from pyro.nn import PyroModule

import noisin_pyro as nz
from noisin_pyro.inference.guides import AUTOMATIC, NAMED

from .networks import data, make, perturbed


@pytest.fixture(autouse=True)
def own_parameters() -> Any:
    with pyro.settings.context(module_local_params=True):
        pyro.set_rng_seed(0)
        yield


@pytest.mark.parametrize("name", NAMED)
def test_guides_of_a_language_model(name: str):
    model = nz.LanguageModel(11, 6, 2, cell="lstm").double()
    guide = perturbed(nz.guides.get(name, model, hidden_size=5))
    words = torch.randint(11, (3, 8))
    bound = nz.PriorAsGuide_ELBO(2)(nz.innovations(model), guide)
    state = None
    for window in (words[:, :4], words[:, 4:]):
        loss = bound(window[:, :-1], window[:, 1:], state=state, size=30)
        loss.backward()
        state = bound.returned.state
    assert all(parameter.grad is not None for parameter in guide.parameters())


@pytest.mark.parametrize("name", AUTOMATIC)
@pytest.mark.parametrize("noise", ["gaussian", "gamma", "dirichlet"])
def test_pyro_s_automatic_guides(name: str, noise: str):
    # their parameters are float32 whatever the model's: on a simplex a float64 model would see that they are rounded
    model, batch = make(noise=noise, layers=1).float(), [x.float() for x in data(batch=2, steps=3)]
    guide = nz.guides.get(name, model)
    bound = nz.PriorAsGuide_ELBO(max_plate_nesting=1)(nz.innovations(model), guide)
    bound(*batch)  # makes the guide's parameters
    optimizer = torch.optim.Adam(guide.parameters(), 0.01)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = bound(*batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(map(math.isfinite, losses))
    assert min(losses[-10:]) < max(losses[:10])


def test_a_guide_is_returned_unchanged():
    def mine(*args: Any) -> None: ...

    assert nz.guides.get(mine, make()) is mine


@pytest.mark.parametrize(
    ("name", "options", "asked", "match"),
    [
        ("smooting", {}, {}, "guide must be one of .* did you mean 'smoothing'"),
        ("prior", {}, {}, r"'prior' is the objective without a guide: use PriorAsGuide_ELBO\(\)\(model\)"),
        ("smoothing", {"noise": "bernoulli"}, {}, "bernoulli noise is discrete"),
        ("AutoNormal", {"noise": "poisson:native", "cell": "sigmoid"}, {}, "discrete; leave it to the prior"),
        ("smoothing", {"spread": 0.0}, {}, "every spread is 0"),
        ("smoothing", {}, {"covariance": "half"}, "covariance must be one of diagonal, full"),
        ("smoothing", {}, {"hidden_size": 0}, "hidden_size must be a positive integer"),
        ("smoothing", {}, {"init_scale": 0.1}, "init_scale: not an option of the smoothing guide"),
        ("AutoNormal", {}, {"covariance": "full"}, "covariance: not an option of AutoNormal"),
    ],
)
def test_refusals(name: str, options: dict[str, Any], asked: dict[str, Any], match: str):
    with pytest.raises(ValueError, match=match):
        nz.guides.get(name, make(**options), **asked)


def test_a_view_is_refused():
    with pytest.raises(ValueError, match="not a view of it"):
        nz.guides.get("smoothing", nz.innovations(make()))  # pyright: ignore[reportArgumentType]


class OwnProgram(PyroModule):
    """Two noisy layers of different noise, and no SequenceModel."""

    def __init__(self, noise: str = "laplace") -> None:
        super().__init__()
        self.below = nz.NoisyRNN(2, 3, noise=noise, name="below", regularizer=nz.Dropout(output=0.2))
        self.above = nz.NoisyRNN(3, 2, cell="gru", name="above")

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> None:
        with pyro.plate("sequences", len(x), dim=-1):
            z, _ = self.above(self.below(x)[0])
            pyro.sample("y", dist.Normal(z.sum(-1), 1.0).to_event(1), obs=y)


def test_automatic_guides_serve_any_module_with_noisy_layers():
    model, x, y = OwnProgram(), torch.randn(4, 5, 2), torch.randn(4, 5)
    guide = nz.guides.get("AutoNormal", model, init_scale=0.01)
    assert torch.isfinite(nz.PriorAsGuide_ELBO()(model, guide)(x, y))
    assert set(guide(x, y)) == {"below_1_noise", "above_1_noise"}


@pytest.mark.parametrize(
    ("name", "model", "match"),
    [
        ("smoothing", OwnProgram(), "'smoothing' needs a SequenceModel, .* an automatic guide; got a OwnProgram"),
        ("AutoNormal", torch.nn.Linear(2, 2), "a module with NoisyRNN layers, .* got a Linear"),
        ("AutoNormal", lambda x: x, r"AutoNormal\(noisin_pyro.innovations\(program\)\); got a function"),
        ("AutoNormal", OwnProgram("poisson"), "poisson noise is discrete"),
    ],
)
def test_programs_that_no_guide_of_that_name_serves(name: str, model: Any, match: str):
    with pytest.raises(ValueError, match=match):
        nz.guides.get(name, model)


def test_missing_targets_are_refused():
    model = make()
    with pytest.raises(ValueError, match="targets must be given"):
        nz.guides.get("smoothing", model)(data()[0])


def test_custom_guide_of_innovations_is_refused_on_the_model_itself():
    model = make()
    guide = nz.guides.get("smoothing", model)
    with pytest.raises(ValueError, match=r"is not in the model; .* are: z_1, z_2; pass innovations\(model\)"):
        nz.PriorAsGuide_ELBO()(model, lambda *args, **kwargs: guide(*args, **kwargs))(*data())


def test_svi_trains_several_guides_with_the_global_store():
    model = make()
    view = nz.innovations(model)
    with pyro.settings.context(module_local_params=False), pyro.get_param_store().scope():
        for name in ("smoothing", "filtering", "smoothing"):
            guide = nz.guides.get(name, model)
            before = {parameter: value.clone() for parameter, value in guide.named_parameters()}
            svi = SVI(view, guide, pyro.optim.Adam({"lr": 0.01}), nz.PriorAsGuide_ELBO(2))
            for _ in range(3):
                svi.step(*data())
            moved = [not torch.equal(value, before[parameter]) for parameter, value in guide.named_parameters()]
            assert all(moved)
