"""Transitions against torch's cells and the equations, and custom cells."""

import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

import noisin_pyro as nz
from noisin_pyro.models import CELLS, Cell, NoisyRNN, SequenceModel

from .. import textbook
from ..small_layers import BATCH, FEATURES, STEPS, UNITS, close, make_inputs, make_rnn, make_state, parts, traced

TORCH_CELLS = {
    "tanh": lambda: nn.RNNCell(FEATURES, UNITS, nonlinearity="tanh"),
    "relu": lambda: nn.RNNCell(FEATURES, UNITS, nonlinearity="relu"),
    "lstm": lambda: nn.LSTMCell(FEATURES, UNITS),
    "gru": lambda: nn.GRUCell(FEATURES, UNITS),
}


def random_step(name: str) -> tuple[list[Tensor], Tensor, Tensor, Tensor | None]:
    """Weights, x, z and c."""
    rnn = make_rnn(name, spread=0.0)
    z, *c = (part[0] for part in parts(make_state(rnn)))
    return textbook.weights(rnn, 1), make_inputs()[:, 0], z, c[0] if c else None


@pytest.mark.parametrize("name", TORCH_CELLS)
def test_step_equals_that_of_torch(name: str) -> None:
    (w_ih, w_hh, b_ih, b_hh), x, z, c = random_step(name)
    cell = TORCH_CELLS[name]().double()
    cell.load_state_dict({"weight_ih": w_ih, "weight_hh": w_hh, "bias_ih": b_ih, "bias_hh": b_hh})
    expected = cell(x, z if c is None else (z, c))
    mean, memory = CELLS[name]().step(x @ w_ih.T + b_ih, z @ w_hh.T + b_hh, z, c)
    for actual, part in zip((mean,) if memory is None else (mean, memory), parts(expected), strict=True):
        close(actual, part)


@pytest.mark.parametrize("name", CELLS)
def test_step_agrees_with_the_equations(name: str) -> None:
    weights, x, z, c = random_step(name)
    w_ih, w_hh, b_ih, b_hh = weights
    mean, memory = CELLS[name]().step(x @ w_ih.T + b_ih, z @ w_hh.T + b_hh, z, c)
    expected, expected_memory = textbook.step(name, weights, x, z, c)
    close(mean, expected)
    assert (memory is None) == (expected_memory is None) == (not CELLS[name].has_memory)


@pytest.mark.parametrize("name", CELLS)
def test_all_steps_in_parallel_equal_single_steps(name: str) -> None:
    cell = CELLS[name]()
    a, r = (torch.randn(BATCH, STEPS, cell.gates * UNITS, dtype=torch.float64) for _ in range(2))
    z = torch.randn(BATCH, STEPS, UNITS, dtype=torch.float64)
    c = torch.randn(BATCH, UNITS, dtype=torch.float64) if cell.has_memory else None
    means, memories = cell.all_steps(a, r, z, c)
    for t in range(STEPS):
        mean, c = cell.step(a[:, t], r[:, t], z[:, t], c)
        close(means[:, t], mean)
        if c is not None:
            assert memories is not None
            close(memories[:, t], c)


@pytest.mark.parametrize("name", CELLS)
def test_means_stay_in_the_stated_range(name: str) -> None:
    cell = CELLS[name]()
    a, r = (3 * torch.randn(1000, cell.gates * UNITS, dtype=torch.float64) for _ in range(2))
    mean, _ = cell.step(a, r, torch.randn(1000, UNITS), torch.randn(1000, UNITS) if cell.has_memory else None)
    low, high = cell.range
    assert ((mean >= low) & (mean <= high)).all()
    assert ((mean == low) | (mean == high)).any() == cell.attains_range


