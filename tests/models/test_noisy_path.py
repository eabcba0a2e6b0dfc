"""A trajectory as a distribution: shapes, masks, support and moments."""

from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.models import NoisyPath, real_steps
from noisin_pyro.noise import describe
from noisin_pyro.recurrence.matmul import has_bfloat16

from .. import textbook
from ..small_layers import (
    ADDITIVE,
    BATCH,
    FEATURES,
    LENGTHS,
    MULTIPLICATIVE,
    NATIVE,
    PARTICLES,
    SPREADS,
    STEPS,
    UNITS,
    close,
    given,
    in_plates,
    make_inputs,
    make_rnn,
    make_state,
    parts,
    returned,
    traced,
)

EVERY_FORM = [f"{entry.name}:{entry.form}" for entry in describe()]


def make_path(
    noise: str = "gaussian", cell: str = "sigmoid", lengths: Tensor | None = None, **options: Any
) -> NoisyPath:
    """A layer's distribution as its sample site has it, with no plate around."""
    rnn = make_rnn(cell, noise, **options)
    path = poutine.trace(rnn).get_trace(make_inputs(), make_state(rnn), lengths).nodes["z_1"]["fn"]
    assert isinstance(path, NoisyPath)
    return path


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_shapes(cell: str) -> None:
    path = make_path(cell=cell)
    assert (path.batch_shape, path.event_shape) == ((BATCH,), (STEPS, UNITS))
    wide = path.expand((PARTICLES, BATCH))
    assert wide.expand((7, PARTICLES, BATCH)).shape() == (7, PARTICLES, BATCH, STEPS, UNITS)
    for law in (path, wide, wide.expand(wide.batch_shape)):
        for sample_shape in ((), (6,), (6, 5)):
            z = law.sample(sample_shape)
            assert z.shape == sample_shape + law.shape()
            assert law.log_prob(z).shape == sample_shape + law.batch_shape
        assert law.rsample().requires_grad
        assert not law.sample().requires_grad


@pytest.mark.parametrize("noise", EVERY_FORM)
def test_draws_have_a_density_outside_a_plate_too(noise: str) -> None:
    path = make_path(noise)
    assert path.log_prob(path.sample((3,))).isfinite().all()


@pytest.mark.parametrize("noise", ["gaussian", "bernoulli:multiplicative", "beta:native"])
def test_log_prob_broadcasts_over_leading_dimensions(noise: str) -> None:
    path = make_path(noise, lengths=LENGTHS)
    z = path.sample((3, 2))
    expected = torch.stack([torch.stack([path.log_prob(z[i, j]) for j in range(2)]) for i in range(3)])
    close(path.log_prob(z), expected)
    close(path.expand((2, BATCH)).log_prob(z), expected)


@pytest.mark.parametrize("noise", ["gaussian", "gamma", "bernoulli", "gamma:multiplicative", *NATIVE])
def test_log_prob_ignores_padded_steps(noise: str) -> None:
    path = make_path(noise, lengths=LENGTHS)
    z = path.sample()
    padded = ~real_steps(LENGTHS, STEPS)[..., None]
    for filler in (0.0, 0.5, -1e3):  # outside the support of several families
        if filler < 0 and noise in NATIVE:
            continue
        other = torch.where(padded, filler, z).requires_grad_()
        log_prob = path.log_prob(other)
        close(log_prob, path.log_prob(z))
        assert log_prob[1] == 0.0  # a sequence of length 0
        # the zero keeps a mass, which passes no gradient, differentiable
        (gradient,) = torch.autograd.grad(log_prob.sum() + 0 * other.sum(), other)
        assert gradient.isfinite().all()
        assert (torch.where(padded, gradient, 0.0) == 0.0).all()


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
@pytest.mark.parametrize("noise", [*ADDITIVE, *MULTIPLICATIVE])
def test_transport_and_innovate_are_inverse(cell: str, noise: str) -> None:
    path = make_path(noise, cell)
    epsilon = path.innovation_law().sample((PARTICLES,))
    assert epsilon.shape == (PARTICLES, BATCH, STEPS, UNITS)
    close(path.innovate(path.transport(epsilon)), epsilon, 1e-9)


@pytest.mark.parametrize("noise", EVERY_FORM)
def test_draws_in_single_precision_are_inside_their_support(noise: str) -> None:
    """Means are computed once in the scan and again, in another order, for the density."""
    for cell in ["sigmoid"] if noise.endswith(":native") else ["tanh", "sigmoid", "lstm", "gru"]:
        rnn = make_rnn(cell, noise).float()
        path = poutine.trace(rnn).get_trace(make_inputs(20, 30).float()).nodes["z_1"]["fn"]
        assert path.log_prob(path.sample((4,))).isfinite().all()


