"""``noisin forecast``: the steps after the end of each series, by the best model of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from noisin_pyro._files import atomic_write, naming
from noisin_pyro.commands._data import own_part, sequences_from
from noisin_pyro.commands._options import (
    DataRoot,
    Device,
    Imports,
    Named,
    NewFile,
    RunFolder,
    require_new,
    require_seed,
)
from noisin_pyro.data.series_format import Columns
from noisin_pyro.data.table_files import read_table
from noisin_pyro.inference import forecast
from noisin_pyro.training.build import dataset
from noisin_pyro.training.options import Options, default
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.rundir.load import load_run

MAX_ROWS = 40


@dataclass(frozen=True)
class Forecast(Options):
    """Forecast the steps after the end of each series with the best model of a run."""

    folder: RunFolder
    """Folder of a run of noisin train on a table or on music. Its deterministic twin is in FOLDER/deterministic."""

    steps: int = 24
    """Number of steps to forecast."""

    samples: int = 400
    """Number of samples of the future, and of particles that are filtered along each series."""

    data: Annotated[Path | None, Named(metavar="FILE", help_behavior_hint="(default: the run's own)")] = None
    """Table with the same columns as the run's, or a .mat file of music, to forecast instead."""

    split: Literal["train", "valid", "test"] = "test"
    """Part of the run's data, or of a .mat file, after which to forecast. Tables are read from their start."""

    future: Annotated[Path | None, Named(metavar="FILE", help_behavior_hint="")] = None
    """Table with the covariates or, for time differences, the times of the future steps, in the columns of the run's
    table."""

    missing: Literal["last", "draw"] = "last"
    """Input where a value is missing: the last one and an indicator, as in training, or draws of the model's own."""

    proposal: Annotated[
        Literal["prior", "guide"] | None, default("the run's guide, if it has one", "{prior,guide}")
    ] = None
    """Distribution that the noise is drawn from along the series: its prior, or the run's guide."""

    csv: NewFile = None
    """New CSV file for the mean and quantiles of each step."""

    png: NewFile = None
    """New PNG file for a fan chart of the first series."""

    seed: int = 0
    """Seed of the noise and of the samples."""

    device: Device = None
    """Device on which to compute."""

    data_root: DataRoot = None
    """Folder that contains polyphonic."""

    imports: Imports = ()
    """Code of your own that the run's configuration may import: --cell, --noise or --emission of its training."""

    def run(self) -> None:
        """Print the forecast and write the requested files.

        Raises:
            ValueError: no such run, a run on texts, or an option that does not apply.
        """
        require_seed(self.seed)
        for path in (self.csv, self.png):
            require_new(path)
        with program_settings():
            trained = load_run(self.folder, self.device, self.data_root, self.imports)
            if trained.vocabulary is not None:
                raise ValueError(f"{str(self.folder)!r} is a run on a text; use noisin generate")
            if self.proposal == "guide" and trained.guide is None:
                raise ValueError(f"proposal 'guide': the run in {str(self.folder)!r} has none; use 'prior'")
            columns = Columns(()) if trained.series is None else trained.series.columns
            known = [*columns.covariates, *[columns.time] * columns.time_difference]
            if bool(known) != (self.future is not None):
                names = ", ".join(map(str, known))
                text = f"must be given, a table of {names} in the future" if names else "is for a run with covariates"
                raise ValueError(f"future {text}, got {self.future and str(self.future)!r}")
            use_guide = self.proposal != "prior" and not (self.proposal is None and self.missing == "draw")
            if self.data is not None:
                part = sequences_from(trained, self.data, self.split)
            else:
                part = own_part(trained, self.split)
            config = trained.config
            data: Any = dataset(part, config.data, config.run.device, config.run.precision, held_out=True)
            result = forecast(
                trained.model,
                data,
                self.steps,
                num_samples=self.samples,
                guide=trained.guide if use_guide else None,
                covariates=None if self.future is None else read_table(self.future, columns.id),
                missing=self.missing,
                seed=self.seed,
            )
        frame = result.to_frame()
        if self.csv is not None:
            with atomic_write(self.csv) as file:
                file.write(frame.to_csv(index=False).encode())
        if self.png is not None:
            from noisin_pyro import plots

            with naming(self.png):
                plots.forecasts(result, part).savefig(self.png, format="png")
        print(_table(frame.drop(columns=["q0.25", "q0.75"])))


def _table(frame: Any) -> str:
    """The first rows of a forecast."""
    table = frame.head(MAX_ROWS).to_string(index=False, float_format="{:.4g}".format)
    return table if len(frame) <= MAX_ROWS else f"{table}\n... {len(frame) - MAX_ROWS:,} more rows; --csv has them"
