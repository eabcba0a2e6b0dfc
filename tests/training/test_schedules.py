"""The learning rate of each epoch."""

import pytest
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from noisin_pyro.training.schedules import rate

VALID = [5.0, 4.0, 4.0, 4.5, 3.9, 3.8, 4.2, 3.7]


def _rates(schedule: str, **options: float) -> list[float]:
    return [rate(schedule, 30.0, VALID[:epoch], **options) for epoch in range(len(VALID))]


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
    found = []
    for nats in VALID:
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if schedule == "halve":
            by_epoch.step()
        else:
            by_nats.step(nats)
    assert found == pytest.approx(_rates(schedule, divisor=4.0))
