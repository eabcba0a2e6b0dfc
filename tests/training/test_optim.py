"""Optimizers by name: averaging and decay of weights against plain computations, and saved states."""

import copy

import pytest
import torch

import noisin_pyro as nz
from noisin_pyro.models import Spread
from noisin_pyro.training.optim import (
    averaged_weights,
    build_optimizer,
    default_weight_decay,
    load_state,
    spared_from_decay,
)
from noisin_pyro.training.type_checks import same_structure


@pytest.mark.parametrize("after", [None, 0, 1, 3, 8])
def test_averaged_sgd_is_sgd_beside_the_mean_of_its_weights(after: int | None) -> None:
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
    with averaged_weights(optimizers[0]):
        torch.testing.assert_close(line.weight.detach(), torch.stack(visited[after or 0 :]).mean(0))
    assert torch.equal(line.weight, last)


def test_an_optimizer_without_averages_leaves_the_weights_alone() -> None:
    line = torch.nn.Linear(3, 2)
    before = line.weight.detach().clone()
    with averaged_weights(build_optimizer("Adam", line.parameters(), 0.1)):
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
def test_a_state_is_loaded_only_by_its_own_kind_of_optimizer(name: str, dtype: torch.dtype) -> None:
    def made(width: int, steps: int = 0) -> torch.optim.Optimizer:
        line = torch.nn.Linear(3, width, dtype=dtype)
        optimizer = build_optimizer(name, line.parameters(), 0.1)
        line(torch.ones(3, dtype=dtype)).square().sum().backward()
        for _ in range(steps):
            optimizer.step()
        return optimizer

    used, fresh = made(2, steps=1), made(2)
    state_of_used = used.state_dict()["state"]
    load_state(fresh, {"state": state_of_used})
    actual = fresh.state_dict()["state"]
    assert same_structure(actual, state_of_used)
    for number, values in state_of_used.items():
        torch.testing.assert_close(actual[number], values, rtol=0, atol=0)
    wrong: list[dict] = [{7: {}}, {0: {"momentum": "x"}}]
    if state_of_used:  # plain SGD has no state
        wrong += [{0: {}}, {0: dict.fromkeys(state_of_used[0], "x")}, made(5, steps=1).state_dict()["state"]]
    for state in wrong:
        with pytest.raises(ValueError, match=f"state of {name} is that of another optimizer or model"):
            load_state(made(2), {"state": state})


def make_bound(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    model = nz.LanguageModel(7, 4, spread=Spread(0.4, learn=True), **options).double()  # type: ignore[arg-type]
    return nz.PriorAsGuide_ELBO(max_plate_nesting=1)(model)


def loss_of(bound: torch.nn.Module) -> torch.Tensor:
    words = torch.arange(20).reshape(2, 10) % 7
    torch.manual_seed(1)
    return bound(words[:, :-1], words[:, 1:])


def test_a_step_of_sgd_is_that_of_the_loss_with_half_the_squared_weights() -> None:
    plain, decaying = make_bound(), make_bound()
    first = build_optimizer("sgd", plain.parameters(), 0.1)
    second = build_optimizer("sgd", decaying.parameters(), 0.1, weight_decay=0.3, spared=spared_from_decay(decaying))
    weights = [p for name, p in plain.named_parameters() if "spread" not in name]
    assert len(weights) == len(list(plain.parameters())) - 1
    (loss_of(plain) + 0.15 * torch.stack([w.square().sum() for w in weights]).sum()).backward()
    loss_of(decaying).backward()
    first.step()
    second.step()
    for actual, expected in zip(decaying.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Rprop"])
def test_weights_decay_and_spreads_do_not(name: str) -> None:
    bound = make_bound()
    before = {name: p.detach().clone() for name, p in bound.named_parameters()}
    optimizer = build_optimizer(name, bound.parameters(), 0.01, weight_decay=0.5, spared=spared_from_decay(bound))
    for parameter in bound.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, parameter in bound.named_parameters():
        if "spread" in key:
            assert torch.equal(parameter, before[key])
        else:  # towards 0, which the softmax's biases start at
            assert torch.equal((parameter - before[key]).sign(), -before[key].sign()), key


def test_without_decay_there_is_one_group_with_the_optimizer_s_own() -> None:
    bound = make_bound()
    for name in ("adam", "adamw"):  # 0 overrides the optimizer's own default
        plain = build_optimizer(name, bound.parameters(), 0.1, weight_decay=0.0, spared=spared_from_decay(bound))
        assert [group["weight_decay"] for group in plain.param_groups] == [0.0]
    own = build_optimizer("adamw", bound.parameters(), 0.1, spared=spared_from_decay(bound))
    assert [group["weight_decay"] for group in own.param_groups] == [0.01, 0.0] and default_weight_decay(
        "adamw"
    ) == 0.01
    assert sum(len(group["params"]) for group in own.param_groups) == len(list(bound.parameters()))


def test_an_optimizer_without_decay_refuses_one() -> None:
    assert default_weight_decay("rprop") is None
    with pytest.raises(ValueError, match=r"weight decay 0\.1: Rprop has none"):
        build_optimizer("rprop", make_bound().parameters(), 0.1, weight_decay=0.1)
