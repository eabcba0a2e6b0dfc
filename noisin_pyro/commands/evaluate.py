"""``noisin evaluate``: score the best model of a run on one part of its data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pyro
from torch import Tensor

from noisin_pyro._diagnostics import MAX_PARETO_K
from noisin_pyro._files import atomic_write, write_json
from noisin_pyro._tables import aligned, comma_separated
from noisin_pyro.commands._data import own_part, sequences_from
from noisin_pyro.commands._options import (
    DataRoot,
    Device,
    Imports,
    Named,
    NewFile,
    RunFolder,
    cut,
    require_new,
    require_seed,
)
from noisin_pyro.data import Sequences, Series, Vocabulary
from noisin_pyro.data.text import read_words
from noisin_pyro.inference import Evaluation, evaluate, forecast_scores
from noisin_pyro.inference.evaluation.result import BLOCK
from noisin_pyro.inference.guides import Guide
from noisin_pyro.inference.observed import steps_of
from noisin_pyro.inference.scores import scored_lengths
from noisin_pyro.models.scaled import is_in_data_units
from noisin_pyro.training.build import dataset
from noisin_pyro.training.options import Data, Options, default
from noisin_pyro.training.result import evaluation_as_dict
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.rundir.load import LoadedRun, load_run
from noisin_pyro.training.validation import eval_rows

KINDS = {
    "exact": "the log-likelihood",
    "bound": "its expectation is an upper bound on the model's own nats per step",
    "estimate": "of the log-likelihood, by an unbiased estimate of the likelihood; given the history, if there is one",
    "predictor": "a normalized predictor, neither a bound on nor an estimate of the noisy model's log p(x)",
}

UNITS = ", by densities in the units of the data"


@dataclass(frozen=True)
class Evaluate(Options):
    """Score the best model of a run on one part of its data, or on other data."""

    folder: RunFolder
    """Folder of a run of noisin train. Its deterministic twin is in FOLDER/deterministic."""

    split: Literal["train", "valid", "test"] = "test"
    """Part of the run's data on which to score."""

    text: Annotated[Path | None, Named(metavar="FILE", help_behavior_hint="")] = None
    """Text file to score instead, in UTF-8 with a sentence a line. The run's data are then not needed."""

    data: Annotated[Path | None, Named(metavar="FILE", help_behavior_hint="")] = None
    """Table with the same columns as the run's, scored as a whole, or a .mat file of music, whose --split is scored.
    The run's data are then not needed."""

    method: Literal["mean", "ensemble", "importance", "particle-filter", "forecast"] = "mean"
    """mean: the underlying network, with the noise off. ensemble: probabilities of noisy runs, averaged step by step.
    importance: a bound on the likelihood, by importance sampling (from the run's guide, if it has one).
    particle-filter: an estimate of the likelihood. forecast: scores of forecasts from a rolling origin."""

    samples: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: 50, 100, 400 or 400)")] = None
    """Number of noisy runs (ensemble), samples (importance), particles (particle-filter) or samples and particles
    (forecast). Not for mean."""

    proposal: Annotated[
        Literal["prior", "guide"] | None,
        default("the run's guide, if it has one; particle-filter: prior", "{prior,guide}"),
    ] = None
    """Distribution that the noise is drawn from in importance, particle-filter and forecast: its prior, or the run's
    guide."""

    threshold: Annotated[float | None, Named(metavar="FLOAT", help_behavior_hint="(default: 0.5)")] = None
    """particle-filter: resample if the effective sample size is below this fraction of the particles; 0 is off."""

    steps: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: 24, or fewer)")] = None
    """forecast: number of steps of each forecast, at most those of the longest series that are scored."""

    origins: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: 1)")] = None
    """forecast: number of origins, from --steps before the end of each series backwards."""

    stride: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: the steps of a forecast)")] = None
    """forecast: number of steps from one origin to the next."""

    season: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: 1)")] = None
    """forecast: lag of the naive forecast that errors are divided by; 12 is a year of months."""

    seed: int = 0
    """Seed of the noise."""

    eval_batch_size: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: the run's)")] = None
    """Number of sequences scored in parallel. Of a text: the columns it is read in, which affect perplexity; by
    default one for a --text whose columns would be shorter than a window."""

    window: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: the run's)")] = None
    """Number of steps per window. A guide conditions on one window at a time. Texts only."""

    per_token: NewFile = None
    """New CSV file for the log-probability in nats of every token, in order, or of every step of music."""

    json: NewFile = None
    """New JSON file for the results."""

    device: Device = None
    """Device on which to compute."""

    data_root: DataRoot = None
    """Folder that contains ptb, wikitext-2 or polyphonic."""

    imports: Imports = ()
    """Code of your own that the run's configuration may import: --cell, --noise or --emission of its training."""

    def run(self) -> None:
        """Print the results and write the requested files.

        Raises:
            ValueError: no such run, a damaged run, or an option that does not apply.
        """
        require_seed(self.seed)
        self._forecast_options()
        for path in (self.per_token, self.json):
            require_new(path)
        if self.json is not None and self.json == self.per_token:
            raise ValueError(
                f"--json and --per-token must be different files, got {str(self.json)!r} for both; use different names"
            )
        with program_settings():
            trained = load_run(self.folder, self.device, self.data_root, self.imports)
            data = cut(trained.config, self.eval_batch_size, self.window)
            data_name, part = self._data(trained)
            if self.text is not None and self.eval_batch_size is None and _is_short(part, data):
                data = dataclasses.replace(data, eval_batch_size=1)
                data_name += ", read in one column"
            held_out = dataset(part, data, trained.config.run.device, trained.config.run.precision, held_out=True)
            guide = self._guide(trained.guide)
            if self.method == "forecast":
                return self._score_forecasts(trained, data_name, held_out, guide)
            pyro.set_rng_seed(self.seed)
            result = evaluate(
                trained.model,
                held_out,
                method=self.method,
                num_samples=self.samples,
                batch_size=eval_rows(held_out, data),
                log_probs=self.per_token is not None,
                guide=guide,
                threshold=self.threshold,
            )
        if self.per_token is not None:
            assert result.log_probs is not None
            with atomic_write(self.per_token) as file:
                file.write(comma_separated(_rows(trained.vocabulary, part, result.log_probs)).encode())
        self._write_json(guide, evaluation_as_dict(result))
        print(self._table(trained, data_name, result, _source(guide)))

    def _write_json(self, guide: Guide | None, result: dict[str, Any]) -> None:
        if self.json is not None:
            scored = {"split": self.split} if self.text is None else {"text": self.text}
            scored |= {} if self.data is None else {"data": self.data}
            about = {"folder": self.folder} | scored | ({} if guide is None else {"guide": guide.__name__})
            write_json(self.json, about | result)

    def _score_forecasts(self, trained: LoadedRun, name: str, part: Any, guide: Guide | None) -> None:
        if trained.vocabulary is not None or self.per_token is not None or self.threshold is not None:
            other = "a text" if trained.vocabulary is not None else "--per-token or --threshold"
            raise ValueError(f"method 'forecast' is for series and music, not for {other}; use another method")
        options = self._forecast_options()
        steps = min(24, max(1, int(scored_lengths(part).max()))) if self.steps is None else self.steps
        if self.samples is not None:
            options["num_samples"] = self.samples
        scores = forecast_scores(trained.model, part, steps, guide=guide, seed=self.seed, **options)
        content = {field.name: getattr(scores, field.name) for field in dataclasses.fields(scores) if field.repr}
        errors = {key: error if math.isfinite(error) else None for key, error in scores.standard_errors.items()}
        self._write_json(guide, {"method": "forecast", **content, "standard_errors": errors})
        origins = "1 origin" if scores.num_origins == 1 else f"up to {scores.num_origins} origins"
        counts = f"{scores.num_values:,} values of {scores.num_sequences} series, from {origins}"
        rows = [
            ("run", str(self.folder)),
            ("data", name),
            ("forecasts", f"{steps} steps each, noise from {_source(guide)}"),
        ]
        print(aligned([*rows, ("scored", counts), *scores.rows()]))

    def _forecast_options(self) -> dict[str, Any]:
        given = {"steps": self.steps, "origins": self.origins, "stride": self.stride, "season": self.season}
        given = {option: value for option, value in given.items() if value is not None}
        if self.method != "forecast" and given:
            raise ValueError(f"{', '.join(given)}: only for method 'forecast', not {self.method!r}; leave it out")
        given.pop("steps", None)
        return given

    def _data(self, trained: LoadedRun) -> tuple[str, Tensor | Sequences]:
        """What is scored, in words, and its tokens or sequences."""
        if self.text is None and self.data is None:
            part = own_part(trained, self.split)
            return f"{trained.corpus.name}, {self.split} part", part
        is_music = trained.vocabulary is None and trained.series is None
        name, path = ("text", self.text) if self.data is None else ("data", self.data)
        for given, other in (
            (self.text is not None and self.data is not None, f"text {str(self.text)!r}"),
            (name == "text" and trained.vocabulary is None, f"a run on {'music' if is_music else 'a table'}"),
            (name == "data" and trained.vocabulary is not None, "a run on texts"),
            (self.split != "test" and not is_music, f"split {self.split!r}"),
            (self.data_root is not None, f"data root {str(self.data_root)!r}"),
        ):
            if given:
                raise ValueError(f"{name} {str(path)!r} cannot be scored with {other}; leave one of them out")
        assert path is not None
        if trained.vocabulary is not None:
            return str(path), trained.vocabulary.encode(read_words(path, trained.vocabulary.level), str(path))
        return f"{path}{f', {self.split} part' if is_music else ''}", sequences_from(trained, path, self.split)

    def _guide(self, guide: Guide | None) -> Guide | None:
        if self.proposal is None:
            return guide if self.method in ("importance", "forecast") else None
        if self.method not in ("importance", "particle-filter", "forecast"):
            raise ValueError(
                f"proposal is for methods importance, particle-filter and forecast, not {self.method!r}; leave it out"
            )
        if self.proposal == "guide" and guide is None:
            raise ValueError(f"proposal 'guide': the run in {str(self.folder)!r} has none; use 'prior'")
        return guide if self.proposal == "guide" else None

    def _table(self, trained: LoadedRun, data: str, result: Evaluation, source: str) -> str:
        vocabulary = trained.vocabulary
        unit, parts = ("steps", "sequences") if vocabulary is None else ("tokens", f"blocks of {BLOCK} tokens")
        has_error = math.isfinite(result.standard_error)
        errors = f"{result.standard_error:.4f} nats per step" if has_error else "unknown, as there is only one"
        return aligned(
            [
                ("run", str(self.folder)),
                ("data", f"{data}, {result.num_steps:,} {unit}"),
                ("method", _method(result, source)),
                ("kind", f"{result.kind}: {KINDS[result.kind]}"),
                ("nats per step", f"{result.nats_per_step:.4f}{UNITS if is_in_data_units(trained.model) else ''}"),
                *([("perplexity", f"{result.perplexity:.2f}")] if vocabulary else []),
                ("Monte Carlo error", f"{result.monte_carlo_error:.4f} nats per step (standard error over the noise)"),
                ("data error", f"{errors} (standard error over {parts})"),
                *_diagnostics(result),
            ]
        )