def test_memory_cells_of_a_scan_are_used_for_their_own_trajectory_only() -> None:
    path = make_path(cell="lstm")
    z = path.expand((PARTICLES, BATCH)).rsample()
    memory = path.last_memory(z)
    assert memory is not None
    close(memory, path.transition.means(z)[1][..., -1, :])
    assert path.last_memory(z.clone()) is None
    assert make_path(cell="gru").last_memory(z) is None


@pytest.mark.parametrize("noise", ["gaussian", "laplace", "gumbel", "gaussian:multiplicative", "beta:native"])
def test_fixed_supports(noise: str) -> None:
    path = make_path(noise)
    assert path.support.event_dim == 2
    assert path.support.check(path.sample((3,))).all()
    assert path.support.check(torch.full((BATCH, STEPS, UNITS), 2.0)).all() == (noise != "beta:native")


@pytest.mark.parametrize("noise", ["gamma", "bernoulli", "dirichlet", "gamma:multiplicative", "poisson:native"])
def test_a_moving_support_is_refused(noise: str) -> None:
    with pytest.raises(ValueError, match="no guide can act on z: leave the site to the prior, or use"):
        _ = make_path(noise).support


@pytest.mark.parametrize("noise", MULTIPLICATIVE)
def test_multiplicative_noise_has_no_density_at_a_mean_of_zero(noise: str) -> None:
    rnn = make_rnn("relu", noise)
    with torch.no_grad():
        rnn.bias_ih_l0.fill_(-9.0)  # no unit is active
    path = poutine.trace(rnn).get_trace(make_inputs()).nodes["z_1"]["fn"]
    z = path.sample()
    assert (z == 0.0).all()
    with pytest.raises(ValueError, match="additive"):
        path.log_prob(z)


def test_mean_of_zero_at_a_padded_step_is_ignored() -> None:
    rnn, inputs = make_rnn("relu", "gaussian:multiplicative"), make_inputs()
    padded = ~real_steps(LENGTHS, STEPS)[..., None]
    with torch.no_grad():
        rnn.weight_ih_l0.fill_(1.0)
    path = poutine.trace(rnn).get_trace(torch.where(padded, -99.0, inputs), None, LENGTHS).nodes["z_1"]["fn"]
    assert path.log_prob(path.sample()).isfinite().all()


def test_mask_handler_and_plate_scale() -> None:
    rnn, inputs = make_rnn(), make_inputs()
    program = in_plates(rnn)
    trace = traced(program, inputs)
    z, log_prob = trace.nodes["z_1"]["value"], trace.nodes["z_1"]["log_prob"]
    assert log_prob.shape == (PARTICLES, BATCH)
    observed = given(program, {"z_1": z})
    mask = torch.tensor([True, False, True, True])
    close(traced(poutine.mask(observed, mask=mask), inputs).nodes["z_1"]["log_prob"], torch.where(mask, log_prob, 0.0))
    close(traced(poutine.scale(observed, scale=2.5), inputs).nodes["z_1"]["log_prob"], 2.5 * log_prob)
    replayed = traced(poutine.replay(program, trace=trace), inputs).nodes["z_1"]
    assert replayed["value"] is z
    close(replayed["log_prob"], log_prob)


def test_subsampling_scales_the_density() -> None:
    rnn, inputs = make_rnn(), make_inputs()

    def program(size: int) -> None:
        with pyro.plate("sequences", size, subsample=torch.arange(BATCH), dim=-1):
            rnn(inputs)

    small = traced(program, BATCH)
    large = traced(given(program, {"z_1": small.nodes["z_1"]["value"]}), 10 * BATCH)
    close(large.nodes["z_1"]["log_prob_sum"], 10 * small.nodes["z_1"]["log_prob_sum"])


@pytest.mark.parametrize("shape", [(BATCH, STEPS, UNITS + 1), (BATCH, STEPS, 1), (UNITS,)])
def test_values_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        make_path().log_prob(torch.zeros(shape, dtype=torch.float64))


def test_a_value_of_another_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dtype of the layer, torch.float64, got torch.float32"):
        make_path().log_prob(torch.zeros(BATCH, STEPS, UNITS))


@pytest.mark.parametrize("value", [torch.zeros(BATCH + 1, STEPS, UNITS), torch.zeros(BATCH, STEPS, UNITS).long()])
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_trajectories_of_other_sequences_are_refused(cell: str, value: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=rf"broadcast with \({BATCH},\), got torch.*; pass trajectories of the sequen"):
        make_path(cell=cell).log_prob(value)


