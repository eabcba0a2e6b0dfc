"""The learning rate of each epoch."""

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from noisin_pyro.training.optim import build_optimizer, scheduled_rate, set_rate

VALID = [5.0, 4.0, 4.0, 4.5, 3.9, 3.8, 4.2, 3.7]


def _rates(schedule: str, **options: float) -> list[float]:
    return [scheduled_rate(schedule, 30.0, VALID[:epoch], **options) for epoch in range(len(VALID))]


def test_each_by_hand() -> None:
    assert _rates("fixed") == [30.0] * 8
    assert _rates("halve") == [30.0, 30.0, 30.0, 30.0, 15.0, 7.5, 3.75, 1.875]
    once, twice, thrice = (pytest.approx(30 / 1.2**k) for k in (1, 2, 3))
    assert _rates("divide") == [30.0, 30.0, 30.0, once, twice, twice, twice, thrice]


@pytest.mark.parametrize("schedule", ["halve", "divide"])
def test_they_are_those_of_torch(schedule: str) -> None:
    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=30.0)
    by_epoch = LambdaLR(optimizer, lambda done: 0.5 ** max(0, done - 3))
    by_nats = ReduceLROnPlateau(optimizer, factor=1 / 4, patience=0, threshold=0.0, eps=0.0)
    rates = []
    for nats in VALID:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if schedule == "halve":
            by_epoch.step()
        else:
            by_nats.step(nats)
    assert rates == pytest.approx(_rates(schedule, divisor=4.0))


@pytest.mark.parametrize("name", ["SGD", "ASGD"])
def test_a_rate_holds_from_the_next_step_on(name: str) -> None:
    weight = nn.Parameter(torch.zeros(()))
    optimizer = build_optimizer(name, [weight], 1.0)
    walked = []
    for value in (1.0, 0.5, 0.5, 0.125):
        set_rate(optimizer, value)
        weight.grad = torch.tensor(-1.0)
        optimizer.step()
        walked.append(weight.item())
    assert walked == [1.0, 1.5, 2.0, 2.125]
