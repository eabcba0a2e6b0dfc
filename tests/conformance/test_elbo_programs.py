"""The bound beside Pyro's other tools: parameter stores, SVI, Predictive, scopes, reparametrizations and the JIT."""

import math
import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro import poutine
from pyro.contrib.autoname import scope
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    JitTrace_ELBO,
    JitTraceGraph_ELBO,
    JitTraceMeanField_ELBO,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
)
from pyro.infer.autoguide import AutoNormal, AutoNormalMessenger
from pyro.infer.reparam import AutoReparam, LocScaleReparam, MinimalReparam
from pyro.nn import PyroModule

import noisin_pyro as nz
from noisin_pyro import PriorAsGuide_ELBO

from .exact import X, draws, parameters

GENERATOR = torch.Generator().manual_seed(1)
INPUTS, TARGETS = torch.randn(4, 5, 3, generator=GENERATOR), torch.randn(4, 5, 2, generator=GENERATOR)


def make(**options: Any) -> nz.SequenceModel:
    return nz.SequenceModel(nz.NoisyRNN(3, 2, **{"spread": 0.5, **options}), "gaussian", 2)


class TestKeywords:
    """Those of Pyro's ELBOs."""

    def test_floats(self):
        elbo, model = PriorAsGuide_ELBO(), make()
        for name in ("loss", "loss_and_grads"):
            value = getattr(elbo, name)(model, None, INPUTS, TARGETS)
            assert type(value) is type(
                getattr(Trace_ELBO(), name)(model, poutine.block(model, hide=["x"]), INPUTS, TARGETS)
            )
        assert isinstance(elbo.differentiable_loss(model, None, INPUTS, TARGETS), torch.Tensor)

    @pytest.mark.parametrize(
        "options",
        [
            {"max_iarange_nesting": None},
            {"ignore_jit_warnings": False},
            {"jit_options": None},
            {"tail_adaptive_beta": -1.0},
            {"strict_enumeration_warning": False},
            {"retain_graph": True},
        ],
    )
    def test_are_accepted(self, options):
        assert math.isfinite(PriorAsGuide_ELBO(**options).loss_and_grads(make(), None, INPUTS, TARGETS))

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"max_iarange_nesting": 1}, "renamed it to max_plate_nesting"),
            ({"ignore_jit_warnings": True}, "nothing is compiled"),
            ({"jit_options": {"check_trace": True}}, "nothing is compiled"),
            ({"tail_adaptive_beta": -0.5}, "TraceTailAdaptive_ELBO"),
        ],
    )
    def test_are_refused_without_a_meaning(self, options, reason):
        with pytest.raises(ValueError, match=f"{next(iter(options))}=.* is not supported: .*{reason}"):
            PriorAsGuide_ELBO(**options)

    def test_an_unknown_one_is_a_type_error(self):
        with pytest.raises(TypeError, match="unexpected keyword argument 'particles'"):
            PriorAsGuide_ELBO(particles=3)
        with pytest.raises(TypeError):
            PriorAsGuide_ELBO(3, 1)  # pyright: ignore[reportCallIssue]  Pyro's second is max_plate_nesting

    def test_retain_graph(self):
        model = make()
        scale = torch.tensor(2.0, requires_grad=True)
        shared = scale.square()
        program = poutine.scale(lambda: model(INPUTS, TARGETS), scale=shared)
        elbo = PriorAsGuide_ELBO(retain_graph=True)
        elbo.loss_and_grads(program, None)
        elbo.loss_and_grads(program, None)
        assert scale.grad is not None

    def test_nan_warns(self):
        with pytest.warns(UserWarning, match="Encountered NaN: loss"), pyro.validation_enabled(False):
            assert math.isnan(PriorAsGuide_ELBO().loss(make(), None, INPUTS, TARGETS * math.nan))