@pytest.mark.parametrize("noise", [*ADDITIVE, *MULTIPLICATIVE, *NATIVE])
def test_each_state_has_the_mean_of_the_transition_and_the_spread_of_its_layer(noise: str) -> None:
    """E[z_t | z_{t-1}] is the cell's f, and the noise's standard deviation γ_l: 2 scores a layer, each beyond 5.5
    standard errors with probability 4e-8 (normal approximation over 36,000 draws): below 1e-5 for all 11 families."""
    rnn, inputs = make_rnn("sigmoid", noise, 3), make_inputs(1, 3)
    state = make_state(rnn, 1)
    trace = traced(in_plates(rnn, particles=4000), inputs, state)
    paths = [trace.nodes[f"z_{layer}"]["value"] for layer in (1, 2, 3)]
    expected = textbook.run(rnn, inputs, lambda layer, t, _: paths[layer - 1][..., t, :], state)
    for layer, path, spread in zip(expected, paths, SPREADS, strict=True):
        # the average over the units that a family couples is one draw
        epsilon = (path - layer.mean) / textbook.scale(noise, layer.mean, spread)
        weights = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
        for statistic in ((epsilon * weights).sum(-1), (epsilon.square() - 1).sum(-1)):
            if statistic.abs().max() < 1e-9:  # constant: categorical's and bernoulli's squares
                continue
            error = statistic.std() / statistic.numel() ** 0.5
            assert abs(statistic.mean() / error) < 5.5


def test_input_shape_is_the_features_for_noisy_inputs() -> None:
    rnn, inputs = make_rnn(input_spread=0.2), make_inputs()
    path = poutine.trace(rnn).get_trace(inputs).nodes["z_0"]["fn"]
    assert path.event_shape == (STEPS, FEATURES)
    close(path.clean(), inputs, 0.0)


# ---- values with fewer batch dimensions than the path ---------------------------------------------------------------


@pytest.mark.parametrize("cell, layers", [("tanh", 1), ("lstm", 2), ("gru", 2)])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "padded"])
def test_a_given_trajectory_is_shared_by_all_particles(cell: str, layers: int, lengths: Tensor | None) -> None:
    rnn, inputs = make_rnn(cell, num_layers=layers), make_inputs()
    for state in (make_state(rnn), make_state(rnn, PARTICLES, BATCH)):
        for number in range(1, layers + 1):
            z = torch.randn(BATCH, STEPS, UNITS, dtype=torch.float64)
            program = in_plates(given(rnn, {f"z_{number}": z}))
            trace = traced(program, inputs, state, lengths)
            site = trace.nodes[f"z_{number}"]
            assert site["log_prob"].shape == (PARTICLES, BATCH) and site["value"] is z
            wide = in_plates(given(rnn, {f"z_{number}": z.expand(PARTICLES, *z.shape)}))
            others = {name: trace.nodes[name]["value"] for name in trace.nodes if name.startswith("z_")}
            same = traced(given(wide, {k: v for k, v in others.items() if k != f"z_{number}"}), inputs, state, lengths)
            close(site["log_prob"], same.nodes[f"z_{number}"]["log_prob"])
            for end, expected in zip(parts(returned(trace)[1]), parts(returned(same)[1]), strict=True):
                close(end.expand(expected.shape), expected)


def test_objectives_of_a_program_with_a_given_trajectory() -> None:
    """With every state given, particles have nothing to add: any number of them is one."""
    model = nz.SequenceModel(make_rnn(), "gaussian", 2).double()
    inputs, targets = make_inputs(), torch.randn(BATCH, STEPS, 2, dtype=torch.float64)
    program = given(model, {"z_1": torch.randn(BATCH, STEPS, UNITS, dtype=torch.float64)})
    losses = [
        nz.PriorAsGuide_ELBO(num_particles=n, vectorize_particles=together, bound=bound)(program)(inputs, targets)
        for n, together in ((1, True), (3, False), (3, True))
        for bound in ("elbo", "importance")
    ]
    for loss in losses[1:]:
        close(loss, losses[0])


