"""Placement of the noise (inputs, feedback or output only), and states carried between windows."""

import pytest
import torch

import noisin_pyro as nz
from noisin_pyro.models import CELLS

from .. import textbook
from ..small_layers import (
    BATCH,
    FEATURES,
    LENGTHS,
    PARTICLES,
    SPREADS,
    STEPS,
    UNITS,
    close,
    draw_noises,
    given,
    in_plates,
    layer_sites,
    make_inputs,
    make_rnn,
    make_state,
    parts,
    returned,
    traced,
)


@pytest.mark.parametrize("noise", ["gaussian", "gaussian:multiplicative"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_windows_with_carried_state_equal_one_long_window(cell: str, num_layers: int, noise: str) -> None:
    rnn, inputs = make_rnn(cell, noise, num_layers), make_inputs(steps=2 * STEPS)
    noises = draw_noises(rnn, steps=2 * STEPS)

    def window(steps: slice, state=None):
        values = layer_sites([e[..., steps, :] for e in noises], "_noise")
        program = given(nz.innovations(in_plates(rnn)), values)
        return program(inputs[..., steps, :], state)

    z, end = window(slice(0, 2 * STEPS))
    first, state = window(slice(0, STEPS))
    second, last = window(slice(STEPS, 2 * STEPS), state)
    close(torch.cat([first, second], -2), z)
    for actual, expected in zip(parts(last), parts(end), strict=True):
        assert actual.shape == (num_layers, PARTICLES, BATCH, UNITS)
        close(actual, expected)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_final_state_is_at_the_end_of_each_sequence(cell: str, num_layers: int) -> None:
    rnn, inputs = make_rnn(cell, num_layers=num_layers), make_inputs()
    state, noises = make_state(rnn), draw_noises(rnn)
    expected = textbook.run(rnn, inputs, textbook.noisy("gaussian", SPREADS, noises), state)
    program = given(nz.innovations(in_plates(rnn)), layer_sites(noises, "_noise"))
    for lengths in (LENGTHS, torch.full((BATCH,), STEPS), torch.zeros(BATCH, dtype=torch.long), None):
        ends = [STEPS] * BATCH if lengths is None else lengths.tolist()
        _, final = program(inputs, state, lengths)
        for number, layer in enumerate(expected):
            close(parts(final)[0][number], textbook.at_lengths(layer.z, parts(state)[0][number], ends))
            if layer.memory is not None:
                close(parts(final)[1][number], textbook.at_lengths(layer.memory, parts(state)[1][number], ends))


@pytest.mark.parametrize("cell", CELLS)
def test_padded_batch_equals_single_sequences(cell: str) -> None:
    rnn, inputs = make_rnn(cell, num_layers=2), make_inputs()
    noises = draw_noises(rnn, BATCH)
    view = nz.innovations(in_plates(rnn, particles=None))
    z, end = given(view, layer_sites(noises, "_noise"))(inputs, None, LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        if length == 0:
            continue
        alone = layer_sites([e[b : b + 1, :length] for e in noises], "_noise")
        expected, expected_end = given(view, alone)(inputs[b : b + 1, :length])
        close(z[b, :length], expected[0])
        for actual, part in zip(parts(end), parts(expected_end), strict=True):
            close(actual[:, b], part[:, 0])


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("noise", ["gaussian", "gamma", "bernoulli", "gaussian:multiplicative"])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_output_noise_does_not_enter_the_recurrence(cell: str, num_layers: int, noise: str, lengths) -> None:
    rnn, inputs = make_rnn(cell, noise, num_layers, spread=0.3, feedback=False), make_inputs()
    still = make_rnn(cell, num_layers=num_layers, spread=0.0)
    still.load_state_dict(rnn.state_dict())
    state, (noise_path,) = make_state(rnn), draw_noises(rnn)
    program, site = in_plates(rnn), f"z_{num_layers}"
    trace = traced(given(nz.innovations(program), {f"{site}_noise": noise_path}), inputs, state, lengths)
    z, end = returned(trace)
    h, clean_end = still(inputs, state, lengths)

    close(z, h + textbook.scale(noise, h, 0.3) * noise_path)
    for actual, expected in zip(parts(end), parts(clean_end), strict=True):
        close(actual, expected.unsqueeze(1).expand(actual.shape))
    fn = traced(program, inputs, state, lengths).nodes[site]["fn"]
    close(fn.clean(), h.expand(PARTICLES, BATCH, STEPS, UNITS))
    if cell == "relu" and ":" in noise:
        return  # a mean of 0 has no density
    by_step = traced(nz.unroll(given(program, {site: z})), inputs, state, lengths)
    close(by_step.log_prob_sum(), traced(given(program, {site: z}), inputs, state, lengths).log_prob_sum())


def test_output_noise_is_unbiased() -> None:
    """E[z_t] = h_t at every step: 15 averages of 4000 draws, each beyond 5.5 standard errors with probability 4e-8."""
    rnn, inputs = make_rnn("lstm", "gumbel", 2, spread=0.3, feedback=False), make_inputs(1)
    z, _ = in_plates(rnn, particles=4000)(inputs)
    h, _ = nz.noise_off(rnn)(inputs)
    assert (((z - h).mean(0) / z.std(0)).abs() * 4000**0.5 < 5.5).all()


def test_input_noise_is_added_to_the_inputs() -> None:
    rnn, inputs = make_rnn("lstm", input_spread=0.2), make_inputs()
    program = in_plates(rnn)
    x_noise = torch.randn(PARTICLES, BATCH, STEPS, FEATURES, dtype=torch.float64)
    noises = draw_noises(make_rnn())
    values = {"z_0_noise": x_noise, **layer_sites(noises, "_noise")}
    trace = traced(given(nz.innovations(program), values), inputs, None, LENGTHS)
    noisy_inputs = inputs + 0.2 * x_noise
    close(trace.nodes["z_0"]["value"], noisy_inputs)
    (layer,) = textbook.run(rnn, noisy_inputs, textbook.noisy("gaussian", SPREADS, noises))
    close(trace.nodes["z_1"]["value"], layer.z)

    paths = {"z_0": noisy_inputs, "z_1": layer.z}
    fused = traced(given(program, paths), inputs, None, LENGTHS)
    by_step = traced(nz.unroll(given(program, paths)), inputs, None, LENGTHS)
    close(by_step.log_prob_sum(), fused.log_prob_sum())
    density = torch.distributions.Normal(inputs, 0.2).log_prob(noisy_inputs).sum(-1)
    real = nz.models.real_steps(LENGTHS, STEPS)
    close(fused.nodes["z_0"]["log_prob"], torch.where(real, density, 0.0).sum(-1))
    assert [f"z_0_{t}" for t in range(1, STEPS + 1)] == [name for name in by_step.nodes if name.startswith("z_0_")]
    for t in range(STEPS):
        close(by_step.nodes[f"z_0_{t + 1}"]["fn"].mean, inputs[:, t].expand(PARTICLES, BATCH, FEATURES))
