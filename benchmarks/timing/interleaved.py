"""Interleaved timing: all steps take turns in one process, and ratios are taken round by round.

What slows the machine down for a while slows all steps of a round, so that their ratios stay.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.benchmark import Timer, timer  # timer synchronizes with the GPU, where there is one

TURN_SECONDS, MAX_CALLS = 0.25, 50  # of a turn: its length and the maximum number of timed calls in it
MAX_OTHERS = 0.05  # maximum share of the processors that other processes have in a round that counts
RESAMPLES, COVERAGE = 10_000, 0.95  # of the bootstrap
PROC_STAT = Path("/proc/stat")  # Linux only: user, nice, system, idle, iowait, irq, softirq, steal, ... in ticks


class Interval(NamedTuple):
    """A median with quartiles, or with a confidence interval."""

    median: float
    low: float
    high: float


class Rounds(NamedTuple):
    """The rounds that count.

    Attributes:
        seconds: seconds per call of each step, one value per round.
        calls: timed calls per turn of each step.
        others: mean share of the processors that other processes had.
        discarded: number of rounds that do not count.
    """

    seconds: dict[str, list[float]]
    calls: dict[str, int]
    others: float
    discarded: int


def time_in_turns(
    steps: Mapping[str, Callable[[], Any]], max_rounds: int, min_rounds: int, max_seconds: float
) -> Rounds:
    """Time each step once per round, in an order that changes from round to round.

    Rounds in which other processes have more than 5 % of the processors are discarded, as long as ``min_rounds``
    remain; otherwise the ``min_rounds`` with the least load from others count.

    Args:
        steps: the functions to time, by name.
        max_rounds, min_rounds: maximum and minimum number of rounds that count.
        max_seconds: no round starts after this time, except to reach ``min_rounds``.
    """
    calls = {name: _calls_per_turn(step) for name, step in steps.items()}
    rounds, shares = [], []
    start = timer()
    while sum(share <= MAX_OTHERS for share in shares) < max_rounds and (
        len(rounds) < min_rounds or timer() - start < max_seconds
    ):
        round_start, others = timer(), others_seconds()
        rounds.append({name: _time(steps[name], calls[name]) for name in turn_order(steps, len(rounds))})
        seconds = (timer() - round_start) * (os.cpu_count() or 1)
        shares.append(max(0.0, others_seconds() - others) / seconds)
    counting = quiet_rounds(shares, min_rounds)
    times = {name: [rounds[index][name] for index in counting] for name in steps}
    return Rounds(times, calls, float(np.mean([shares[index] for index in counting])), len(rounds) - len(counting))


def turn_order(names: Iterable[str], round_index: int) -> list[str]:
    """The order of a round: rotated by one every other round and reversed in between, so that predecessors vary."""
    ordered = list(names)
    shift = round_index // 2 % len(ordered)
    rotated = ordered[shift:] + ordered[:shift]
    return rotated[::-1] if round_index % 2 else rotated


def quiet_rounds(shares: Sequence[float], min_rounds: int) -> list[int]:
    """Indices of the rounds that count, given the share of the processors that others had in each."""
    quiet = [index for index, share in enumerate(shares) if share <= MAX_OTHERS]
    return (
        quiet if len(quiet) >= min_rounds else sorted(sorted(range(len(shares)), key=shares.__getitem__)[:min_rounds])
    )


def _calls_per_turn(step: Callable[[], Any]) -> int:
    return min(MAX_CALLS, max(1, math.ceil(TURN_SECONDS / _time(step, 1))))


def _time(step: Callable[[], Any], calls: int) -> float:
    """Mean seconds per call, after two untimed calls of ``Timer``, which refill the caches that others have used."""
    gc.collect()  # garbage of the other steps
    timed = Timer("step()", globals={"step": step}, timer=timer, num_threads=torch.get_num_threads())
    return timed.timeit(calls).mean


def others_seconds() -> float:
    """Processor time that other processes have used since the machine started; 0 where it is unknown."""
    if not PROC_STAT.exists():
        return 0.0
    user, nice, system, _, _, *interrupts_and_steal = map(int, PROC_STAT.read_text().splitlines()[0].split()[1:9])
    return (user + nice + system + sum(interrupts_and_steal)) / os.sysconf("SC_CLK_TCK") - time.process_time()


def quartiles(values: Sequence[float]) -> Interval:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return Interval(median, low, high)


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float], seed: int = 0) -> Interval:
    """Median over rounds of the ratio, with a 95 % percentile bootstrap interval over rounds.

    Raises:
        ValueError: if the numbers of rounds differ or are zero.
    """
    if len(numerator) != len(denominator) or not len(numerator):
        raise ValueError(
            "numerator and denominator must have the same rounds, at least one, "
            f"got {len(numerator)} and {len(denominator)}"
        )
    ratios = np.asarray(numerator) / np.asarray(denominator)
    resampled = np.random.default_rng(seed).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    ends = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    low, high = np.quantile(np.median(ratios[resampled], axis=1), ends).tolist()
    return Interval(float(np.median(ratios)), low, high)