class TestWarnings:
    """Those of Pyro's ELBOs."""

    def discrete(self):
        b = pyro.sample("b", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(b, 1.0), obs=X[0].float())

    def test_of_sites_configured_for_enumeration(self):
        def guide():
            pyro.sample("b", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})

        for elbo, given in ((Trace_ELBO(), guide), (PriorAsGuide_ELBO(), guide), (PriorAsGuide_ELBO(), None)):
            with pytest.warns(UserWarning, match="you need to use TraceEnum_ELBO"):
                elbo.loss(self.discrete, given)
        PriorAsGuide_ELBO(strict_enumeration_warning=False).loss(self.discrete, None)

    def test_of_plates_that_the_model_lacks(self):
        def model():
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=X[0].float())

        def guide():
            with pyro.plate("data", 10, subsample_size=2):
                pass
            pyro.sample("z", dist.Normal(0.0, 1.0))

        for elbo in (Trace_ELBO(), PriorAsGuide_ELBO()):
            with pytest.warns(UserWarning, match="Found plate statements in guide but not model"):
                elbo.loss(model, guide)

    def test_none_of_sites_that_are_left_to_the_prior(self):
        model = make(spread=nz.Spread(prior=dist.LogNormal(-1.0, 0.3)))
        guide = AutoNormal(poutine.block(model, expose=["rnn.spread_1.gamma"]))
        with pytest.warns(UserWarning, match="Found vars in model but not guide: {'z_1'}"):
            Trace_ELBO().loss(model, guide, INPUTS, TARGETS)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            PriorAsGuide_ELBO().loss(model, guide, INPUTS, TARGETS)


def test_score_functions_agree_with_tracegraph_in_expectation():
    # TraceGraph_ELBO drops the costs that a draw cannot affect, which changes no expectation
    def model():
        program("p")

    def guide():
        program("q", observe=False)

    def program(owner, observe=True):
        p = {name: pyro.param(f"{owner}_{name}", value.detach()) for name, value in parameters().items()}
        with pyro.plate("data", 2):
            b = pyro.sample("b", dist.Bernoulli(logits=p["m"]))
            z = pyro.sample("z", dist.Bernoulli(logits=p["l"] + b))
            if observe:
                pyro.sample("x", dist.Normal(z, p["l"].exp()), obs=X[:2])

    gradients = []
    for elbo in (TraceGraph_ELBO(), PriorAsGuide_ELBO()):
        pyro.clear_param_store()
        total: Any = 0.0
        for draw, probability in draws(guide, {"b": (2,), "z": (2,)}):
            elbo.loss_and_grads(model, draw(guide))
            leaves = [leaf for _, leaf in sorted(pyro.get_param_store().named_parameters())]
            total = total + probability * torch.stack([leaf.grad for leaf in leaves])
            for leaf in leaves:
                leaf.grad = None
        gradients.append(total)
    assert gradients[0][[0, 2, 3]].abs().min() > 0.01  # at p = q, that of p's m is 0
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("backend", ["loop", "scan"])
@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_a_layer_below_a_site_that_traceenum_elbo_sums_out(cell, backend):
    rnn = nz.NoisyRNN(3, 2, cell=cell, spread=0.5, backend=backend).double()
    inputs, targets = INPUTS.double(), TARGETS.double()

    def program():
        scale = pyro.sample("scale", dist.Bernoulli(X.new_tensor(0.3)), infer={"enumerate": "parallel"})
        with pyro.plate("sequences", 4):
            z, _ = rnn(inputs * (1 + scale.reshape(-1, 1, 1, 1) if scale.dim() else 1 + scale))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(2), obs=targets)

    def guide():
        with pyro.plate("sequences", 4):
            pyro.sample("z_1_noise", dist.Delta(noise, event_dim=2))

    view, noise = nz.innovations(program), torch.randn(4, 5, 2, dtype=torch.float64)
    joint = []
    for value in (0.0, 1.0):
        given = {"scale": X.new_tensor(value), "z_1_noise": noise}
        joint.append(poutine.trace(poutine.condition(view, given)).get_trace().log_prob_sum())
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(view, guide)
    assert loss == pytest.approx(-torch.stack(joint).logsumexp(0).item())


