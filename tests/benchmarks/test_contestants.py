"""The contestants agree with their descriptions: networks, losses, noise and masks."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from noisin_pyro.training.run import program_settings

pytestmark = pytest.mark.slow

Timing = Callable[[str], Any]
CPU = torch.device("cpu")
TEXT = {"units": 6, "batch": 3, "window": 5, "outputs": 11, "precision": "float64"}
MUSIC = TEXT | {"data": "jsb"}
STEPS = 6


@pytest.fixture(autouse=True)
def settings() -> Any:
    with program_settings():
        yield


@pytest.fixture
def make(timing: Timing) -> Callable[..., Any]:
    def make(name: str, **shape: Any) -> Any:
        made = timing("shapes").Shape(**shape)
        return timing("contestants").build(name, made, timing("shapes").windows(made, CPU), CPU)

    return make


def copy_weights(source: Any, target: Any) -> None:
    """From one of torch's networks into our model."""
    weights = source.network.state_dict()
    renamed = {name.replace("linear.", "emission.linear."): value for name, value in weights.items()}
    target.model.load_state_dict(renamed)


def weights(contestant: Any) -> dict[str, Tensor]:
    model = getattr(contestant, "network", None) or getattr(contestant, "model", None) or contestant.rnn
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


SHAPES = [{**data, "cell": cell, "layers": 2} for data in (TEXT, MUSIC) for cell in ("tanh", "lstm")]
TRAINED = (
    "plain",
    "ours-noise-free",
    "ours",
    "ours-learned",
    "ours-multiplicative",
    "ours-dropout",
    "ours-uncaptured",
    "loop",
    "variational-dropout",
    "trace-elbo",
)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.get('data', 'text')}-{s['cell']}")
@pytest.mark.parametrize("name", TRAINED)
def test_a_step_moves_every_weight_and_carries_the_state(make: Any, name: str, shape: dict[str, Any]) -> None:
    contestant = make(name, **shape)
    before, losses = weights(contestant), [float(contestant.step()) for _ in range(2)]
    assert all(math.isfinite(loss) for loss in losses) and losses[0] != losses[1]
    moved = {key: not torch.equal(value, before[key]) for key, value in weights(contestant).items()}
    assert all(moved.values()), moved
    state = getattr(contestant, "train_step", contestant).state
    states = state if isinstance(state, tuple) else (state,)
    assert len(states) == (2 if shape["cell"] == "lstm" else 1)
    for state in states:
        assert state.shape == (2, 3, 6) and not state.requires_grad and bool(state.any())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.get('data', 'text')}-{s['cell']}")
def test_without_noise_ours_and_the_loop_train_as_plain_does(
    make: Any, timing: Timing, monkeypatch: pytest.MonkeyPatch, shape: dict[str, Any]
) -> None:
    monkeypatch.setattr(timing("baselines"), "GAMMA", 0.0)
    plain, ours, loop = (make(name, **shape) for name in ("plain", "ours-noise-free", "loop"))
    copy_weights(plain, ours)
    loop.network.load_state_dict(plain.network.state_dict())
    for _ in range(STEPS):
        losses = [float(each.step()) for each in (plain, ours, loop)]
        assert losses == pytest.approx([losses[0]] * 3, rel=1e-10)
    expected = weights(plain)
    for name, value in weights(ours).items():
        torch.testing.assert_close(value, expected[name.replace("emission.", "")], rtol=1e-7, atol=1e-9)
    for name, value in weights(loop).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.get('data', 'text')}-{s['cell']}")
