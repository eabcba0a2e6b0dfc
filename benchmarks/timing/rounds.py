"""Times of contestants that take turns in one process."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from torch.utils.benchmark import timer  # waits for the GPU, where there is one, before it reads the clock

from timing.elsewhere import Elsewhere

BLOCK, LARGEST = 0.25, 50  # seconds of a turn, and the most steps in it
DISTURBED = 0.05  # share of the processors that others have, from which a round does not count


class Rounds(NamedTuple):
    """What the rounds that count have found.

    Attributes:
        seconds: of a step, for each contestant a number a round.
        steps: that each contestant makes in a turn.
        elsewhere: the share of the processors that others had.
        disturbed: rounds that do not count.
    """

    seconds: dict[str, list[float]]
    steps: dict[str, int]
    elsewhere: float
    disturbed: int


def turns(steps: Mapping[str, Callable[[], Any]]) -> dict[str, int]:
    """How many steps each contestant makes in a turn; the first ones also wake kernels and caches."""
    sizes = {}
    for name, step in steps.items():
        fastest = min(_seconds(step, 1) for _ in range(3))
        sizes[name] = min(LARGEST, max(1, math.ceil(BLOCK / fastest)))
    return sizes


def rounds(steps: Mapping[str, Callable[[], Any]], most: int, least: int, seconds: float) -> Rounds:
    """Seconds a step of each contestant in each round.

    In a round every contestant has one turn: the mean of some steps in a row, after one that is not timed (the others
    have had the caches), where steps are short. The order runs backwards in every second round and moves on by one in
    every other, so that nobody always follows the same. ``torch.utils.benchmark.Timer`` keeps the clock; its own turns
    would begin with two untimed steps each time.

    A round in which others had the processors does not count, unless there are too few without: then the least
    disturbed do.

    Args:
        steps: a function for each contestant.
        most, least: rounds that count.
        seconds: no new round begins after this time, but for the least.
    """
    sizes, made, shares = turns(steps), [], []
    began = timer()
    while sum(share <= DISTURBED for share in shares) < most and (len(made) < least or timer() - began < seconds):
        with Elsewhere() as elsewhere:
            made.append({name: _turn(steps[name], sizes[name]) for name in order(steps, len(made))})
        shares.append(elsewhere.share)
    kept = counting(shares, least)
    found = {name: [made[index][name] for index in kept] for name in steps}
    return Rounds(found, sizes, sum(shares[index] for index in kept) / len(kept), len(made) - len(kept))


def counting(shares: list[float], least: int) -> list[int]:
    """The rounds that count, in their order, from the shares that others had of the processors."""
    quiet = [index for index, share in enumerate(shares) if share <= DISTURBED]
    return quiet if len(quiet) >= least else sorted(sorted(range(len(shares)), key=shares.__getitem__)[:least])


def order(names: Iterable[str], count: int) -> list[str]:
    """Who comes after whom in a round."""
    listed = list(names)
    first = count // 2 % len(listed)
    turned = listed[first:] + listed[:first]
    return turned[::-1] if count % 2 else turned


def _turn(step: Callable[[], Any], size: int) -> float:
    gc.collect()  # what others leave behind is not this one's to tidy up
    if size > 1:
        step()
    return _seconds(step, size)


def _seconds(step: Callable[[], Any], number: int) -> float:
    start = timer()
    for _ in range(number):
        step()
    return (timer() - start) / number