class TestStores:
    """Two programs with parameters of the same name. Of Pyro's own modules, the second reports those of the first."""

    def layers(self) -> dict[str, Any]:
        class Plain(PyroModule):
            def __init__(self):
                super().__init__()
                self.rnn = PyroModule[torch.nn.RNN](3, 2, batch_first=True)

            def forward(self):
                return self.rnn(INPUTS)

        class Noisy(PyroModule):
            def __init__(self):
                super().__init__()
                self.rnn = nz.NoisyRNN(3, 2)

            def forward(self):
                with pyro.plate("sequences", 4):
                    return self.rnn(INPUTS)

        return {"Pyro's": Plain, "ours": Noisy}

    @pytest.mark.parametrize("local", [False, True])
    @pytest.mark.parametrize("kind", ["Pyro's", "ours"])
    def test_the_parameters_of_a_second_module(self, kind, local):
        with pyro.settings.context(module_local_params=local):
            first, second = (self.layers()[kind]() for _ in range(2))
            first()
            trace: Any = poutine.trace(second).get_trace()
            used = trace.nodes["rnn.weight_hh_l0"]["value"]
        assert torch.equal(used, (second if local or kind == "ours" else first).rnn.weight_hh_l0)
        assert not torch.equal(first.rnn.weight_hh_l0, second.rnn.weight_hh_l0)

    def test_two_layers_of_one_program_need_names(self):
        def program(first: nz.NoisyRNN, second: nz.NoisyRNN):
            with pyro.plate("sequences", 4):
                return first(INPUTS)[0] + second(INPUTS)[0]

        with pyro.settings.context(module_local_params=True):
            with pytest.raises(RuntimeError, match="Multiple sample sites named 'z_1'"):
                poutine.trace(program).get_trace(nz.NoisyRNN(3, 2), nz.NoisyRNN(3, 2))
            trace = poutine.trace(program).get_trace(nz.NoisyRNN(3, 2), nz.NoisyRNN(3, 2, name="y"))
        assert [name for name in trace.stochastic_nodes if name != "sequences"] == ["z_1", "y_1"]

    def test_two_layers_of_one_module(self):
        class Two(PyroModule):
            def __init__(self):
                super().__init__()
                self.down, self.up = nz.NoisyRNN(3, 2, name="down"), nz.NoisyRNN(2, 2, name="up")

            def forward(self):
                with pyro.plate("sequences", 4):
                    z, _ = self.up(self.down(INPUTS)[0])
                    pyro.sample("x", dist.Normal(z, 1.0).to_event(2), obs=TARGETS)

        model = Two()
        svi = SVI(model, None, pyro.optim.Adam({"lr": 0.1}), PriorAsGuide_ELBO(2))
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        svi.step()
        assert set(pyro.get_param_store().keys()) == set(before)
        assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())

    @pytest.mark.parametrize("local", [False, True])
    def test_training_changes_every_parameter(self, local):
        with pyro.settings.context(module_local_params=local):
            model = make(spread=nz.Spread(0.5, learn=True))
            guide = nz.guides.get("AutoNormalMessenger", model)
            guide(INPUTS, TARGETS)
            bound = PriorAsGuide_ELBO()(model, guide)
            before = {name: p.detach().clone() for name, p in bound.named_parameters()}
            if local:
                optimizer = torch.optim.Adam(bound.parameters(), lr=0.1)
                bound(INPUTS, TARGETS).backward()
                optimizer.step()
            else:
                SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), PriorAsGuide_ELBO()).step(INPUTS, TARGETS)
            assert len(before) == 10
            assert all(not torch.equal(p, before[name]) for name, p in bound.named_parameters())


class TestPredictive:
    @pytest.mark.parametrize("parallel", [False, True])
    @pytest.mark.parametrize("kind", [AutoNormal, AutoNormalMessenger])
    def test_draws_from_a_guide(self, kind, parallel):
        view = nz.innovations(make())
        guide = kind(view)
        guide(INPUTS, TARGETS)
        guide.locs.z_1_noise = torch.full((4, 5, 2), 3.0)
        guide.scales.z_1_noise = torch.full((4, 5, 2), 0.01)
        draws = Predictive(view, guide=guide, num_samples=6, parallel=parallel)(INPUTS)
        assert {name: tuple(value.shape) for name, value in draws.items()} == dict.fromkeys(
            ("z_1_noise", "z_1", "x"), (6, 4, 5, 2)
        )
        assert (draws["z_1_noise"] - 3.0).abs().max() < 0.1
        assert draws["z_1"].min() > 0.4  # tanh's values and 0.5 times a noise of 3

    def test_a_computed_state_of_another_value_is_refused(self):
        view = nz.innovations(make())
        with pytest.raises(ValueError, match="'z_1' is computed in this view"):
            poutine.condition(view, {"z_1": torch.zeros(4, 5, 2)})(INPUTS)

    def test_draws_from_the_prior(self):
        draws = Predictive(make(), num_samples=3, parallel=True)(INPUTS)
        assert {name: tuple(value.shape) for name, value in draws.items()} == dict.fromkeys(("z_1", "x"), (3, 4, 5, 2))


