"""The result of a run, as an object, as JSON and as a table."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from noisin_pyro._tables import aligned
from noisin_pyro.inference import Evaluation
from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import SequenceModel
from noisin_pyro.training.rundir import metrics_log
from noisin_pyro.training.rundir.layout import LOG, RESULT
from noisin_pyro.training.rundir.load import LoadedRun, load_run
from noisin_pyro.training.rundir.metrics_log import Row
from noisin_pyro.training.type_checks import check_types

Measure = Literal["perplexity", "nats"]
# attributes, and their keys in result.json
_PARTS = {"valid": "valid", "test": "test", "ensemble": "test_ensemble", "bound": "test_bound"}


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        name: ``"noisy"`` or ``"deterministic"``.
        folder: the run's.
        log: the rows of ``log.csv``.
        best_epoch: the epoch whose model was best in validation; the evaluations are of this model.
        valid: validation, noise off; with a guide, its bound with one draw per sequence; with the filtering bound, the
            estimate of a particle filter.
        test: test, noise off.
        ensemble: test, averaged over noisy runs; ``None`` if nothing is random or ``ensemble_samples`` is 0.
        bound: test, as in validation, but for the filtering bound with 16 times the particles in four islands;
            ``None`` where validation is with the noise off.
        measure: what :meth:`table` shows: perplexities for a text, nats per step (a whole chord) for music.
        seconds: duration of all epochs and the final tests.
        twin: the deterministic network's result, if it was trained.
        imports: import paths in the configuration that ``model`` may follow.
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
    imports: list[str] = field(default_factory=list, repr=False)

    @property
    def model(self) -> SequenceModel:
        """The best model, read from the folder on first use."""
        return self._run.model

    @property
    def guide(self) -> Guide | None:
        """The guide that was trained with it; None where the prior was the guide."""
        return self._run.guide

    @cached_property
    def _run(self) -> LoadedRun:
        return load_run(self.folder, imports=self.imports)

    def as_dict(self) -> dict[str, Any]:
        """What ``result.json`` holds, each evaluation with its kind and errors."""
        parts = {key: getattr(self, name) for name, key in _PARTS.items()}
        return {
            "name": self.name,
            "epochs": len(self.log),
            "best_epoch": self.best_epoch,
            "seconds": round(self.seconds, 3),
            "spreads": {key: value for key, value in self.log[self.best_epoch - 1].items() if key.startswith("gamma_")},
            **{key: part and evaluation_as_dict(part) for key, part in parts.items()},
        }

    def table(self) -> str:
        """One line for this run and one for its twin."""
        titles = ["", "best epoch", "validation", "test", "test, ensemble"]
        columns = ["valid", "test", "ensemble"]
        if self.bound is not None:
            titles, columns = [*titles, "test, bound"], [*columns, "bound"]
        lines = [titles]
        for run in (self, self.twin):
            if run is not None:
                parts = [getattr(run, column) for column in columns]
                cells = ["-" if part is None else self._shown(part) for part in parts]
                lines.append([run.name, f"{run.best_epoch} of {len(run.log)}", *cells])
        return aligned(lines)

    def _shown(self, evaluation: Evaluation) -> str:
        return f"{evaluation.perplexity:.1f}" if self.measure == "perplexity" else f"{evaluation.nats_per_step:.3f}"


def read(folder: Path, measure: Measure, imports: Iterable[str] = ()) -> Result:
    """Read the result of a finished run, without its twin's; ``measure`` is that of its data.

    Raises:
        ValueError: a log or a result that is damaged.
    """
    rows = metrics_log.require_whole(metrics_log.read(folder / LOG), folder / LOG)
    try:
        content = {_PARTS["bound"]: None} | json.loads((folder / RESULT).read_bytes())  # not in 0.1's
        parts: dict[str, Any] = {
            name: None if content[key] is None else evaluation_from_dict(content[key]) for name, key in _PARTS.items()
        }
        result = Result(
            name=content["name"],
            folder=folder,
            log=rows,
            best_epoch=content["best_epoch"],
            measure=measure,
            seconds=content["seconds"],
            imports=sorted(imports),
            **parts,
        )
        check_types(result)
        if not 1 <= result.best_epoch <= len(rows):
            raise ValueError(f"best epoch {result.best_epoch} of {len(rows)}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / RESULT} is damaged ({error}); remove it to test the run again") from error
    return result


def evaluation_as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation for JSON, with null for numbers that are not finite: JSON has neither infinity nor NaN."""
    fields = {field.name: getattr(evaluation, field.name) for field in dataclasses.fields(evaluation) if field.repr}
    fields["perplexity"] = evaluation.perplexity
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in fields.items()
    }


def evaluation_from_dict(content: dict[str, Any]) -> Evaluation:
    """The evaluation that :func:`evaluation_as_dict` made ``content`` from."""
    required = {field.name for field in dataclasses.fields(Evaluation) if field.default is dataclasses.MISSING}
    values: dict[str, Any] = {key: math.nan if content[key] is None else content[key] for key in required}
    optional = {field.name for field in dataclasses.fields(Evaluation) if field.repr} - required
    values |= {key: content[key] for key in optional & content.keys()}  # some are missing in results of version 0.1
    return check_types(Evaluation(**values))
