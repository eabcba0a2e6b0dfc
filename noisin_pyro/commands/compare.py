"""``noisin compare``: score the best models of several runs, each by several methods, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from noisin_pyro import plots
from noisin_pyro._diagnostics import MAX_PARETO_K
from noisin_pyro._files import atomic_write
from noisin_pyro.commands._options import (
    DataRoot,
    Device,
    Imports,
    NewFile,
    RunFolders,
    cut,
    require_new,
    require_seed,
)
from noisin_pyro.inference import compare
from noisin_pyro.training.build import dataset
from noisin_pyro.training.options import Options, default
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.rundir.layout import fingerprint
from noisin_pyro.training.rundir.load import LoadedRun, load_run
from noisin_pyro.training.validation import eval_rows

LEGEND = f"""
Lower is better. Both errors are standard errors in nats per step: MC (Monte Carlo) over the noise, data over the
sequences or, for a text, over blocks of 500 tokens. The gap is the difference to the particle filter's estimate for the
same model. ESS is the effective sample size. If Pareto k is above {MAX_PARETO_K}, there are too few samples for a
reliable result."""


@dataclass(frozen=True)
class Compare(Options):
    """Score the best models of several runs on the same data, in one table."""

    folders: RunFolders = ()
    """Folders of runs of noisin train. The deterministic twin of a run is in FOLDER/deterministic."""

    split: Literal["train", "valid", "test"] = "test"
    """Part of the data on which to score."""

    methods: Annotated[
        tuple[Literal["mean", "ensemble", "importance", "particle-filter"], ...] | None,
        default("all that apply", "{mean,ensemble,importance,particle-filter} [...]"),
    ] = None
    """Methods to use, as in noisin evaluate. A deterministic model has one exact score."""

    samples: Annotated[int | None, default("50, 100, 400")] = None
    """Number of noisy runs (ensemble), samples (importance) or particles (particle-filter)."""

    seed: int = 0
    """Seed of the noise, set before each score."""

    eval_batch_size: Annotated[int | None, default("the first run's")] = None
    """Number of sequences scored in parallel. Of a text: the columns it is read in, which affect perplexity."""

    window: Annotated[int | None, default("the first run's")] = None
    """Number of steps per window. Texts only."""

    csv: NewFile = None
    """New CSV file for the table."""

    png: NewFile = None
    """New PNG file for a plot of the scores and their errors."""

    device: Device = None
    """Device on which to compute."""

    data_root: DataRoot = None
    """Folder that contains ptb, wikitext-2 or polyphonic."""

    imports: Imports = ()
    """Code of your own that the run's configuration may import: --cell, --noise or --emission of its training."""

    def run(self) -> None:
        """Print the table and write the requested files.

        Raises:
            ValueError: no runs, a run given twice, a damaged run, runs on different data, or an option that does not
                apply.
        """
        require_seed(self.seed)
        for path in (self.csv, self.png):
            require_new(path)
        if self.csv is not None and self.csv == self.png:
            raise ValueError(
                f"--csv and --png must be different files, got {str(self.csv)!r} for both; use different names"
            )
        if not self.folders or len(set(self.folders)) < len(self.folders):
            given = ", ".join(map(str, self.folders)) or "none"
            raise ValueError(f"folders must contain at least one run, each given once, got {given}")
        with program_settings():
            first = load_run(self.folders[0], self.device, self.data_root, self.imports)
            options = first.config.run.device, self.data_root, self.imports
            others = [load_run(folder, *options) for folder in self.folders[1:]]
            runs = dict(zip(map(str, self.folders), [first, *others], strict=True))
            _require_same_data(runs)
            data = cut(first.config, self.eval_batch_size, self.window)
            part = getattr(first.corpus, self.split)
            held_out = dataset(part, data, first.config.run.device, first.config.run.precision, held_out=True)
            table = compare(
                {name: run.model if run.guide is None else (run.model, run.guide) for name, run in runs.items()},
                held_out,
                methods=self.methods,
                num_samples=self.samples,
                batch_size=eval_rows(held_out, data),
                seed=self.seed,
            )
        if self.csv is not None:
            with atomic_write(self.csv) as file:
                file.write(table.csv().encode())
        if self.png is not None:
            with atomic_write(self.png) as file:
                plots.comparison(table.rows).savefig(file, format="png")
        print(f"{first.corpus.name}, {self.split} part\n\n{table}\n{LEGEND}")


def _require_same_data(runs: dict[str, LoadedRun]) -> None:
    kinds = {
        name: (fingerprint(trained.corpus), f"{trained.corpus.name} in {trained.config.run.precision}")
        for name, trained in runs.items()
    }
    one, *others = kinds
    for other in others:
        if kinds[other] != kinds[one]:
            raise ValueError(
                f"folders must be of runs on the same data, but the data of {one!r} ({kinds[one][1]}) and {other!r} "
                f"({kinds[other][1]}) differ; compare only runs on the same data"
            )
