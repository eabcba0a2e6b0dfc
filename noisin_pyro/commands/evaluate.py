"""``noisin evaluate``: a run's best model on a part of its data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import pyro
from torch import Tensor

from noisin_pyro._files import atomic_write, write_json
from noisin_pyro._tables import aligned, comma_separated
from noisin_pyro.commands.options import DataRoot, Device, Named, NewFile, RunFolder, cut, require_new, require_seed
from noisin_pyro.data import Corpus, Sequences
from noisin_pyro.inference import Evaluation, evaluate
from noisin_pyro.training.build import dataset
from noisin_pyro.training.result import evaluation_as_dict
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.rundir.load import load_run
from noisin_pyro.training.validation import eval_rows

KINDS = {
    "exact": "the log-likelihood itself",
    "bound": "its expectation is an upper bound on the model's own nats per step",
    "estimate": "of the log-likelihood, by an unbiased estimate of the likelihood",
    "predictor": "a normalised predictor, neither a bound nor an estimate of the noisy model's log p(x)",
}


@dataclass(frozen=True)
class Evaluate:
    """Score a run's best model on a part of its data, and say which number it is."""

    folder: RunFolder
    """Folder of a run, as noisin train leaves it; or the folder deterministic in it, its twin."""

    split: Literal["train", "valid", "test"] = "test"
    """Part of the data."""

    method: Literal["mean", "ensemble", "importance", "particle-filter"] = "mean"
    """mean: noise off, the network underneath. ensemble: probabilities of noisy runs, averaged step by step.
    importance: a bound on the likelihood, from samples of the noise (by the run's guide, if it has one).
    particle-filter: an estimate of the likelihood."""

    samples: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: 50, 100 or 400)")] = None
    """Noisy runs to average over; samples, or particles, of each sequence. Not for the mean."""

    seed: int = 0
    """Seed of the noise."""

    eval_batch_size: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: the run's)")] = None
    """Sequences scored side by side. Of a text these are the columns that it is read in, each from a state of zeros:
    perplexity depends on them slightly."""

    window: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: the run's)")] = None
    """Steps read at once; the state is carried, and with it weights and particles. On it depend the error over
    sequences of the mean and the ensemble, and what a guide sees at once: its bound itself. Texts only."""

    per_token: NewFile = None
    """New CSV file: the log-probability (in nats) of every token in the text's order, or of every step of music."""

    json: NewFile = None
    """New JSON file for the numbers."""

    device: Device = None
    """Device to compute on."""

    data_root: DataRoot = None
    """Folder that holds ptb, wikitext-2 or polyphonic now."""

    def run(self) -> None:
        """Print the numbers, and write the files that are asked for.

        Raises:
            ValueError: no such run, one that is damaged, or an option that does not apply to it.
        """
        require_seed(self.seed)
        for path in (self.per_token, self.json):
            require_new(path)
        if self.json is not None and self.json == self.per_token:
            raise ValueError(f"json and per token are one file, {str(self.json)!r}; give each its own name")
        with program_settings():
            trained = load_run(self.folder, self.device, self.data_root)
            data = cut(trained.config, self.eval_batch_size, self.window)
            part = getattr(trained.corpus, self.split)
            held_out = dataset(part, data, trained.config.run.device, trained.config.run.precision, held_out=True)
            guide = trained.guide if self.method == "importance" else None
            pyro.set_rng_seed(self.seed)
            found = evaluate(
                trained.model,
                held_out,
                method=self.method,
                num_samples=self.samples,
                batch_size=eval_rows(held_out, data),
                log_probs=self.per_token is not None,
                guide=guide,
            )
        if self.per_token is not None:
            assert found.log_probs is not None
            with atomic_write(self.per_token) as file:
                file.write(comma_separated(_rows(trained.corpus, part, found.log_probs)).encode())
        if self.json is not None:
            about = {"folder": self.folder, "split": self.split} | ({} if guide is None else {"guide": guide.__name__})
            write_json(self.json, about | evaluation_as_dict(found))
        source = "the prior" if guide is None else f"the run's {guide.__name__} guide"
        print(self._table(trained.corpus, found, source))

    def _table(self, corpus: Corpus, found: Evaluation, source: str) -> str:
        unit = "steps" if corpus.vocabulary is None else "tokens"
        return aligned(
            [
                ("run", str(self.folder)),
                ("data", f"{corpus.name}, {self.split} part, {found.num_steps:,} {unit}"),
                ("method", _method(found, source)),
                ("kind", f"{found.kind}: {KINDS[found.kind]}"),
                ("nats per step", f"{found.nats_per_step:.4f}"),
                ("perplexity", f"{found.perplexity:.2f}"),
                ("Monte Carlo error", f"{found.monte_carlo_error:.4f} nats per step (standard error over the noise)"),
                ("error over sequences", f"{found.standard_error:.4f} nats per step (standard error over the data)"),
                *_diagnostics(found),
            ]
        )


def _method(found: Evaluation, source: str) -> str:
    if found.kind == "exact":
        return "the deterministic network"
    return {
        "mean": "mean, noise off",
        "ensemble": f"ensemble of {found.num_samples} noisy runs",
        "importance": f"importance sampling, {found.num_samples} samples of the noise for each sequence, from {source}",
        "particle-filter": f"particle filter, {found.num_samples} particles for each sequence",
    }[found.method]


def _diagnostics(found: Evaluation) -> Iterable[tuple[str, str]]:
    """How far the number can be trusted, where the method tells."""
    if found.effective_samples is not None:
        yield "effective samples", f"{found.effective_samples:.1f} of {found.num_samples}, on average"
    if found.resamplings is not None:
        yield "resamplings", f"{found.resamplings:.1f} for each sequence, on average"
    if found.pareto_k is not None and found.unreliable is not None:
        yield "Pareto k", f"{found.pareto_k:.2f} at worst; above 0.7 (no trust) in {found.unreliable:.0%} of sequences"


def _rows(corpus: Corpus, part: Tensor | Sequences, log_probs: Tensor) -> Iterable[tuple[object, ...]]:
    if isinstance(part, Sequences):
        yield "sequence", "step", "log_prob"
        for number, (row, length) in enumerate(zip(log_probs.tolist(), part.lengths.tolist(), strict=True), start=1):
            yield from ((number, step, value) for step, value in enumerate(row[:length], start=1))
    else:
        assert corpus.vocabulary is not None
        yield "token", "log_prob"
        yield from zip(corpus.vocabulary.decode(part), log_probs.tolist(), strict=True)
