"""What a run found, as an object, as JSON and as a table."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from noisin_pyro._tables import aligned
from noisin_pyro.inference import Evaluation
from noisin_pyro.training import log
from noisin_pyro.training.folder import LOG, RESULT
from noisin_pyro.training.kinds import checked
from noisin_pyro.training.log import Row

Measure = Literal["perplexity", "nats"]
# the numbers, and their keys in result.json
_PARTS = {"valid": "valid", "test": "test", "ensemble": "test_ensemble", "bound": "test_bound"}


@dataclass(frozen=True)
class Result:
    """What a run found.

    Attributes:
        name: ``"noisy"`` or ``"deterministic"``.
        folder: where it is on disk.
        log: the rows of ``log.csv``.
        best_epoch: the epoch whose model was best in validation: it was kept, and the numbers below are its.
        valid: validation, noise off; of a guide, its bound by one draw a sequence.
        test: test, noise off.
        ensemble: test, averaged over noisy runs; ``None`` if nothing is random or no samples were asked for.
        bound: test, the guide's bound by one draw a sequence; ``None`` where the prior was the guide.
        measure: what to show of them: perplexities for a text, nats per step (a whole chord) for music.
        seconds: of all epochs and the last tests.
        twin: the deterministic network's result, if it was trained too.
    """

    name: str
    folder: Path
    log: list[Row]
    best_epoch: int
    valid: Evaluation
    test: Evaluation
    ensemble: Evaluation | None
    bound: Evaluation | None
    measure: Measure
    seconds: float
    twin: Result | None = None

    def numbers(self) -> dict[str, Any]:
        """What ``result.json`` says of this run, each number with its kind and errors."""
        parts = {key: getattr(self, name) for name, key in _PARTS.items()}
        return {
            "name": self.name,
            "epochs": len(self.log),
            "best_epoch": self.best_epoch,
            "seconds": round(self.seconds, 1),
            "spreads": {key: value for key, value in self.log[self.best_epoch - 1].items() if key.startswith("gamma_")},
            **{key: part and numbers(part) for key, part in parts.items()},
        }

    def table(self) -> str:
        """This run and its twin, a line each."""
        titles = ["", "best epoch", "validation", "test", "test, ensemble"]
        columns = ["valid", "test", "ensemble"]
        if self.bound is not None:
            titles, columns = [*titles, "test, bound"], [*columns, "bound"]
        lines = [titles]
        for run in (self, self.twin):
            if run is not None:
                parts = [getattr(run, column) for column in columns]
                numbers = ["-" if part is None else self._shown(part) for part in parts]
                lines.append([run.name, f"{run.best_epoch} of {len(run.log)}", *numbers])
        return aligned(lines)

    def _shown(self, number: Evaluation) -> str:
        return f"{number.perplexity:.1f}" if self.measure == "perplexity" else f"{number.nats_per_step:.3f}"


def read(folder: Path, measure: Measure) -> Result:
    """The result that a finished run left in ``folder``, without its twin's; ``measure`` is that of its data.

    Raises:
        ValueError: a log or a result that is damaged.
    """
    rows = log.require_whole(log.read(folder / LOG))
    try:
        told = {_PARTS["bound"]: None} | json.loads((folder / RESULT).read_bytes())  # older ones knew no guides
        parts: dict[str, Any] = {name: _evaluation(told[key]) for name, key in _PARTS.items()}
        result = Result(
            name=told["name"],
            folder=folder,
            log=rows,
            best_epoch=told["best_epoch"],
            measure=measure,
            seconds=told["seconds"],
            **parts,
        )
        checked(result)
        if not 1 <= result.best_epoch <= len(rows):
            raise ValueError(f"best epoch {result.best_epoch} of {len(rows)}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / RESULT} is damaged ({error}); remove it, to train and test what it told once more"
        ) from error
    return result


def numbers(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation for JSON, which has no word for infinity or for the error of a single sequence, not a number."""
    fields = {field.name: getattr(evaluation, field.name) for field in dataclasses.fields(evaluation) if field.repr}
    fields["perplexity"] = evaluation.perplexity
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in fields.items()
    }


def _evaluation(numbers: dict[str, Any] | None) -> Evaluation | None:
    if numbers is None:
        return None
    always = {field.name for field in dataclasses.fields(Evaluation) if field.default is dataclasses.MISSING}
    kept: dict[str, Any] = {key: math.nan if numbers[key] is None else numbers[key] for key in always}
    some = {field.name for field in dataclasses.fields(Evaluation) if field.repr} - always
    kept |= {key: numbers[key] for key in some & numbers.keys()}  # of methods that older results do not know
    return checked(Evaluation(**kept))
