"""The result of a search: its trials as objects, as a table, and in ``search.json``."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noisin_pyro._files import write_json
from noisin_pyro._tables import aligned
from noisin_pyro.inference.evaluation.result import perplexity
from noisin_pyro.search.search_space import Values
from noisin_pyro.training.config import label
from noisin_pyro.training.result import Measure, Result

SEARCH = "search.json"
_STATES = ("complete", "running", "pruned", "failed")  # in a table's order


class NoTrialSucceeded(ValueError):
    """Every trial of a search was refused or diverged."""


@dataclass(frozen=True)
class Trial:
    """One combination of values, and the state of its run.

    Attributes:
        number: from 0; its run is in the folder ``trial-<number>``.
        values: by the dotted names of the fields.
        state: ``"complete"``; ``"pruned"``, stopped early; ``"failed"``, refused or diverged; or ``"running"``.
        epochs: number of epochs so far.
        valid_nats: the best validation loss so far, in nats per step; ``None`` before the first epoch.
        seconds: duration of these epochs.
        message: the error of a failed trial.
    """

    number: int
    values: Values
    state: str
    epochs: int
    valid_nats: float | None
    seconds: float
    message: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The trial in ``search.json``."""
        number = math.inf if self.valid_nats is None else perplexity(self.valid_nats)
        finite = number if math.isfinite(number) else None  # JSON has no infinity
        return dataclasses.asdict(self) | {"seconds": round(self.seconds, 3), "valid_perplexity": finite}


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        folder: of the search.
        trials: by their numbers.
        measure: what the table shows: perplexity for a text, nats per step (a whole chord) for music.
        result: of the best trial, trained to its end; ``None`` without ``finish``, or if another worker trains it.
    """

    folder: Path
    trials: list[Trial]
    measure: Measure
    result: Result | None = None

    @property
    def best(self) -> Trial | None:
        """The complete trial with the lowest validation loss, the first of equal ones; ``None`` if none is complete."""
        return best_trial(self.trials) if any(trial.state == "complete" for trial in self.trials) else None

    def table(self) -> str:
        """The trials, a line each, best first."""
        names = list(dict.fromkeys(name for trial in self.trials for name in trial.values))
        lines = [["trial", *map(label, names), "epochs", "validation", ""]]
        for trial in sorted(self.trials, key=_rank):
            values = (trial.values[name] for name in names)
            cells = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
            state = "" if trial.state == "complete" else trial.state
            lines.append([str(trial.number), *cells, str(trial.epochs), self._shown(trial.valid_nats), state])
        failed: dict[str | None, list[str]] = {}
        for trial in self.trials:
            if trial.state == "failed":
                failed.setdefault(trial.message, []).append(str(trial.number))
        messages = [f"failed, {', '.join(numbers)}: {message}" for message, numbers in failed.items()]
        return "\n".join([aligned(lines), *messages])

    def _shown(self, nats: float | None) -> str:
        if nats is None:
            return "-"
        return f"{perplexity(nats):.1f}" if self.measure == "perplexity" else f"{nats:.3f}"

    def require_recorded(self) -> None:
        """Raise if the storage has lost a trial: ``search.json`` lists it, and later ones would take its place.

        Raises:
            ValueError: it has.
        """
        recorded = json.loads((self.folder / SEARCH).read_bytes()).get("of_each_trial", [])
        for number, trial in enumerate(recorded):
            values = self.trials[number].values if number < len(self.trials) else None
            if values != trial["values"]:
                raise ValueError(
                    f"trial {number} of {str(self.folder)!r} has values {trial['values']} in {SEARCH} and {values} in "
                    "the storage, which has lost records; restore it, or start the search in another folder"
                )

    def write(self, settings: dict[str, Any] | None = None) -> None:
        """Write ``search.json``: the search's settings, by default those that it has, and every trial."""
        settings = read_settings(self.folder) if settings is None else settings
        assert settings is not None
        best = None if self.best is None else self.best.number
        trials = [trial.to_json() for trial in self.trials]
        write_json(self.folder / SEARCH, settings | {"best": best, "of_each_trial": trials})


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The complete trial with the lowest validation loss, the first of equal ones.

    Raises:
        NoTrialSucceeded: none is complete.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete:
        raise NoTrialSucceeded(f"no trial succeeded; the first: {trials[0].message}")
    return min(complete, key=lambda trial: trial.valid_nats or 0.0)


def read_settings(folder: Path) -> dict[str, Any] | None:
    """The settings in ``search.json``; ``None`` if the folder has no such file.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        content = json.loads((folder / SEARCH).read_bytes())
        return {key: content[key] for key in content if key not in ("best", "of_each_trial")}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / SEARCH} is damaged ({error}); restore it, or take another folder") from error


def _rank(trial: Trial) -> tuple[int, bool, float, int]:
    return _STATES.index(trial.state), trial.valid_nats is None, trial.valid_nats or 0.0, trial.number