class TestHandlers:
    @pytest.mark.parametrize("view", [lambda model: model, nz.innovations, nz.unroll])
    def test_scope(self, view):
        model = make()
        losses = []
        for program in (view(model), scope(view(model), prefix="a"), view(scope(model, prefix="a"))):
            pyro.set_rng_seed(1)
            losses.append(PriorAsGuide_ELBO(2).loss(program, None, INPUTS, TARGETS))
        assert losses[0] == losses[1] == losses[2]

    def test_scope_around_model_and_guide(self):
        model = make()
        losses = []
        for wrap in (lambda program: program, lambda program: scope(program, prefix="a")):
            guide = AutoNormal(nz.innovations(model))
            guide(INPUTS, TARGETS)
            pyro.set_rng_seed(1)
            program = wrap(nz.innovations(model))
            losses.append(PriorAsGuide_ELBO(2).loss(program, wrap(guide), INPUTS, TARGETS))
        assert losses[0] == losses[1]

    def test_loc_scale_reparam_of_states_is_refused(self):
        model = poutine.reparam(make(), {"z_1": LocScaleReparam()})
        with pytest.raises(ValueError, match=r"LocScaleReparam.*use innovations\(model\)"):
            PriorAsGuide_ELBO().loss(model, None, INPUTS, TARGETS)

    @pytest.mark.parametrize(("view", "site"), [(nz.innovations, "z_1_noise"), (nz.unroll, "z_1_1")])
    def test_loc_scale_reparam_of_noise_is_refused(self, view, site):
        model = poutine.reparam(view(make()), {site: LocScaleReparam(0.0)})
        with pytest.raises(ValueError, match=r"LocScaleReparam; innovations\(model\).*drop the reparametrization"):
            PriorAsGuide_ELBO().loss(model, None, INPUTS, TARGETS)

    @pytest.mark.parametrize("strategy", [AutoReparam, MinimalReparam])
    def test_strategies_leave_the_noise_as_it_is(self, strategy):
        model = make()
        for view in (model, nz.innovations(model)):
            losses = []
            for program in (view, poutine.reparam(view, strategy())):
                pyro.set_rng_seed(1)
                losses.append(PriorAsGuide_ELBO(2).loss(program, None, INPUTS, TARGETS))
            assert losses[0] == losses[1]

    def test_loc_scale_reparam_of_a_user_s_site(self):
        def model():
            scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
            with pyro.plate("data", 3):
                z = pyro.sample("z", dist.Normal(0.0, scale))
                pyro.sample("x", dist.Normal(z, 1.0), obs=X.float())

        program = poutine.reparam(model, {"z": LocScaleReparam(0.0)})
        guide = AutoNormal(program)
        guide()
        losses = []
        for elbo in (PriorAsGuide_ELBO(), Trace_ELBO()):
            pyro.set_rng_seed(1)
            losses.append(elbo.loss(program, guide))
        assert losses[0] == pytest.approx(losses[1])


class TestJIT:
    """With the global store, on a backend that TorchScript can trace."""

    @pytest.mark.parametrize(
        ("elbo", "noise"),
        [
            (JitTrace_ELBO, "gaussian"),
            (JitTrace_ELBO, "gamma"),
            (JitTraceMeanField_ELBO, "dirichlet"),
            (JitTraceGraph_ELBO, "gaussian"),
        ],
    )
    @pytest.mark.filterwarnings("ignore")
    def test_elbos(self, elbo, noise):
        view = nz.innovations(make(noise=noise, backend="loop"))
        guide = AutoNormal(view)
        svi = SVI(view, guide, pyro.optim.Adam({"lr": 0.01}), elbo(ignore_jit_warnings=True))
        first = [svi.step(INPUTS, TARGETS) for _ in range(3)]
        assert all(map(math.isfinite, first))

    @pytest.mark.filterwarnings("ignore")
    def test_nuts(self):
        # Pyro compiles the parameters as constants, which must need no gradient
        with pyro.settings.context(module_local_params=True):
            model = make(backend="loop").requires_grad_(False)
            mcmc = MCMC(NUTS(nz.innovations(model), jit_compile=True), 3, 3, disable_progbar=True)
            mcmc.run(INPUTS, TARGETS)
        assert mcmc.get_samples()["z_1_noise"].shape == (3, 4, 5, 2)
