"""``noisin compare``: the best models of several runs, by several methods each, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from noisin_pyro import plots
from noisin_pyro._files import atomic_write
from noisin_pyro.commands.options import (
    DataRoot,
    Device,
    Named,
    NewFile,
    RunFolders,
    cut,
    require_new,
    require_seed,
)
from noisin_pyro.inference import compare
from noisin_pyro.training.build import dataset
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.rundir.layout import fingerprint
from noisin_pyro.training.rundir.load import LoadedRun, load_run
from noisin_pyro.training.validation import eval_rows

LEGEND = """
Lower is better. Both errors are standard errors in nats per step: MC (Monte Carlo) over the noise, data over the
sequences. The gap is how far a number is above the model's own likelihood, by its particle filter. ESS is the effective
sample size. Where Pareto k is above 0.7, do not trust the samples to suffice."""


@dataclass(frozen=True)
class Compare:
    """Score the best models of runs on the same data, and say which number is which."""

    folders: RunFolders = ()
    """Folders of runs, as noisin train leaves them; the folder deterministic in one is its twin."""

    split: Literal["train", "valid", "test"] = "test"
    """Part of the data."""

    methods: Annotated[
        tuple[Literal["mean", "ensemble", "importance", "particle-filter"], ...] | None,
        Named(
            metavar="{mean,ensemble,importance,particle-filter} [...]",
            help_behavior_hint="(default: all that a model has)",
        ),
    ] = None
    """Numbers to give of each model, as in noisin evaluate; a deterministic one has one alone."""

    samples: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: 50, 100, 400)")] = None
    """Noisy runs of the ensemble, samples of importance, particles of the filter."""

    seed: int = 0
    """Seed of the noise, for each number anew."""

    eval_batch_size: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: the first run's)")] = None
    """Sequences scored side by side. Of a text these are the columns that it is read in, each from a state of zeros:
    perplexity depends on them slightly."""

    window: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: the first run's)")] = None
    """Steps read at once. Texts only."""

    csv: NewFile = None
    """New CSV file for the table."""

    png: NewFile = None
    """New PNG file: a picture of the numbers and their errors."""

    device: Device = None
    """Device to compute on."""

    data_root: DataRoot = None
    """Folder that holds ptb, wikitext-2 or polyphonic now."""

    def run(self) -> None:
        """Print the table, and write the files that are asked for.

        Raises:
            ValueError: no runs, one twice, one that is damaged or is of other data, or an option that does not apply.
        """
        require_seed(self.seed)
        for path in (self.csv, self.png):
            require_new(path)
        if self.csv is not None and self.csv == self.png:
            raise ValueError(f"csv and png are one file, {str(self.csv)!r}; give each its own name")
        if not self.folders or len(set(self.folders)) < len(self.folders):
            given = ", ".join(map(str, self.folders)) or "none"
            raise ValueError(f"folders must be of at least one run, each given once, got {given}")
        with program_settings():
            first = load_run(self.folders[0], self.device, self.data_root)
            others = [load_run(folder, first.config.run.device, self.data_root) for folder in self.folders[1:]]
            runs = dict(zip(map(str, self.folders), [first, *others], strict=True))
            _require_same_data(runs)
            data = cut(first.config, self.eval_batch_size, self.window)
            part = getattr(first.corpus, self.split)
            held_out = dataset(part, data, first.config.run.device, first.config.run.precision, held_out=True)
            table = compare(
                {name: _entry(trained) for name, trained in runs.items()},
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
                f"folders must be of runs on the same data: {one!r} is on {kinds[one][1]}, {other!r} on "
                f"{kinds[other][1]}, and they differ; compare each with its own kind"
            )


def _entry(trained: LoadedRun) -> Any:
    """The model, with its guide if it has one."""
    return trained.model if trained.guide is None else (trained.model, trained.guide)
