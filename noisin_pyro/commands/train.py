"""``noisin train``: a run of its own, or the rest of one that was interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

from noisin_pyro.commands._options import Named
from noisin_pyro.training.config import Config

# What needs torch is imported where it is used: ``noisin train --help`` does not wait for it.


@dataclass(frozen=True)
class Train:
    """Train a noisy recurrent network and its deterministic twin, and compare them.

    The default data set is pydocs, the text of Python's own language reference.

    The run's folder holds the configuration, log, best model, curves and result.

    Several processes, or GPUs: torchrun --nproc-per-node N --no-python noisin train
    """

    config: Annotated[Config, Named(name="")]
    """All options of the run."""

    def with_stored_options(self, parse: Callable[[Train], Train]) -> Train:
        """Take the options of a resumed run from its folder.

        Args:
            parse: Parses the command line again, with the defaults that it is given. An option that is given with its
                default value is then distinguished from one that is left out.

        Returns:
            The command itself, if it does not resume a run.

        Raises:
            ValueError: There is no run to resume, options contradict it, or it imports code that they do not name.
        """
        if self.config.run.resume is None:
            return self
        from noisin_pyro.training.rundir.resume import require_same_options, stored_config

        before = stored_config(self.config.run.resume)
        before.require_imports(self.config.import_paths, self.config.run.resume)
        given = parse(Train(before))
        longer = given.config.optimization.epochs > before.optimization.epochs  # the one option that may differ
        require_same_options(_with_epochs_of(before, given.config) if longer else given.config, before)
        return given

    def run(self) -> None:
        """Train, and print the results of both networks.

        Raises:
            ValueError: Options or data that cannot be used.
        """
        from noisin_pyro.training.description import DataDescription
        from noisin_pyro.training.distributed import log_once
        from noisin_pyro.training.run import train
        from noisin_pyro.training.rundir.layout import CURVES
        from noisin_pyro.training.rundir.resume import stored_config

        config, epochs = self.config, None
        if config.run.resume is not None:
            before = stored_config(config.run.resume)
            if config.optimization.epochs > before.optimization.epochs:
                config, epochs = _with_epochs_of(before, config), config.optimization.epochs
        result = train(config, epochs=epochs)
        measure = "perplexity" if result.measure == "perplexity" else "nats per step"
        samples = config.run.ensemble_samples
        ensemble = f"; ensemble of {samples} noisy runs" if result.ensemble is not None else ""
        description = DataDescription.read(result.folder)
        if description is not None and description.series is not None:
            measure += " of the values in their own units"
        text = f"{measure}, noise off{ensemble}\n{result.table()}\nlearning curves: {result.folder / CURVES}"
        if log_once(text):
            print(text)


def _with_epochs_of(before: Config, config: Config) -> Config:
    return replace(config, optimization=replace(config.optimization, epochs=before.optimization.epochs))