def _is_short(text: Tensor | Sequences, data: Data) -> bool:
    """Whether columns of a text would be shorter than a window, so that most of its tokens would lose their context."""
    return data.window is not None and len(text) < (data.eval_batch_size or 1) * data.window


def _source(guide: Guide | None) -> str:
    return "the prior" if guide is None else f"the run's {guide.__name__} guide"


def _method(result: Evaluation, source: str) -> str:
    if result.kind == "exact":
        return "the deterministic network"
    return {
        "mean": "mean, noise off",
        "ensemble": f"ensemble of {result.num_samples} noisy runs",
        "importance": f"importance sampling, {result.num_samples} samples of the noise per sequence, from {source}",
        "particle-filter": f"particle filter, {result.num_samples} particles per sequence, noise from {source}",
    }[result.method]


def _diagnostics(result: Evaluation) -> Iterable[tuple[str, str]]:
    """Diagnostics of the method, if it has any."""
    if result.effective_samples is not None:
        yield "effective samples", f"{result.effective_samples:.1f} of {result.num_samples}, on average"
    if result.resamplings is not None:
        yield "Monte Carlo bias", f"about {result.monte_carlo_bias:.4f} nats per step too high"
        yield "resamplings", f"{result.resamplings:.1f} for each sequence, on average"
    if result.pareto_k is not None and result.unreliable is not None:
        share = f"above {MAX_PARETO_K} (unreliable) in {result.unreliable:.0%} of sequences"
        yield "Pareto k", f"{result.pareto_k:.2f} at worst; {share}"


def _rows(vocabulary: Vocabulary | None, part: Tensor | Sequences, log_probs: Tensor) -> Iterable[tuple[object, ...]]:
    if isinstance(part, Sequences):
        yield "sequence", "step", "log_prob"
        ids = part.ids if isinstance(part, Series) else range(1, len(part) + 1)
        for label, item, row in zip(ids, part, log_probs.tolist(), strict=True):
            yield from ((label, t + 1, row[t]) for t in steps_of(item)[0].nonzero().flatten().tolist())
    else:
        assert vocabulary is not None
        yield "token", "log_prob"
        yield from zip(vocabulary.decode(part), log_probs.tolist(), strict=True)
