"""A guide has the shapes of the model's sites, or is refused by all that takes a guide."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal, AutoNormalMessenger

import noisin_pyro as nz
from noisin_pyro.data import Sequences

B, T, H = 4, 5, 2
SHAPES = (
    r"guide samples 'z_1(_noise)?' with batch shape .* and event shape .*, but in the model they are|"
    r"guide opens plate 'sequences' with . of . elements, but the model with . of .|cannot run on this batch"
)


def make() -> nz.SequenceModel:
    return nz.SequenceModel(nz.NoisyRNN(3, H, spread=0.5), "gaussian", 2)


def batch(rows: int = B, steps: int = T) -> Sequences:
    return Sequences(torch.randn(rows, steps, 3), torch.randn(rows, steps, 2))


def over_noise(*shape: int, plate: bool = True, site: str = "z_1_noise") -> Any:
    """A guide of a view of the model whose draws have this shape, in the plate of the sequences or outside it."""

    def guide(inputs: torch.Tensor, *_: Any, **__: Any) -> None:
        law = dist.Normal(torch.zeros(shape), 1.0).to_event(2)
        if not plate:
            pyro.sample(site, law)
            return
        with pyro.plate("sequences", len(inputs)):
            pyro.sample(site, law)

    return guide


def made_on(kind: Any, rows: int = B, steps: int = T) -> Any:
    """An automatic guide whose first run was on this batch."""

    def make_guide(model: nz.SequenceModel) -> Any:
        guide, data = kind(nz.innovations(model)), batch(rows, steps)
        guide(data.inputs, data.targets)
        return guide

    return make_guide


WRONG: dict[str, Any] = {
    "no plate": lambda _: over_noise(T, H, plate=False),
    "no plate, over states": lambda _: over_noise(T, H, plate=False, site="z_1"),
    "one step": lambda _: over_noise(B, 1, H),
    "one unit": lambda _: over_noise(B, T, 1),
    "another number of steps": lambda _: over_noise(B, T - 1, H),
    "six sequences": made_on(AutoNormal, rows=6),
    "one sequence": made_on(AutoNormal, rows=1),
    "six sequences, joint": made_on(AutoMultivariateNormal, rows=6),
    "a longer window": made_on(AutoNormal, steps=7),
    "a window of one step": made_on(AutoNormal, steps=1),
    "six sequences, messenger": made_on(AutoNormalMessenger, rows=6),
    "a longer window, messenger": made_on(AutoNormalMessenger, steps=7),
}


def bound(**options: Any) -> Any:
    return lambda model, guide, data: nz.PriorAsGuide_ELBO(**options)(model, guide)(data.inputs, data.targets)


CONSUMERS: dict[str, Any] = {
    "elbo": bound(),
    "vectorized": bound(num_particles=3),
    "vectorized, nesting given": bound(num_particles=3, max_plate_nesting=1),
    "looped": bound(num_particles=3, vectorize_particles=False),
    "importance": bound(num_particles=3, bound="importance"),
    "evaluate": lambda model, guide, data: nz.evaluate(model, data, guide=guide, num_samples=3),
    "posterior": lambda model, guide, data: nz.posterior(model, data, guide, 3, progress=False),
    "compare": lambda model, guide, data: nz.compare({"m": (model, guide)}, data, ["importance"], num_samples=3),
}


@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("name", WRONG)
def test_another_shape_is_refused(name, consumer):
    model = make()
    guide = WRONG[name](model)
    view = model if "states" in name else nz.innovations(model)
    with pytest.raises(ValueError, match=SHAPES):
        CONSUMERS[consumer](view, guide, batch())


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_one_sequence_for_a_guide_of_six(consumer):
    model = make()
    guide = made_on(AutoNormal, rows=6)(model)
    with pytest.raises(ValueError, match=r"plate 'sequences' with 6 of 6 .* 1 of 1;.*pass that batch in one call"):
        CONSUMERS[consumer](model, guide, batch(rows=1))


def test_evaluate_in_smaller_batches_is_refused():
    model, data = make(), batch()
    guide = made_on(AutoNormal)(model)
    assert nz.evaluate(model, data, guide=guide, num_samples=3).kind == "bound"
    with pytest.raises(ValueError, match=SHAPES):
        nz.evaluate(model, data, guide=guide, num_samples=3, batch_size=2)


@pytest.mark.parametrize("backend", ["scan", "fused", "loop"])
def test_the_shape_is_refused_before_the_model_uses_the_value(backend):
    model = nz.SequenceModel(nz.NoisyRNN(3, H, spread=0.5, backend=backend), "gaussian", 2)
    for shape in ((B, 1, H), (B, T, 1), (B, T + 1, H), (B + 1, T, H)):
        with pytest.raises(ValueError, match=SHAPES):
            bound()(nz.innovations(model), over_noise(*shape, plate=len(shape) > 3), batch())


class TestPlainPrograms:
    """Models and guides that Pyro's ELBOs refuse or, worse, compute with."""

    def model(self):
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.arange(4.0))

    def refused(self, model, guide, match):
        for validate in (True, False):  # Pyro compares shapes as part of its validation
            with pyro.validation_enabled(validate):
                for options in ({}, {"num_particles": 3}, {"num_particles": 3, "vectorize_particles": False}):
                    with pytest.raises(ValueError, match=match):
                        nz.PriorAsGuide_ELBO(**options).loss(model, guide)

    def test_no_plate(self):
        def guide():
            pyro.sample("z", dist.Normal(0.0, 1.0))

        match = r"'z' with batch shape \(\) and .* they are \(4,\) and \(\), with plates 'data' of size 4"
        self.refused(self.model, guide, match)

    def test_an_event_in_place_of_a_plate(self):
        self.refused(
            self.model,
            lambda: pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1)),
            r"batch shape \(\) and event shape \(4,\), but in the model they are \(4,\) and \(\)",
        )

    def test_a_plate_on_the_left(self):
        def guide():
            with pyro.plate("data", 4, dim=-2):
                pyro.sample("z", dist.Normal(0.0, 1.0))

        self.refused(self.model, guide, r"batch shape \(4, 1\)")

    def test_another_event(self):
        def model():
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=torch.tensor(0.0))

        def guide():
            pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))

        self.refused(model, guide, r"event shape \(1,\), .* \(3,\), with plates none")

    def test_a_plate_of_another_full_size(self):
        # shapes agree, but the model scales its density by 10 and the guide does not
        def model():
            with pyro.plate("data", 40, subsample=torch.arange(4)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=torch.arange(4.0))

        def guide():
            with pyro.plate("data", 4):
                pyro.sample("z", dist.Normal(0.0, 1.0))

        assert math.isfinite(Trace_ELBO().loss(model, guide))
        self.refused(model, guide, "opens plate 'data' with 4 of 4 elements, but the model with 4 of 40")

    def test_other_elements_of_a_plate(self):
        # the guide would draw elements of its own, and pair their parameters with the data of others
        model, data = make(), batch()
        guide = nz.guides.get("AutoNormal", model)
        guide(data.inputs, data.targets, size=1000)
        with pytest.raises(ValueError, match=r"plate 'sequences' with other elements than .* by create_plates"):
            nz.PriorAsGuide_ELBO()(model, guide)(data.inputs, data.targets, size=1000)
        for name in ("smoothing", "AutoNormalMessenger"):
            guide = nz.guides.get(name, model)
            assert math.isfinite(nz.PriorAsGuide_ELBO(2)(model, guide)(data.inputs, data.targets, size=1000).detach())


