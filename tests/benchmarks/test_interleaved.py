"""Turns on a clock that only the contestants advance, and ratios of paired rounds with known answers."""

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

Timing = Callable[[str], Any]
COSTS = {"quick": 0.0625, "slow": 0.5, "quickest": 0.00390625}  # seconds, exact in binary
ROUND = 6 * 0.0625 + 3 * 0.5 + 52 * 0.00390625  # seconds of a round: timed calls and two before them, which are not


@pytest.fixture
def table(timing: Timing, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, the steps, and the calls in order."""
    now, made = [0.0], []

    def step(name: str) -> None:
        now[0] += COSTS[name]
        made.append(name)

    module = timing("interleaved")
    shares: list[float] = []
    others = itertools.cycle(
        [lambda: 0.0, lambda: shares.pop(0) * ROUND if shares else 0.0]
    )  # before and after a round

    monkeypatch.setattr(module, "timer", lambda: now[0])
    monkeypatch.setattr(module, "others_seconds", lambda: next(others)())
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)
    steps = {name: lambda name=name: step(name) for name in COSTS}
    return SimpleNamespace(module=module, steps=steps, made=made, shares=shares)


def test_times_are_per_call_and_turns_are_equally_long(table: Any) -> None:
    rounds = table.module.time_in_turns(table.steps, max_rounds=5, min_rounds=1, max_seconds=1e9)
    assert rounds.calls == {"quick": 4, "slow": 1, "quickest": table.module.MAX_CALLS}
    assert rounds.seconds == {name: [cost] * 5 for name, cost in COSTS.items()}
    # one call to find the length of a turn and then the turns, each after two calls that are not timed
    assert Counter(table.made) == {"quick": 3 + 5 * 6, "slow": 3 + 5 * 3, "quickest": 3 + 5 * 52}


@pytest.mark.parametrize(("least", "expected"), [(1, 2), (4, 4)])
def test_no_round_starts_late_except_to_reach_the_minimum(table: Any, least: int, expected: int) -> None:
    rounds = table.module.time_in_turns(
        table.steps, max_rounds=9, min_rounds=least, max_seconds=3.0
    )  # a round takes 2.1
    assert {len(times) for times in rounds.seconds.values()} == {expected}


def test_rounds_under_load_are_discarded(table: Any) -> None:
    table.shares[:] = [0.5, 0.01, 0.2, 0.03]
    rounds = table.module.time_in_turns(table.steps, max_rounds=4, min_rounds=1, max_seconds=1e9)
    assert {len(times) for times in rounds.seconds.values()} == {4}
    assert (rounds.discarded, rounds.others) == (2, pytest.approx((0.01 + 0.03) / 4))


def test_under_constant_load_the_quietest_rounds_count(table: Any) -> None:
    table.shares[:] = [0.5, 0.1, 0.01, 0.3, 0.2]
    rounds = table.module.time_in_turns(table.steps, max_rounds=9, min_rounds=3, max_seconds=9.0)
    assert (len(rounds.seconds["slow"]), rounds.discarded) == (3, 2)
    assert rounds.others == pytest.approx((0.1 + 0.01 + 0.2) / 3)
    assert table.module.quiet_rounds([0.5, 0.1, 0.01, 0.3, 0.2], 3) == [1, 2, 4]


def test_every_step_takes_every_place_and_follows_every_neighbor(timing: Timing) -> None:
    names = ["a", "b", "c", "d"]
    orders = [timing("interleaved").turn_order(names, count) for count in range(8)]
    assert all(sorted(order) == names for order in orders)
    assert {(place, name) for order in orders for place, name in enumerate(order)} == {
        (place, name) for place in range(4) for name in names
    }
    followed = {(first, second) for order in orders for first, second in itertools.pairwise(order)}
    assert all((b, a) in followed for a, b in followed) and len({first for first, _ in followed}) == 4


def test_the_time_of_others_excludes_this_process(
    timing: Timing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = timing("interleaved")
    ticks = module.os.sysconf("SC_CLK_TCK")
    stat = tmp_path / "stat"
    monkeypatch.setattr(module, "PROC_STAT", stat)
    assert module.others_seconds() == 0.0
    monkeypatch.setattr(module.time, "process_time", lambda: 12.0)
    # user, nice, system, idle, iowait, irq, softirq, steal: 15 busy seconds, of which this process has 12
    stat.write_text(f"cpu {13 * ticks} 0 {ticks} {90 * ticks} {5 * ticks} 0 0 {ticks} 0 0\ncpu0 1 2\n")
    assert module.others_seconds() == pytest.approx(3.0)


def test_quartiles_of_known_numbers(timing: Timing) -> None:
    assert timing("interleaved").quartiles([5.0, 1.0, 4.0, 2.0, 3.0]) == (3.0, 2.0, 4.0)


def test_what_slows_a_round_slows_both_and_leaves_the_ratio(timing: Timing) -> None:
    under = np.random.default_rng(0).exponential(size=15)
    assert timing("interleaved").paired_ratio(2.5 * under, under) == pytest.approx((2.5, 2.5, 2.5))


def test_the_interval_is_that_of_the_median(timing: Timing) -> None:
    # The median of 7 draws with replacement is at most the k-th smallest with chance P(Binomial(7, k/7) >= 4): 0.010,
    # 0.108, ... for k = 1, 2; so its quantile of 2.5 % is the second smallest, far from either limit, and by symmetry
    # that of 97.5 % the second largest.
    each = np.array([1.0, 1.1, 1.3, 1.6, 2.0, 2.5, 3.1])
    under = np.random.default_rng(1).exponential(size=7)
    for order in (slice(None), slice(None, None, -1)):
        assert timing("interleaved").paired_ratio(each[order] * under, under) == pytest.approx((1.6, 1.1, 2.5))


def test_rounds_must_be_paired(timing: Timing) -> None:
    with pytest.raises(ValueError, match="same rounds, at least one, got 2 and 1"):
        timing("interleaved").paired_ratio([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="got 0 and 0"):
        timing("interleaved").paired_ratio([], [])
