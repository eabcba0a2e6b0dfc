"""Comparison of models, guides and methods in one table."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from noisin_pyro._lookup import known
from noisin_pyro._tables import aligned, comma_separated
from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference import arviz
from noisin_pyro.inference.arguments import check_data
from noisin_pyro.inference.evaluation.evaluate import METHODS, evaluate
from noisin_pyro.inference.evaluation.result import Evaluation
from noisin_pyro.inference.filtering.support import own_forward
from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import SequenceModel
from noisin_pyro.models.views import underlying

Program = Callable[..., Any]

logger = logging.getLogger("noisin_pyro")

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
"""The columns of a comparison: heading and format of each."""


@dataclass(frozen=True)
class Comparison:
    """A table over models, guides and methods.

    Attributes:
        rows: a record for each score, with the keys of ``COLUMNS``. A value that does not apply is None.

            - ``model``: its name; ``method``, ``kind``, ``nats_per_step``, ``monte_carlo_error``, ``standard_error``,
              ``pareto_k`` and ``effective_samples`` are those of :class:`Evaluation`; ``samples`` is its
              ``num_samples``, None if nothing was sampled;
            - ``guide``: for ``"importance"`` and ``"particle-filter"``, the name of the guide, or ``"prior"``;
            - ``gap``: ``nats_per_step`` minus the same model's particle filter estimate, from the prior. The gap of a
              bound is positive up to errors. The gap of a predictor is negative if it predicts better than the noisy
              model's likelihood. None for that estimate itself, and without a particle filter;
            - ``parameters``: number of parameters of the model, plus those of the guide if one is used; None for
              programs that are not modules;
            - ``seconds_per_step``: evaluation time per real step of the data, for all samples together.
    """

    rows: list[dict[str, Any]]

    def text(self) -> str:
        """The table as aligned text, with ``-`` for values that do not apply."""
        shown = [
            ["-" if row[column] is None else format(row[column], form) for column, (_, form) in COLUMNS.items()]
            for row in self.rows
        ]
        return aligned([[head for head, _ in COLUMNS.values()], *shown])

    def __str__(self) -> str:
        return self.text()

    def csv(self) -> str:
        """The table as CSV at full precision, with empty cells for values that do not apply."""
        return comma_separated([list(COLUMNS), *([row[column] for column in COLUMNS] for row in self.rows)])

    def to_csv(self, path: str | Path) -> None:
        """Write the table to a CSV file."""
        Path(path).expanduser().write_text(self.csv(), encoding="utf-8", newline="")


def compare(
    models: Mapping[str, Program | tuple[Program, Program]],
    data: Sequences | Stream,
    methods: Sequence[str] | None = None,
    num_samples: int | Mapping[str, int] | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
) -> Comparison:
    """Score several models on the same data, each by several methods.

    Args:
        models: mapping from names to models, or to pairs ``(model, guide)``, as for :func:`evaluate`. With a guide,
            ``"importance"`` is computed twice, from the prior and from the guide; with a guide by name so is
            ``"particle-filter"``. The same model may occur more than once.
        data: held-out data.
        methods: methods to use, in this order (default: all that apply; the particle filter does not support
            dropout). A deterministic model has one exact score, hence one row.
        num_samples: one number for all methods that sample, or a mapping from methods to numbers (default: as for
            :func:`evaluate`).
        batch_size: as for :func:`evaluate`.
        seed: seed of each score, which then does not depend on the other scores and leaves the state of torch's
            generators unchanged. By default torch's generators are used.

    Each score is announced to the logger ``"noisin_pyro"``.

    Raises:
        ValueError: no models, no methods, an unknown method, or an error of :func:`evaluate`, with a note that names
            the model and the method.
    """
    check_data(data)
    if not isinstance(models, Mapping) or not models:
        got = f"a {type(models).__name__}" if models else "none"
        raise ValueError(f'models must contain at least one model, as in {{"noisy": model}}, got {got}')
    asked = list(METHODS) if methods is None else [known("methods", method, METHODS) for method in methods]
    if not asked:
        raise ValueError(f"methods must contain at least one of {', '.join(METHODS)}, got none")
    samples = _by_method(num_samples, asked)
    if "importance" in asked:
        arviz.load()  # before the timing starts
    rows, first = [], None
    for name, entry in models.items():
        model, guide = entry if isinstance(entry, tuple) else (entry, None)
        own_rows: list[dict[str, Any]] = []
        every = methods is not None or _is_filterable(model)
        own = [method for method in asked if every or method != "particle-filter"]
        scores: list[tuple[str, Program | None]] = [(method, None) for method in own]
        for method in ("importance", *(["particle-filter"] if isinstance(guide, Guide) else [])):
            if guide is not None and method in own:
                scores.insert(scores.index((method, None)) + 1, (method, guide))
        for method, proposal in scores:
            options: dict[str, Any] = {"num_samples": samples.get(method), "guide": proposal}
            logger.info("scoring %s: %s%s", name, method, "" if proposal is None else " with the guide")
            try:
                started = time.perf_counter()
                result = evaluate(model, data, method, batch_size=batch_size, seed=seed, **options)
                seconds = time.perf_counter() - started
            except ValueError as error:
                error.add_note(f"while scoring {name!r} by {method!r}")
                raise
            own_rows.append(_record(name, result, model, proposal, seconds))
            first = first or (name, result.fingerprint)
            if result.fingerprint != first[1]:
                raise ValueError(
                    f"{name!r} masks other steps of the data than {first[0]!r}, so their scores are not comparable; "
                    "pass one mask to Sequences instead"
                )
            if result.kind == "exact":
                break
        rows += _with_gaps(own_rows)
    return Comparison(rows)


def _is_filterable(model: Program) -> bool:
    program, _ = underlying(model)
    return isinstance(program, SequenceModel) and not program.dropout.drops and own_forward(program) is None


def _by_method(num_samples: int | Mapping[str, int] | None, methods: Sequence[str]) -> dict[str, int]:
    sampling = [method for method in methods if method != "mean"]
    if num_samples is None:
        return {}
    if not isinstance(num_samples, Mapping):
        if not sampling:
            raise ValueError(f"num_samples={num_samples} has no effect on methods {', '.join(methods)}; drop it")
        return dict.fromkeys(sampling, num_samples)
    return {known("num_samples by method", method, sampling): count for method, count in num_samples.items()}


def _record(name: str, result: Evaluation, model: Program, guide: Program | None, seconds: float) -> dict[str, Any]:
    source = None
    if result.method in ("importance", "particle-filter") and result.kind != "exact":
        source = "prior" if guide is None else getattr(guide, "__name__", type(guide).__name__)
    return {
        "model": name,
        "method": result.method,
        "guide": source,
        "samples": result.num_samples or None,
        "kind": result.kind,
        "nats_per_step": result.nats_per_step,
        "monte_carlo_error": result.monte_carlo_error,
        "standard_error": result.standard_error,
        "gap": None,
        "pareto_k": result.pareto_k,
        "effective_samples": result.effective_samples,
        "parameters": _parameters(model, guide),
        "seconds_per_step": seconds / result.num_steps,
    }


def _with_gaps(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one model, each with its gap to the particle filter."""
    references = [row for row in rows if row["method"] == "particle-filter"]
    if references:
        for row in rows:
            if row is not references[0]:
                row["gap"] = row["nats_per_step"] - references[0]["nats_per_step"]
    return rows


def _parameters(*programs: Program | None) -> int | None:
    """Total number of parameters of the programs, each parameter counted once."""
    modules = [program for program in programs if isinstance(program, torch.nn.Module)]
    if not isinstance(programs[0], torch.nn.Module):
        return None
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values())
