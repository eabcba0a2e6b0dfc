"""The Deep Markov Model against a program with one site per step."""

from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

from noisin_pyro.data import Sequences

LENGTHS = torch.tensor([7, 3, 1, 5])


@pytest.fixture
def settings(dmm: Any) -> Any:
    sizes = {"z_units": 3, "emission_units": 4, "transition_units": 5, "rnn_units": 6}
    return dmm.Settings(**sizes, batch_size=2, annealing_epochs=4, learning_rate=0.01)


@pytest.fixture
def data() -> Sequences:
    chords = (torch.rand(4, 7, 5) < 0.3).float()
    return Sequences(chords.roll(1, 1), chords, LENGTHS)


def per_step(model: Any, x: torch.Tensor, z: torch.Tensor) -> tuple[Any, Any]:
    """log p(x, z) and log q(z | x) of one sequence without padding, by sites z_t and x_t."""

    def program() -> None:
        before = model.z_0
        for t in range(len(x)):
            before = pyro.sample(f"z_{t}", dist.Normal(*model.transition(before)).to_event(1), obs=z[t])
            pyro.sample(f"x_{t}", dist.Bernoulli(logits=model.emitter(before)).to_event(1), obs=x[t])

    def guide() -> None:
        before = model.z_q_0
        for t in range(len(x)):
            _, state = model.rnn(x[t:].flip(0)[None], model.h_0)
            before = pyro.sample(f"z_{t}", dist.Normal(*model.combiner(before, state[0, 0])).to_event(1), obs=z[t])

    log_p, log_q = (poutine.trace(each).get_trace().log_prob_sum() for each in (program, guide))
    return log_p, log_q


def test_one_site_a_trajectory_has_the_densities_of_one_a_step(dmm: Any, settings: Any, data: Sequences) -> None:
    model = dmm.DeepMarkovModel(5, settings).double()
    torch.nn.init.normal_(model.h_0)  # zeros at first, which would hide a start that is ignored
    torch.nn.init.normal_(model.z_q_0)
    torch.nn.init.normal_(model.z_0)
    arguments = (data.inputs.double(), data.targets.double(), None, LENGTHS)
    guide_trace = poutine.trace(model.guide).get_trace(*arguments)
    model_trace = poutine.trace(poutine.replay(model.model, trace=guide_trace)).get_trace(*arguments)
    guide_trace.compute_log_prob()
    model_trace.compute_log_prob()
    z = guide_trace.nodes["z"]["value"]
    torch.testing.assert_close(guide_trace.nodes["z"]["fn"].log_prob(z.clone()), guide_trace.nodes["z"]["log_prob"])
    for row, length in enumerate(LENGTHS):
        log_p, log_q = per_step(model, data.targets[row, :length].double(), z[row, :length])
        torch.testing.assert_close(sum(model_trace.nodes[name]["log_prob"][row] for name in "zx"), log_p)
        torch.testing.assert_close(guide_trace.nodes["z"]["log_prob"][row], log_q)


def test_annealing_weighs_the_divergence_alone(dmm: Any, settings: Any, data: Sequences) -> None:
    model = dmm.DeepMarkovModel(5, settings)
    losses = []
    for annealing in (1.0, 0.6, 0.2):
        model.annealing = annealing
        pyro.set_rng_seed(2)
        losses.append(Trace_ELBO().loss(model.model, model.guide, data.inputs, data.targets, lengths=LENGTHS))
    assert losses[0] - losses[1] == pytest.approx(losses[1] - losses[2], rel=1e-4)
    assert abs(losses[0] - losses[2]) > 1


@pytest.mark.slow
def test_training_resumes_bit_for_bit(dmm: Any, settings: Any, data: Sequences, tmp_path: Path) -> None:
    whole = dmm.Training(data, settings, seed=3)
    start = dmm.negative_bound(whole.dmm, data)
    whole.epoch()
    whole.save(tmp_path / "last.pt")
    expected = [whole.epoch() for _ in range(3)]
    assert whole.dmm.annealing == 1.0

    resumed = dmm.Training(data, settings, seed=4)
    resumed.restore(tmp_path / "last.pt")
    assert [resumed.epoch() for _ in range(3)] == expected
    for name, value in whole.dmm.state_dict().items():
        assert torch.equal(resumed.dmm.state_dict()[name], value)
    for _ in range(100):
        whole.epoch()
    assert dmm.negative_bound(whole.dmm, data) < start - 0.5
