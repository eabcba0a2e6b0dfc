"""Models and guides side by side: one table, in which each number says what it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference import arviz_adapter
from noisin_pyro.inference.estimates import Evaluation
from noisin_pyro.inference.evaluation import METHODS, evaluate
from noisin_pyro.inference.generation import seeded
from noisin_pyro.models import SequenceModel
from noisin_pyro.models.views import underlying
from noisin_pyro.names import known
from noisin_pyro.tables import aligned, comma_separated

Program = Callable[..., Any]

COLUMNS = {
    "model": ("model", ""),
    "method": ("method", ""),
    "guide": ("guide", ""),
    "samples": ("samples", "d"),
    "kind": ("kind", ""),
    "nats_per_step": ("nats/step", ".4f"),
    "monte_carlo_error": ("MC error", ".4f"),
    "standard_error": ("data error", ".4f"),
    "gap": ("gap", "+.4f"),
    "pareto_k": ("Pareto k", ".2f"),
    "effective_samples": ("ESS", ".1f"),
    "parameters": ("parameters", ",d"),
    "seconds_per_step": ("s/step", ".2g"),
}
"""The columns of a comparison, and how each is headed and shown as text."""


@dataclass(frozen=True)
class Comparison:
    """A table over models, guides and methods.

    Attributes:
        rows: a record for each number, with the keys of ``COLUMNS``, None where one does not apply.

            - ``model``: its name; ``method``, ``kind``, ``nats_per_step``, ``monte_carlo_error``, ``standard_error``,
              ``pareto_k`` and ``effective_samples`` are those of :class:`Evaluation`; ``samples`` is its
              ``num_samples``, None where nothing was sampled;
            - ``guide``: of ``"importance"``, the guide's kind, or ``"prior"``;
            - ``gap``: in nats per step, the model's log-likelihood minus the number's: how far the number is above the
              reference, the same model's exact number, or else its particle filter's. A bound's gap is positive, but
              for errors; a predictor's is negative where it predicts better than the model's own likelihood. None for
              the reference itself, and without one;
            - ``parameters``: of the model, and of the guide in its row; None for programs that are no modules;
            - ``seconds_per_step``: of the evaluation, per real step of the data, all samples together.
    """

    rows: list[dict[str, Any]]

    def text(self) -> str:
        """The table in columns; a minus sign alone where something does not apply."""
        shown = [
            ["-" if row[column] is None else format(row[column], form) for column, (_, form) in COLUMNS.items()]
            for row in self.rows
        ]
        return aligned([[head for head, _ in COLUMNS.values()], *shown])

    def __str__(self) -> str:
        return self.text()

    def csv(self) -> str:
        """The table as CSV, with all digits; an empty cell where something does not apply."""
        return comma_separated([list(COLUMNS), *([row[column] for column in COLUMNS] for row in self.rows)])

    def to_csv(self, path: str | Path) -> None:
        """Write it to a file."""
        Path(path).write_text(self.csv(), encoding="utf-8", newline="")


def compare(
    models: Mapping[str, Program | tuple[Program, Program]],
    data: Sequences | Stream,
    methods: Sequence[str] | None = None,
    num_samples: int | Mapping[str, int] | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
) -> Comparison:
    """Score models on the same data, by several methods each.

    Args:
        models: by name, a model as :func:`evaluate` takes it, or a pair of the view on whose sites a guide acts and
            that guide; ``"importance"`` draws from the prior, and then from the guide, which tells what that gains. The
            same model may be there more than once.
        data: what they are scored on.
        methods: which numbers, in this order; by default all that a model has: one with dropout has no particle filter.
            A deterministic model has one number, and is given once.
        num_samples: for every method that samples, or by method; by default those of :func:`evaluate`.
        batch_size: as for :func:`evaluate`.
        seed: what each number begins with, so that it does not depend on the others; torch's generators are left as
            they were. By default they are used and go on.

    Raises:
        ValueError: no models, no methods or unknown ones, or what :func:`evaluate` refuses, noting of which number.
    """
    if not models:
        raise ValueError('models must hold at least one, as in {"noisy": model}, got none')
    asked = list(METHODS) if methods is None else [known("methods", method, METHODS) for method in methods]
    if not asked:
        raise ValueError(f"methods must hold at least one of {', '.join(METHODS)}, got none")
    samples = _by_method(num_samples, asked)
    if "importance" in asked:
        arviz_adapter.load()  # before the clock runs
    rows = []
    for name, entry in models.items():
        model, guide = entry if isinstance(entry, tuple) else (entry, None)
        found: list[dict[str, Any]] = []
        own = [method for method in asked if methods is not None or method != "particle-filter" or not _drops(model)]
        numbers: list[tuple[str, Program | None]] = [(method, None) for method in own]
        if guide is not None and "importance" in own:
            numbers.insert(own.index("importance") + 1, ("importance", guide))
        for method, used in numbers:
            options = {"num_samples": samples.get(method), "batch_size": batch_size, "guide": used}
            try:
                with seeded(seed, _device(data)):
                    started = time.perf_counter()
                    number = evaluate(model, data, method, **options)
                    seconds = time.perf_counter() - started
            except ValueError as error:
                error.add_note(f"in the number of {name!r} by {method!r}")
                raise
            found.append(_record(name, number, model, used, seconds))
            if number.kind == "exact":
                break
        rows += _with_gaps(found)
    return Comparison(rows)


def _drops(model: Program) -> bool:
    program, _ = underlying(model)
    return isinstance(program, SequenceModel) and program.rnn.dropout.drops


def _by_method(num_samples: int | Mapping[str, int] | None, methods: Sequence[str]) -> dict[str, int]:
    sampling = [method for method in methods if method != "mean"]
    if num_samples is None:
        return {}
    if not isinstance(num_samples, Mapping):
        if not sampling:
            raise ValueError(f"num_samples={num_samples} has no effect on methods {', '.join(methods)}; drop it")
        return dict.fromkeys(sampling, num_samples)
    return {known("num_samples by method", method, sampling): number for method, number in num_samples.items()}


def _record(name: str, number: Evaluation, model: Program, guide: Program | None, seconds: float) -> dict[str, Any]:
    source = None
    if number.method == "importance" and number.kind != "exact":
        source = "prior" if guide is None else getattr(guide, "__name__", type(guide).__name__)
    return {
        "model": name,
        "method": number.method,
        "guide": source,
        "samples": number.num_samples or None,
        "kind": number.kind,
        "nats_per_step": number.nats_per_step,
        "monte_carlo_error": number.monte_carlo_error,
        "standard_error": number.standard_error,
        "gap": None,
        "pareto_k": number.pareto_k,
        "effective_samples": number.effective_samples,
        "parameters": _parameters(model, guide),
        "seconds_per_step": seconds / number.num_steps,
    }


def _with_gaps(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One model's rows, each with its distance from the reference: all numbers are negative log-probabilities."""
    references = [row for row in rows if row["method"] == "particle-filter"]
    if references:
        for row in rows:
            if row is not references[0]:
                row["gap"] = row["nats_per_step"] - references[0]["nats_per_step"]
    return rows


def _parameters(*programs: Program | None) -> int | None:
    """Parameters of all programs together, each counted once."""
    modules = [program for program in programs if isinstance(program, torch.nn.Module)]
    if not isinstance(programs[0], torch.nn.Module):
        return None
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values())


def _device(data: Sequences | Stream) -> torch.device:
    return next(iter(data.batches())).targets.device
