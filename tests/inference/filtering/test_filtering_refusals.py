"""What the filtering bound refuses."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal

import noisin_pyro as nz
from noisin_pyro import PriorAsGuide_ELBO, SequenceModel, innovations

from ...small_layers import make_rnn
from .programs import BATCH, OUTPUTS, PARTICLES, STEPS, data, filtering, make


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"bound": "elbo", "threshold": 0.5}, "threshold=0.5 has no effect on bound='elbo'"),
            (
                {"bound": "importance", "ancestor_term": False},
                "ancestor_term=False has no effect on bound='imp",
            ),
            ({"bound": "filtering", "threshold": 1.5}, "threshold must be from 0"),
            ({"bound": "filtering", "threshold": "0.5"}, "threshold must be from 0 .* got '0.5'"),
            (
                {"bound": "filtering", "threshold": 0, "ancestor_term": True},
                "ancestor_term=True has no effect on threshold",
            ),
            ({"bound": "filtering", "vectorize_particles": False}, "vectorize_particles=False has no effect"),
            ({"bound": "filter"}, "bound must be one of elbo, importance, filtering"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            PriorAsGuide_ELBO(**options)

    def test_kl_weight(self):
        bound = filtering(make())
        bound.elbo.kl_weight = 0.5
        with pytest.raises(ValueError, match=r"kl_weight=0\.5 is not for bound='filtering'"):
            bound(*data())

    def test_programs(self):
        model, arguments = make(), data()
        for program in (nz.noise_off(model), poutine.scale(model, 0.5), lambda *a, **k: model(*a, **k)):
            with pytest.raises(ValueError, match=r"needs a SequenceModel, got (View|function|ScaleMessenger)"):
                filtering(program)(*arguments)
        with pytest.raises(ValueError, match="'z_1' is conditioned on"):
            filtering(pyro.condition(model, {"z_1": torch.zeros(BATCH, STEPS, 3)}))(*arguments)
        with pytest.raises(ValueError, match="'x' is conditioned on"):
            filtering(pyro.condition(model, {"x": arguments[1]}))(*arguments)
        for handler in (poutine.condition, poutine.do):  # around the call, not the model
            around: Any = handler(data={"z_1": torch.zeros(BATCH, STEPS, 3)})  # pyright: ignore[reportCallIssue]
            with around, pytest.raises(ValueError, match="'z_1' is conditioned on"):
                filtering(model)(*arguments)
        for view, name, shape in ((innovations, "z_1_noise", (STEPS, 3)), (nz.unroll, "z_1_2", (3,))):
            given = pyro.condition(view(model), {name: torch.zeros(BATCH, *shape)})
            with pytest.raises(ValueError, match=f"samples the states, but '{name}' is conditioned on"):
                filtering(given)(*arguments)
        with pytest.raises(ValueError, match="does not support dropout masks"):
            filtering(make(regularizer="D"))(*arguments)
        with pytest.raises(ValueError, match="targets must be given"):
            filtering(model)(arguments[0])
        with pytest.raises(ValueError, match=r"targets must have shape \(\.\.\., 3, 5, 4\)"):
            filtering(model)(arguments[0], arguments[1][..., :2])
        bound = filtering(model)
        bound(*arguments)
        with pytest.raises(ValueError, match=r"state must have z of shape \(1, 5, 3, 3\)"):
            filtering(model, particles=5)(*arguments, state=bound.returned.state)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"lengths": torch.tensor([9, 5, 5])}, "lengths must be from 0 to 5, got 5 to 9"),
            ({"lengths": torch.tensor([-1, 2, 3])}, "lengths must be from 0 to 5, got -1 to 3"),
            ({"lengths": torch.tensor([2.5, 3.0, 3.0])}, "lengths must be a tensor of integers"),
            ({"lengths": [5, 4, 3]}, "lengths must be a tensor of integers"),
            ({"lengths": torch.tensor([5, 5])}, r"lengths must be a tensor of integers, \(3,\)"),
            ({"mask": torch.ones(1, BATCH, STEPS).bool()}, "mask must have no axes in front of the batch"),
            ({"targets": torch.zeros(1, BATCH, STEPS, OUTPUTS)}, "targets must have no axes in front of the batch"),
            ({"inputs": torch.zeros(1, BATCH, STEPS, 2)}, r"inputs must have the axes \(batch, time, features\)"),
            ({"inputs": torch.zeros(STEPS, 2)}, r"inputs must have the axes \(batch, time, features\)"),
            (
                {"inputs": torch.zeros(0, STEPS, 2), "targets": torch.zeros(0, STEPS, OUTPUTS)},
                "inputs must contain at least one sequence",
            ),
            ({"targets": torch.full((BATCH, STEPS, OUTPUTS), 0.5)}, "targets must be in the support of the emission"),
            ({"targets": torch.full((BATCH, STEPS, OUTPUTS), math.inf)}, "targets must be finite"),
            ({"targets": torch.tensor([math.nan, 1, 0, 1]).expand(BATCH, STEPS, 4)}, "single values are missing"),
            ({"size": 2}, "size .* must be an integer of at least 3"),
        ],
    )
    def test_batches_that_the_model_refuses(self, change, message):
        inputs, targets = data()
        arguments = {"inputs": inputs, "targets": targets} | change
        for bound in (filtering(make()), *([PriorAsGuide_ELBO()(make())] if "axes" not in message else [])):
            with pytest.raises(ValueError, match=message):
                bound(**arguments)

    def test_what_it_returned_is_not_the_state(self):
        bound, arguments = filtering(make()), data()
        bound(*arguments)
        with pytest.raises(ValueError, match=r"state must be tensors, got FilteringOutput.*bound\.returned\.state"):
            bound(*arguments, state=bound.returned)

    def test_options_that_are_set_later(self):
        bound, arguments = filtering(make()), data()
        bound.elbo.num_particles = 2 * PARTICLES
        bound(*arguments)
        assert bound.returned.state[0].shape[1] == 2 * PARTICLES
        with pytest.raises(ValueError, match="ancestor_term must be True or False, got 'no'"):
            filtering(make(), ancestor_term="no")

    def test_there_are_no_weights_of_whole_samples(self):
        with pytest.raises(ValueError, match="no weights of whole samples, since particles are resampled"):
            PriorAsGuide_ELBO(PARTICLES, bound="filtering").log_weights(make(), None, *data())

    def test_masks_and_scales_around_the_call_are_those_of_the_sequences(self):
        bound, arguments, values = filtering(make()), data(), []
        mask = torch.tensor([True, False, True])
        for handler in (poutine.scale(scale=1.0), poutine.mask(mask=mask), poutine.scale(scale=3.0)):
            pyro.set_rng_seed(0)
            with torch.no_grad(), handler:
                values.append(bound(*arguments))
        torch.testing.assert_close(values[1], -bound.returned.log_likelihood[mask].sum())
        torch.testing.assert_close(values[2], 3 * values[0])

    def test_a_forward_of_ones_own(self):
        class Masked(SequenceModel):
            def forward(self, *args: Any, **kwargs: Any) -> Any:
                with poutine.mask(mask=torch.tensor([True, False, True])):
                    return super().forward(*args, **kwargs)

        model, arguments = Masked(make_rnn(), "bernoulli", OUTPUTS).double(), data()
        with pytest.raises(ValueError, match=r"without Masked\.forward"):
            filtering(model)(*arguments)
        with pytest.raises(ValueError, match=r"without Masked\.forward"):
            nz.posterior(model, nz.data.Sequences(*arguments), method="smoother", num_samples=4, progress=False)

    @pytest.mark.parametrize("module", ["", "rnn"])
    @pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
    def test_hooks(self, register, module):
        model, arguments = make(), data()
        getattr(model.get_submodule(module), register)(lambda *_: None)
        with pytest.raises(ValueError, match=r"step by step, without the forward hooks of"):
            filtering(model)(*arguments)

    def test_hooks_of_weight_norm_but_not_its_parametrization(self):
        model, arguments = make(), data()
        torch.nn.utils.parametrizations.weight_norm(model.rnn, "weight_hh_l0")
        bound = filtering(model)
        for _ in range(2):
            bound(*arguments).backward()
        assert model.rnn.parametrizations.weight_hh_l0.original0.grad.any()
        model = make()
        with pytest.warns(FutureWarning):
            torch.nn.utils.weight_norm(model.rnn, "weight_hh_l0")
        with pytest.raises(ValueError, match=r"use torch\.nn\.utils\.parametrizations\.weight_norm"):
            filtering(model)(*arguments)

    def test_handlers_have_remedies(self):
        model, arguments = make(), data()
        lifted = poutine.lift(model, prior={"rnn.bias_hh_l0": dist.Normal(torch.zeros(3), 1.0).to_event(1)})
        for program, remedy in (
            (poutine.scale(model, 0.5), r"enter poutine\.scale\(scale=\.\.\.\) around the call"),
            (poutine.mask(model, torch.tensor(True)), "mark missing targets by the argument mask"),
            (lifted, "place the priors on the model"),
        ):
            with pytest.raises(ValueError, match=remedy):
                filtering(program)(*arguments)

    def test_native_poisson_without_the_ancestor_term_or_with_one_particle(self):
        model = make(cell="sigmoid", noise="poisson:native")
        for options in ({"ancestor_term": False}, {"particles": 1}):
            with pytest.raises(ValueError, match=r"poisson.* use ancestor_term=True and num_particles of at least 2"):
                filtering(model, **options)(*data())
        assert filtering(model)(*data()).requires_grad

    def test_guides(self):
        model, other, (inputs, x) = make(), make(), data()
        with pytest.raises(ValueError, match="made for another model"):
            filtering(model, nz.guides.get("smoothing", other))(inputs, x)
        with pytest.raises(ValueError, match="the guide samples 'z_1_noise' of whole sequences"):
            filtering(model, AutoNormal(innovations(model)))(inputs, x)
        with pytest.raises(ValueError, match="draws the noise step by step, and AutoNormal draws whole sequences"):
            sequences = nz.data.Sequences(inputs, x)
            nz.evaluate(model, sequences, "particle-filter", guide=AutoNormal(innovations(model)))
