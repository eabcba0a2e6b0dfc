"""Taking turns, on a clock that only the contestants move."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

Timing = Callable[[str], Any]
COSTS = {"quick": 0.0625, "slow": 0.5, "quickest": 0.00390625}  # seconds, exact in binary


@pytest.fixture
def table(timing: Timing, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, the contestants, and who has made a step when, in order."""
    now, made = [0.0], []

    def step(name: str) -> None:
        now[0] += COSTS[name]
        made.append(name)

    module = timing("rounds")
    shares: list[float] = []
    alone = SimpleNamespace(share=0.0)

    @contextlib.contextmanager
    def elsewhere() -> Any:
        yield SimpleNamespace(share=shares.pop(0)) if shares else alone

    monkeypatch.setattr(module, "timer", lambda: now[0])
    monkeypatch.setattr(module, "Elsewhere", elsewhere)
    steps = {name: lambda name=name: step(name) for name in COSTS}
    return SimpleNamespace(module=module, steps=steps, made=made, shares=shares)


def test_times_are_those_of_a_step_and_turns_fill_their_time(table: Any) -> None:
    found = table.module.rounds(table.steps, most=5, least=1, seconds=1e9)
    assert found.steps == {"quick": 4, "slow": 1, "quickest": table.module.LARGEST}
    assert found.seconds == {name: [cost] * 5 for name, cost in COSTS.items()}
    # three steps to begin with, then turns; where steps are short, with one before that is not timed
    assert Counter(table.made) == {"quick": 3 + 5 * 5, "slow": 3 + 5, "quickest": 3 + 5 * 51}


@pytest.mark.parametrize(("least", "expected"), [(1, 2), (4, 4)])
def test_the_time_is_kept_but_for_the_least(table: Any, least: int, expected: int) -> None:
    found = table.module.rounds(table.steps, most=9, least=least, seconds=1.5)  # a round takes one second
    assert {len(times) for times in found.seconds.values()} == {expected}


def test_rounds_with_others_do_not_count(table: Any) -> None:
    table.shares[:] = [0.5, 0.01, 0.2, 0.03]
    found = table.module.rounds(table.steps, most=4, least=1, seconds=1e9)
    assert {len(times) for times in found.seconds.values()} == {4}
    assert (found.disturbed, found.elsewhere) == (2, pytest.approx((0.01 + 0.03) / 4))


def test_if_others_never_rest_the_quietest_rounds_count(table: Any) -> None:
    table.shares[:] = [0.5, 0.1, 0.01, 0.3, 0.2]
    found = table.module.rounds(table.steps, most=9, least=3, seconds=4.5)
    assert (len(found.seconds["slow"]), found.disturbed) == (3, 2)
    assert found.elsewhere == pytest.approx((0.1 + 0.01 + 0.2) / 3)
    assert table.module.counting([0.5, 0.1, 0.01, 0.3, 0.2], 3) == [1, 2, 4]


def test_everybody_comes_everywhere_and_after_everybody(timing: Timing) -> None:
    names = ["a", "b", "c", "d"]
    orders = [timing("rounds").order(names, count) for count in range(8)]
    assert all(sorted(order) == names for order in orders)
    assert {(place, name) for order in orders for place, name in enumerate(order)} == {
        (place, name) for place in range(4) for name in names
    }
    followed = {(first, second) for order in orders for first, second in itertools.pairwise(order)}
    assert all((b, a) in followed for a, b in followed) and len({first for first, _ in followed}) == 4
