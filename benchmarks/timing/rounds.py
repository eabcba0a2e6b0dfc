"""Times of contestants that take turns in one process."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.utils.benchmark import timer  # waits for the GPU, where there is one, before it reads the clock

BLOCK, LARGEST = 0.25, 50  # seconds of a turn, and the most steps in it


def turns(steps: Mapping[str, Callable[[], Any]]) -> dict[str, int]:
    """How many steps each contestant makes in a turn; the first ones also wake kernels and caches."""
    sizes = {}
    for name, step in steps.items():
        fastest = min(_seconds(step, 1) for _ in range(3))
        sizes[name] = min(LARGEST, max(1, math.ceil(BLOCK / fastest)))
    return sizes


def rounds(
    steps: Mapping[str, Callable[[], Any]], most: int, least: int, seconds: float
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds a step of each contestant in each round, and the number of steps in a turn.

    In a round every contestant has one turn: the mean of some steps in a row, after one that is not timed (the others
    have had the caches), where steps are short. The order runs backwards in every second round and moves on by one in
    every other, so that nobody always follows the same. ``torch.utils.benchmark.Timer`` keeps the clock; its own turns
    would begin with two untimed steps each time.

    Args:
        steps: a function for each contestant.
        most, least: rounds.
        seconds: no new round begins after this time, but for the least.
    """
    sizes = turns(steps)
    times: dict[str, list[float]] = {name: [] for name in steps}
    began = timer()
    for count in range(most):
        if count >= least and timer() - began > seconds:
            break
        for name in order(steps, count):
            gc.collect()  # what others leave behind is not this one's to tidy up
            if sizes[name] > 1:
                steps[name]()
            times[name].append(_seconds(steps[name], sizes[name]))
    return times, sizes


def order(names: Iterable[str], count: int) -> list[str]:
    """Who comes after whom in a round."""
    listed = list(names)
    first = count // 2 % len(listed)
    turned = listed[first:] + listed[:first]
    return turned[::-1] if count % 2 else turned


def _seconds(step: Callable[[], Any], number: int) -> float:
    start = timer()
    for _ in range(number):
        step()
    return (timer() - start) / number
