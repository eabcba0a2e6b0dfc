"""Averaged SGD, against the mean taken by hand."""

import copy

import pytest
import torch

from noisin_pyro.training.kinds import alike
from noisin_pyro.training.optimizers import averaged, build_optimizer, load_state


@pytest.mark.parametrize("after", [0, 3])
def test_averaged_sgd_is_sgd_beside_the_mean_of_its_weights(after: int) -> None:
    line = torch.nn.Linear(3, 2, dtype=torch.float64)
    plain = copy.deepcopy(line)
    optimizers = [
        build_optimizer("asgd", line.parameters(), 0.1, average_after=after),
        torch.optim.SGD(plain.parameters(), lr=0.1),
    ]
    visited = []
    for _ in range(9):
        data = torch.randn(4, 3, dtype=torch.float64)
        for model, optimizer in zip((line, plain), optimizers, strict=True):
            optimizer.zero_grad()
            model(data).square().mean().backward()
            optimizer.step()
        visited.append(plain.weight.detach().clone())
    last = line.weight.detach().clone()
    torch.testing.assert_close(last, visited[-1])
    with averaged(optimizers[0]):  # torch leaves the first of the steps to average out
        torch.testing.assert_close(line.weight.detach(), torch.stack(visited[after + 1 :]).mean(0))
    assert torch.equal(line.weight, last)


def test_an_optimizer_without_averages_leaves_the_weights_alone() -> None:
    line = torch.nn.Linear(3, 2)
    before = line.weight.detach().clone()
    with averaged(build_optimizer("Adam", line.parameters(), 0.1)):
        assert torch.equal(line.weight, before)


NAMES = (
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "ASGD",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_a_state_goes_to_its_own_kind_of_optimizer_alone(name: str, dtype: torch.dtype) -> None:
    def made(width: int, steps: int = 0) -> torch.optim.Optimizer:
        line = torch.nn.Linear(3, width, dtype=dtype)
        optimizer = build_optimizer(name, line.parameters(), 0.1)
        line(torch.ones(3, dtype=dtype)).square().sum().backward()
        for _ in range(steps):
            optimizer.step()
        return optimizer

    used, fresh = made(2, steps=1), made(2)
    kept = used.state_dict()["state"]
    load_state(fresh, {"state": kept})
    found = fresh.state_dict()["state"]
    assert alike(found, kept)
    for number, values in kept.items():
        torch.testing.assert_close(found[number], values, rtol=0, atol=0)
    wrong: list[dict] = [{7: {}}, {0: {"momentum": "x"}}]
    if kept:  # plain SGD keeps nothing
        wrong += [{0: {}}, {0: dict.fromkeys(kept[0], "x")}, made(5, steps=1).state_dict()["state"]]
    for state in wrong:
        with pytest.raises(ValueError, match=f"kept for {name} is that of another optimizer or model"):
            load_state(made(2), {"state": state})
