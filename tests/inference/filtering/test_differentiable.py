"""The gradient of log p̂, against autograd through the weights."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro import SequenceModel
from noisin_pyro.data import Batch
from noisin_pyro.inference.filtering.differentiable import differentiable_filter
from noisin_pyro.inference.filtering.particle_filter import FilterStep, Settings, filter_window
from noisin_pyro.models import EMISSIONS, Emission, scored_steps

from ...small_layers import make_rnn

BATCH, STEPS, PARTICLES, OUTPUTS = 3, 6, 4, 4


class WithDropout(Emission):
    """One whose density differs from call to call, by a mask for each pair of a sequence and a step."""

    def forward(self, z: Tensor) -> Any:
        *_, batch, steps, _ = z.shape
        mask = torch.bernoulli(torch.full((batch, steps, 1), 0.5).to(z))
        return dist.Bernoulli(logits=mask * self.read_out(z)).to_event(1)


def make(emission: str, **options: Any) -> SequenceModel:
    options = {"cell": "lstm", "num_layers": 2, "spread": 0.8, **options}
    if emission == "dropout":
        return SequenceModel(make_rnn(**options), WithDropout(make_rnn().hidden_size, OUTPUTS)).double()
    return SequenceModel(make_rnn(**options), emission, OUTPUTS).double()


def make_batch(model: SequenceModel, gaps: bool) -> Batch:
    inputs = torch.randn(BATCH, STEPS, 2).double()
    targets = model(inputs).emission.sample()
    lengths = torch.tensor([STEPS, 4, 1]) if gaps else None
    return Batch(inputs, targets, lengths, False, torch.rand(BATCH, STEPS) < 0.6 if gaps else None)


def through_weights(model: SequenceModel, batch: Batch, settings: Settings, ancestor_term: bool) -> Tensor:
    """Σ log p̂ with weights that have gradients; in resampling, each carries its ancestor's, divided by its value."""
    steps: list[FilterStep] = []
    filter_window(model, batch, None, settings, visit=steps.append)
    scored, real = (
        torch.ones(BATCH, STEPS, dtype=torch.bool) if of is None else of
        for of in (scored_steps(batch.lengths, batch.mask, STEPS), scored_steps(batch.lengths, None, STEPS))
    )
    log_w = torch.zeros(PARTICLES, BATCH).double() - torch.tensor(PARTICLES).log()
    total = torch.zeros(()).double()
    for t, step in enumerate(steps):
        log_p, log_ratio = step.log_p, step.proposed.log_ratio
        if log_p is None:
            x_t = batch.targets[:, t : t + 1]
            log_p = model.emission(step.proposed.output.unsqueeze(-2)).log_prob(x_t)
        log_w = log_w + log_p.view(PARTICLES, BATCH).where(scored[:, t], 0.0)
        if log_ratio is not None:
            log_w = log_w + log_ratio.where(real[:, t], 0.0)
        changes = scored if log_ratio is None else real
        increment = log_w.logsumexp(0).where(changes[:, t:].any(1), 0.0)
        total, log_w = total + increment.sum(), log_w - increment
        if step.ancestors is not None:
            carried = (log_w - log_w.detach()).gather(0, step.ancestors[0]) if ancestor_term else 0.0 * log_w
            log_w = torch.where(step.resampled[0], carried - torch.tensor(PARTICLES).log(), log_w)
    return total


@pytest.mark.parametrize("ancestor_term", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("case", [*EMISSIONS, "dropout", "guide", "poisson:native"])
def test_gradient_is_that_through_the_weights(case: str, gaps: bool, threshold: float, ancestor_term: bool):
    emission = case if case in {*EMISSIONS, "dropout"} else "bernoulli"
    model = make(emission, **({"noise": case, "cell": "sigmoid"} if case == "poisson:native" else {}))
    guide = nz.guides.get("filtering", model, hidden_size=4).double() if case == "guide" else None
    batch, settings = make_batch(model, gaps), Settings(1, PARTICLES, threshold, guide)
    parameters = [*model.parameters(), *(() if guide is None else guide.parameters())]
    values, gradients = [], []
    for is_reference in (False, True):
        pyro.set_rng_seed(1)
        if is_reference:
            value = through_weights(model, batch, settings, ancestor_term)
        else:
            value = differentiable_filter(model, batch, None, settings, ancestor_term)[0].sum()
        values.append(value)
        gradients.append(torch.autograd.grad(value, parameters, allow_unused=True))
    torch.testing.assert_close(*values)
    assert any(gradient is not None and gradient.any() for gradient in gradients[0])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("emission", ["bernoulli", "categorical"])
def test_emission_is_differentiated_at_particles_with_descendants_only(emission: str, monkeypatch: pytest.MonkeyPatch):
    model, rows = make(emission), []
    batch, forward = make_batch(model, gaps=False), type(model.emission).forward

    def counting(self: Any, z: Tensor) -> Any:
        if torch.is_grad_enabled():
            rows.append(z.shape[:-1].numel())
        return forward(self, z)

    monkeypatch.setattr(type(model.emission), "forward", counting)
    for threshold in (0.0, 1.0):
        differentiable_filter(model, batch, None, Settings(1, PARTICLES, threshold), True)
    assert rows[0] == PARTICLES * BATCH * STEPS
    assert PARTICLES * BATCH <= rows[1] < 0.8 * rows[0]
