"""What a search found: its trials, as objects, as a table and, with how they came about, in ``search.json``."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noisin_pyro._files import write_json
from noisin_pyro._tables import aligned
from noisin_pyro.training.loop import perplexity
from noisin_pyro.training.result import Measure, Result
from noisin_pyro.training.space import Values

SEARCH = "search.json"


class NoneSucceeded(ValueError):
    """Every trial of a search was refused, or diverged."""


@dataclass(frozen=True)
class Trial:
    """One combination of values, and how far it was tried.

    Attributes:
        number: from 0; its run is in the folder ``trial-<number>``.
        values: by the dotted names of the fields.
        state: ``"complete"``; ``"pruned"``, left early as hopeless; ``"failed"``, refused or diverged; ``"running"``.
        epochs: done.
        valid_nats: the best validation so far, in nats per step; ``None`` before the first.
        seconds: of these epochs.
        message: why it failed.
    """

    number: int
    values: Values
    state: str
    epochs: int
    valid_nats: float | None
    seconds: float
    message: str | None = None


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        folder: where it is on disk.
        trials: by their numbers.
        measure: what to show of them: perplexities for a text, nats per step (a whole chord) for music.
        result: of the best trial, trained to its end; ``None`` if that was not asked for, or is another worker's.
    """

    folder: Path
    trials: list[Trial]
    measure: Measure
    result: Result | None = None

    @property
    def best(self) -> Trial | None:
        """The complete trial of the best validation, the first of equal ones; ``None`` before any is complete."""
        return next((trial for trial in sorted(self.trials, key=_rank) if trial.state == "complete"), None)

    def table(self) -> str:
        """The trials, a line each, best first."""
        names = list(dict.fromkeys(name for trial in self.trials for name in trial.values))
        lines = [["trial", *(name.partition(".")[2].replace("_", " ") for name in names), "epochs", "validation", ""]]
        for trial in sorted(self.trials, key=_rank):
            number = "-" if trial.valid_nats is None else self._shown(trial.valid_nats)
            values = (_told(trial.values[name]) for name in names)
            state = "" if trial.state == "complete" else trial.state
            lines.append([str(trial.number), *values, str(trial.epochs), number, state])
        reasons: dict[str | None, list[str]] = {}
        for trial in self.trials:
            if trial.state == "failed":
                reasons.setdefault(trial.message, []).append(str(trial.number))
        told = [f"failed, {', '.join(numbers)}: {message}" for message, numbers in reasons.items()]
        return "\n".join([aligned(lines), *told])

    def _shown(self, nats: float) -> str:
        return f"{perplexity(nats):.1f}" if self.measure == "perplexity" else f"{nats:.3f}"

    def write(self, settings: dict[str, Any]) -> None:
        """``search.json``: the settings, then every trial."""
        best = self.best
        trials = [
            {
                "number": trial.number,
                "values": trial.values,
                "state": trial.state,
                "epochs": trial.epochs,
                "valid_nats": trial.valid_nats,
                "valid_perplexity": _finite(trial.valid_nats),
                "seconds": round(trial.seconds, 1),
                "message": trial.message,
            }
            for trial in self.trials
        ]
        found = {"best": None if best is None else best.number, "of_each_trial": trials}
        write_json(self.folder / SEARCH, settings | found)


def settings_in(folder: Path) -> dict[str, Any] | None:
    """What :meth:`Found.write` kept there; ``None`` where no search has begun.

    Raises:
        ValueError: a file that is damaged.
    """
    try:
        kept = json.loads((folder / SEARCH).read_bytes())
        return {key: kept[key] for key in kept if key not in ("best", "of_each_trial")}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / SEARCH} is damaged ({error}); restore it, or search anew elsewhere") from error


def _rank(trial: Trial) -> tuple[Any, ...]:
    order = ("complete", "running", "pruned", "failed").index(trial.state)
    return order, trial.valid_nats is None, trial.valid_nats or 0.0, trial.number


def _finite(nats: float | None) -> float | None:
    number = math.inf if nats is None else perplexity(nats)
    return number if math.isfinite(number) else None  # JSON has no infinity


def _told(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