class TestAccepted:
    def test_computed_and_auxiliary_sites(self):
        def model():
            pyro.sample("z", dist.Normal(0.0, 1.0))

        def guide():
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.deterministic("twice", 2 * z)
            pyro.sample("unit", dist.Normal(0.0, 1.0), obs=torch.zeros(()), infer={"is_auxiliary": True})

        log_unit = -math.log(2 * math.pi) / 2
        assert nz.PriorAsGuide_ELBO().loss(model, guide) == pytest.approx(log_unit)

    def test_one_law_for_all_elements_of_a_plate(self):
        losses = []
        data = batch()
        for shape in ((1, T, H), (T, H), (B, T, H)):
            pyro.set_rng_seed(1)
            model = nz.innovations(make())
            losses.append([CONSUMERS[name](model, over_noise(*shape), data).item() for name in list(CONSUMERS)[:5]])
        assert losses[0] == losses[1] == losses[2]

    def test_a_batch_of_one_without_its_plate(self):
        data, model = batch(rows=1), nz.innovations(make())
        guide = over_noise(T, H, plate=False)
        assert math.isfinite(nz.PriorAsGuide_ELBO(3).loss(model, guide, data.inputs, data.targets))

    def test_global_latents_with_any_batch(self):
        model = nz.SequenceModel(nz.NoisyRNN(3, H, spread=nz.Spread(prior=dist.LogNormal(-1.0, 0.3))), "gaussian", 2)
        gamma = ["rnn.spread_1.gamma"]
        for kind in (AutoNormal, AutoMultivariateNormal, AutoNormalMessenger):
            guide = kind(pyro.poutine.block(model, expose=gamma))
            for rows, steps in ((6, 7), (1, 2), (4, 5)):
                data = batch(rows, steps)
                for particles in (1, 3):
                    elbo = nz.PriorAsGuide_ELBO(particles)
                    assert math.isfinite(elbo.loss(model, guide, data.inputs, data.targets))

    def test_subsampled_plates(self):
        data = torch.arange(6.0)

        def model(rows):
            with pyro.plate("data", 6, subsample=rows):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=data[rows])

        guide = AutoNormal(model, create_plates=lambda rows: pyro.plate("data", 6, subsample=rows))
        guide(torch.arange(6))
        assert guide.locs.z.shape == (6,)
        losses = []
        for elbo in (nz.PriorAsGuide_ELBO(), Trace_ELBO()):
            pyro.set_rng_seed(1)
            losses.append([elbo.loss(model, guide, rows) for rows in (torch.arange(3), torch.tensor([4, 5]))])
        assert losses[0] == pytest.approx(losses[1])

    def test_random_subsamples(self):
        def model():
            with pyro.plate("data", 20, subsample_size=5) as rows:
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=rows.float())

        for guide in (AutoNormal(model), AutoNormalMessenger(model)):
            for particles in (1, 3):
                assert math.isfinite(nz.PriorAsGuide_ELBO(particles).loss(model, guide))