@pytest.mark.parametrize("backend", ["fused", "scan", "loop"])
@pytest.mark.parametrize("cell, layers", [("tanh", 1), ("lstm", 1), ("lstm", 2)])
@pytest.mark.parametrize("view", [None, nz.innovations])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "padded"])
def test_inputs_may_be_enumerated_around_states_or_noise_of_a_guide(
    view: Any, cell: str, layers: int, backend: str, lengths: Tensor | None
) -> None:
    """Inputs then have a dimension more than the states; ``TraceEnum_ELBO`` sums over their two values."""
    rnn, inputs = make_rnn(cell, num_layers=layers, backend=backend), make_inputs()
    suffix = "_noise" if view else ""
    values = {f"z_{layer + 1}{suffix}": torch.randn(BATCH, STEPS, UNITS).double() for layer in range(layers)}
    network, weight, x = view(rnn) if view else rnn, torch.randn(UNITS).double(), torch.randn(BATCH).double()

    def model(bit: Tensor | None = None) -> None:
        with pyro.plate("sequences", BATCH, dim=-1):
            law = pyro.distributions.Bernoulli(torch.full((), 0.3).double())
            bit = pyro.sample("bit", law, infer={"enumerate": "parallel"}, obs=bit)
            z, state = network(inputs + bit[..., None, None], lengths=lengths)
            end = parts(state)[-1][-1]
            pyro.sample("x", pyro.distributions.Normal((z.sum(-2) + end) @ weight, 1.0), obs=x)

    def guide() -> None:
        with pyro.plate("sequences", BATCH, dim=-1):
            for name, value in values.items():
                pyro.sample(name, pyro.distributions.Delta(value, event_dim=2))

    loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(model, guide)
    traces = [traced(given(model, values), torch.full((BATCH,), bit).double()) for bit in (0.0, 1.0)]
    log_p = [sum(site["log_prob"] for site in t.nodes.values() if "log_prob" in site) for t in traces]
    close(-loss, torch.stack(log_p).logsumexp(0).sum())


# ---- density and sampler use the same means -------------------------------------------------------------------------


@pytest.mark.skipif(not has_bfloat16(), reason="this processor has no bfloat16")
@pytest.mark.parametrize("cell, regularizer", [("tanh", "none"), ("lstm", "none"), ("gru", "D"), ("identity", "none")])
@pytest.mark.parametrize(
    "noise", ["gaussian", "exponential", "gamma:multiplicative", "poisson", "dirichlet", "bernoulli"]
)
def test_bfloat16_products_are_those_of_the_density(noise: str, cell: str, regularizer: str) -> None:
    """log p(z) = log p(ε) − log |dz/dε|, with the ε that the draw was made from."""
    torch.manual_seed(0)
    rnn = nz.NoisyRNN(4, 16, cell=cell, noise=noise, spread=0.3, matmul_precision="bfloat16", regularizer=regularizer)
    inputs = torch.randn(20, 6, 4)
    own = traced(rnn, inputs)
    assert own.nodes["z_1"]["log_prob"].isfinite().all()
    path = own.nodes["z_1"]["fn"]
    epsilon = path.innovation_law().sample()
    z = path.transport(epsilon)
    log_prob = path.innovation_law().log_prob(epsilon)
    if not path.family.discrete:
        means, _ = path.transition.means(z, path.family)
        scales = path.family.scale(means, path.spread).abs().expand(means.shape)
        log_prob = log_prob - scales[..., : 15 if noise == "dirichlet" else 16].log().sum((-1, -2))
    error = (path.log_prob(z) - log_prob).abs()
    # rarely, two sums of the same numbers are rounded to different neighbors in bfloat16
    assert error.median() < 0.02 and error.max() < 2.0
    torch.testing.assert_close(path.innovate(z), epsilon, rtol=0, atol=0.1)


@pytest.mark.skipif(not has_bfloat16(), reason="this processor has no bfloat16")
def test_bfloat16_memories_of_padded_sequences_are_those_of_the_scan() -> None:
    torch.manual_seed(0)
    inputs, lengths = torch.randn(4, 6, 3), torch.tensor([6, 3, 1, 6])
    for spread in (0.0, 0.3):
        rnn = nz.NoisyRNN(3, 16, cell="lstm", spread=spread, matmul_precision="bfloat16")
        trace = poutine.trace(rnn).get_trace(inputs)
        values = {"z_1": trace.nodes["z_1"]["value"]} if spread else {}
        (_, (_, c)), (_, (_, padded)) = returned(trace), given(rnn, values)(inputs, lengths=lengths)
        torch.testing.assert_close(padded[:, [0, 3]], c[:, [0, 3]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("noise", [*ADDITIVE, *MULTIPLICATIVE, "exponential:multiplicative", "beta:multiplicative"])
def test_draws_around_small_means_are_inside_their_support(noise: str, scale: float) -> None:
    """In single precision means are sums with rounding errors of 1e-7, in another order for the density."""
    rnn = make_rnn("tanh", noise, spread=0.7).float()
    with torch.no_grad():
        rnn.bias_hh_l0.copy_(-rnn.bias_ih_l0 + scale * torch.tensor([2.0, -2.0, 3.0]))
        for weight in (rnn.weight_ih_l0, rnn.weight_hh_l0):
            weight.mul_(scale / 5)
    path = poutine.trace(rnn).get_trace(make_inputs(20, 10).float()).nodes["z_1"]["fn"]
    log_prob = path.log_prob(path.sample((4,)))
    assert log_prob.isfinite().all()