class Softsign(Cell):
    range = (-1.0, 1.0)

    def step(self, a: Tensor, p: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return nn.functional.softsign(a + p), None


def test_custom_cell_uses_the_loop() -> None:
    rnn = NoisyRNN(FEATURES, UNITS, cell=Softsign()).double()
    assert rnn.backends(BATCH) == ["loop"]
    rnn(make_inputs())[0].sum().backward()
    assert rnn.weight_hh_l0.grad is not None and rnn.weight_hh_l0.grad.isfinite().all()


@pytest.mark.parametrize("name", CELLS)
def test_subclass_inherits_the_fast_backends_unless_it_overrides_step(name: str) -> None:
    class Renamed(CELLS[name]):  # type: ignore[misc]
        pass

    class Scaled(CELLS[name]):  # type: ignore[misc]
        def step(self, a: Tensor, p: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
            return super().step(0.5 * a, p, z, c)

    class Both(Scaled):
        scan_cell = CELLS[name].scan_cell

    for capability in ("fused_kernel", "scan_cell", "all_steps"):
        assert getattr(Renamed, capability) is getattr(CELLS[name], capability)
    assert (Scaled.fused_kernel, Scaled.scan_cell, Scaled.all_steps) == (None, None, Cell.all_steps)
    assert Both.scan_cell is CELLS[name].scan_cell and Both.fused_kernel is None

    cell = Scaled()
    rnn = make_rnn(cell)  # type: ignore[arg-type]
    assert rnn.backends(BATCH) == ["loop"]
    trace = traced(rnn, make_inputs())
    path = trace.nodes["z_1"]["fn"]
    epsilon = path.innovate(trace.nodes["z_1"]["value"])  # from all means at once, with the same step
    close(path.transport(epsilon), trace.nodes["z_1"]["value"])


class Damped(Cell, nn.Module):
    """A share of the state, learned for each unit, is carried over; a second state is the sum of all means."""

    gates, has_memory = 2, True

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.full((UNITS,), 0.3))

    def step(self, a: Tensor, p: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
        assert c is not None
        first, second = (a + p).chunk(2, -1)
        mean = self.share * z + torch.sigmoid(second) * torch.tanh(first + 0.1 * c)
        return mean, c + mean


@pytest.mark.parametrize("cell", [Softsign, Damped])
def test_custom_cell_runs_in_every_view_with_a_guide_and_in_the_particle_filter(cell: type[Cell]) -> None:
    model = SequenceModel(NoisyRNN(FEATURES, UNITS, 2, cell=cell()), "bernoulli", 4).double()
    inputs, targets = make_inputs(), torch.rand(BATCH, STEPS, 4, dtype=torch.float64).round()
    trace = traced(model, inputs, targets)
    z = {name: trace.nodes[name]["value"] for name in ("z_1", "z_2")}
    steps = traced(nz.unroll(poutine.condition(model, data=z)), inputs, targets)
    close(steps.log_prob_sum(), trace.log_prob_sum())
    noise = {f"{name}_noise": trace.nodes[name]["fn"].innovate(value) for name, value in z.items()}
    same = traced(poutine.condition(nz.innovations(model), data=noise), inputs, targets)
    close(same.nodes["z_2"]["value"], z["z_2"])
    data = nz.data.Sequences(inputs, targets)
    for guide in ("mean-field", "smoothing"):
        bound = nz.PriorAsGuide_ELBO(2)(model, nz.guides.get(guide, model))
        bound(inputs, targets).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    scores = [nz.evaluate(model, data, method, num_samples=8) for method in ("importance", "particle-filter")]
    assert all(score.nats_per_step > 0 for score in scores)
    model.rnn.spread = 0.0
    scores = [nz.evaluate(model, data, method) for method in (None, "particle-filter")]
    assert scores[0].nats_per_step == pytest.approx(scores[1].nats_per_step)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"name": None}, "cell: Wrong.name must be a string, got None; declare it"),
        ({"gates": 0}, "cell: Wrong.gates must be a positive integer, got 0"),
        ({"range": (1.0, -1.0)}, r"cell: Wrong.range must be a pair \(low, high\) with low < high"),
        ({"range": ("0", "1")}, r"cell: Wrong.range must be a pair"),
        ({"has_memory": None}, "cell: Wrong.has_memory must be True or False, got None"),
        ({"attains_range": 1}, "cell: Wrong.attains_range must be True or False, got 1"),
        ({"gates": 2}, rf"of shapes \[\(1, {UNITS}\), None\] where gates is 2 .* got \[\(1, {2 * UNITS}\), None\]"),
        ({"has_memory": True}, rf"and has_memory True, got \[\(1, {UNITS}\), None\]"),
        ({"step": lambda self, a, p, z, c: a + p}, rf"Wrong.step must return .* got \[\({UNITS},\)\]"),
        ({"step": lambda self, a, p, z, c: (a @ p, c)}, r"Wrong.step\(a, p, z, c\) fails on .* \(RuntimeError: "),
        ({"step": lambda self, a, p: (a + p, None)}, r"Wrong.step\(a, p, z, c\) fails on .* \(TypeError: "),
    ],
)
def test_cell_is_checked_at_construction_of_a_layer(attributes: dict[str, object], message: str) -> None:
    wrong = type("Wrong", (Softsign,), attributes)
    with pytest.raises(ValueError, match=message):
        NoisyRNN(FEATURES, UNITS, cell=wrong())