def test_with_noise_the_losses_have_one_mean(make: Any, shape: dict[str, Any]) -> None:
    ours, loop, program = (make(name, **shape) for name in ("ours", "loop", "trace-elbo"))
    copy_weights(loop, ours)
    program.network.load_state_dict(loop.network.state_dict())
    batch = next(ours.batches)
    with torch.no_grad():
        draws = [
            torch.stack([ours.bound(batch.inputs, batch.targets) / batch.num_steps for _ in range(300)]),
            *(torch.stack([each.network.loss(batch, None)[0] for _ in range(300)]) for each in (loop, program)),
        ]
    for other in draws[1:]:
        error = math.sqrt((draws[0].var() + other.var()) / 300)
        assert error > 0 and abs(draws[0].mean() - other.mean()) < 5 * error  # a false alarm in 1.7 million


def test_a_guide_that_repeats_the_prior_costs_nothing(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # for the z that were drawn the loss is the emission's alone
    program = make("trace-elbo", **TEXT, layers=2)
    batch, kept = next(program.batches), []
    monkeypatch.setattr(program.network, "mask_outputs", lambda x: kept.append(x) or x)
    loss, _ = program.network.loss(batch, None)
    guide_z, model_z = kept
    assert torch.equal(guide_z, model_z)
    scores = program.network.linear(model_z).flatten(0, 1)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(scores, batch.targets.flatten()))


class TestVariationalDropout:
    SHAPE = TEXT | {"units": 40, "window": 20, "outputs": 50}

    def test_word_types_are_dropped_everywhere_or_nowhere(self, make: Any) -> None:
        network = make("variational-dropout", **self.SHAPE).network
        words = torch.arange(50).repeat(3, 2)  # each word twice a sequence
        embedded = network.embed(words)
        kept = embedded.abs().sum(-1) > 0
        assert (kept == kept[:1, :50].repeat(3, 2)).all() and 0 < kept[0, :50].sum() < 50
        torch.testing.assert_close(embedded[kept], network.embedding(words)[kept] / 0.7)

    @pytest.mark.parametrize("cell", ["tanh", "lstm"])
    def test_masks_of_inputs_and_outputs_are_fixed_over_time(self, make: Any, cell: str) -> None:
        network = make("variational-dropout", **self.SHAPE, cell=cell).network
        x = torch.randn(3, 20, 40, dtype=torch.float64, requires_grad=True)
        z, _ = network.layers(x, None)
        z.sum().backward()
        for result in (z, x.grad):
            dropped = result == 0
            assert (dropped == dropped[:, :1]).all() and 0.15 < dropped[:, 0].double().mean() < 0.45
            assert not (dropped[0] == dropped[1]).all()  # each sequence its own

    def test_the_mask_of_the_recurrence_is_fixed_over_time(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        # Units that read themselves alone, from 1: one that is dropped is 0 at every step, another at none.
        network = make("variational-dropout", **self.SHAPE).network
        with torch.no_grad():
            for parameter in network.rnn.parameters():
                parameter.zero_()
            network.rnn.weight_hh_l0.copy_(torch.eye(40))
        monkeypatch.setattr(network, "mask_outputs", lambda x: x)
        start = torch.ones(1, 3, 40, dtype=torch.float64)
        patterns = []
        for _ in range(2):
            z, _ = network.layers(torch.zeros(3, 20, 40, dtype=torch.float64), start)
            dropped = z == 0
            assert (dropped == dropped[:, :1]).all() and 0.15 < dropped[:, 0].double().mean() < 0.45
            torch.testing.assert_close(
                z[:, 0][~dropped[:, 0]], torch.full_like(z[:, 0], 1 / 0.7).tanh()[~dropped[:, 0]]
            )
            patterns.append(dropped)
        assert not (patterns[0] == patterns[1]).all()  # a window its own


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_layers_alone_have_the_gradients_that_the_names_say(make: Any, cell: str) -> None:
    for name in ("nn", "noise-free", "additive", "additive-learned", "multiplicative"):
        layer = make(name, **TEXT, cell=cell)
        layer.step()
        first = layer.x.grad.clone()
        layer.step()
        again = layer.x.grad
        assert bool(first.any()) and torch.equal(first, again) == (name in ("nn", "noise-free"))
        assert all(parameter.grad is not None for parameter in layer.rnn.parameters())
