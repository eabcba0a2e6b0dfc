"""How busy others keep the processors while we measure."""

from __future__ import annotations

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")  # Linux's; first line: cpu, user, nice, system, idle, iowait, irq, softirq, steal, ...


class Elsewhere:
    """A span of time, and then ``share``: what other processes took of all processors' time in it.

    Well above 0, it says that times are too long and scattered. It stays 0 where the system does not tell.
    """

    share = 0.0

    def __enter__(self) -> Elsewhere:
        self.began = _clocks()
        return self

    def __exit__(self, *_: object) -> None:
        if STAT.exists():
            busy, ours, seconds = (now - then for now, then in zip(_clocks(), self.began, strict=True))
            self.share = max(0.0, busy - ours) / (seconds * (os.cpu_count() or 1))


def _clocks() -> tuple[float, float, float]:
    """Seconds that all processors were busy for anybody, that they were busy for us, and by the clock."""
    busy = 0.0
    if STAT.exists():
        user, nice, system, _, _, *others = map(int, STAT.read_text().splitlines()[0].split()[1:9])
        busy = (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")
    return busy, time.process_time(), time.perf_counter()
