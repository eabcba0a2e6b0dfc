"""``noisin sweep``: search for the noise, or for any other options, that are best in validation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro.conf

from noisin_pyro.search import Range, SearchResult, Space, search
from noisin_pyro.search.result import SEARCH, read_settings
from noisin_pyro.search.search_space import from_json as space_from_json
from noisin_pyro.search.search_space import with_values
from noisin_pyro.training import Config, Run
from noisin_pyro.training.config import from_json as config_from_json
from noisin_pyro.training.options import Named, Options, default

TRIALS = 12
_SEARCHED = {  # fields that have an option for the values to search, and the option for one value
    "noise.noise": ("noises", "noise"),
    "noise.spread": ("spreads", "spread"),
    "optimization.learning_rate": ("learning_rates", "learning-rate"),
}


@dataclass(frozen=True)
class SearchRun(Run):
    """The search and its runs."""

    folder: Annotated[Path | None, default("runs/DATA-sweep-1, -2, ...", "FOLDER")] = None
    """New or empty folder for the trials, or the folder of a search with the same options to resume or share."""

    twin: tyro.conf.Suppress[bool] = False

    resume: Annotated[Path | None, Named(metavar="FOLDER", help_behavior_hint="")] = None
    """Resume the search in this folder with its own options; --trials may be larger."""


@dataclass(frozen=True)
class SharedOptions(Config):
    """The options that all trials share."""

    run: SearchRun = field(default_factory=SearchRun)


@dataclass(frozen=True)
class Sweep(Options):
    """Search for the noise that is best in validation, and train with it to the end.

    Each trial is a short run. The options of noisin train apply to all trials.

    A searched option has several values, or a range: LOW..HIGH or log:LOW..HIGH.

    All combinations are tried if --trials allows; otherwise Optuna proposes values.

    The same command with --folder resumes a search, or adds a worker to it.

    Requires Optuna, in a checkout: pip install -e ".[sweep]".
    """

    shared: Annotated[SharedOptions, Named(name="")] = field(default_factory=SharedOptions)
    """The options that all trials share."""

    spreads: Annotated[tuple[str, ...], Named(metavar="γ [γ ...]|LOW..HIGH")] = ("0.25", "0.5", "1.0")
    """Standard deviations of the noise to search."""

    noises: Annotated[tuple[str, ...], Named(metavar="FAMILY[:FORM] [...]")] = ("gaussian", "gaussian:multiplicative")
    """Families of noise to search, with their forms."""

    learning_rates: Annotated[tuple[str, ...], default("not searched", "RATE [RATE ...]|LOW..HIGH")] = ()
    """Learning rates to search."""

    search: Annotated[tuple[str, ...], Named(metavar="FIELD=VALUE,VALUE|LOW..HIGH [...]", help_behavior_hint="")] = ()
    """Other options to search, by their names in config.json: model.cell=gru,lstm model.hidden_size=64..512."""

    trials: Annotated[int | None, default(str(TRIALS))] = None
    """Number of trials."""

    trial_epochs: int = 5
    """Maximum number of epochs of a trial. Strong noise helps late in training; too few epochs favor weak noise."""

    prune: bool = True
    """Stop a trial after half of its epochs if it is worse than the median of the others."""

    storage: Annotated[str | None, default("a journal in the folder", "URL")] = None
    """URL of a database for Optuna, such as sqlite:///sweeps.db."""

    def run(self) -> None:
        """Search, and print the trials and the result of the best one.

        Raises:
            ValueError: invalid options, or the folder of another search.
        """
        result = self._search()
        unit = "perplexity" if result.measure == "perplexity" else "nats per step"
        print(f"{unit} of the best epoch, noise off\n{result.table()}")
        if result.result is not None and result.best is not None:
            print(f"\ntrial {result.best.number}, trained to its end\n{result.result.table()}")
        print(f"\nall trials: {result.folder / SEARCH}")

    def _search(self) -> SearchResult:
        where = self.shared.run.resume
        if where is not None:
            return self._resume(where)
        return search(
            self.shared,
            self._space(),
            self.shared.run.folder,
            TRIALS if self.trials is None else self.trials,
            self.trial_epochs,
            self.prune,
            self.storage,
            self.shared.run.seed,
        )

    def _resume(self, where: Path) -> SearchResult:
        resumed = Sweep(SharedOptions(run=SearchRun(resume=where)), trials=self.trials, storage=self.storage)
        if self != resumed:
            raise ValueError("a resumed search keeps its options, only --trials may be larger; leave the others out")
        settings = read_settings(where)
        if settings is None:
            raise ValueError(f"{str(where)!r} has no {SEARCH}: no search to resume; name the folder of one")
        config, space = config_from_json(json.dumps(settings["config"])), space_from_json(settings["space"])
        code = ((name, space.get(name)) for name in ("model.cell", "model.emission", "noise.noise"))
        choices = [{name: value} for name, values in code if isinstance(values, tuple) for value in values]
        for each in (config, *(with_values(config, choice) for choice in choices)):
            each.require_imports((), where, "the whole command, with --folder")
        return search(
            config,
            space,
            where,
            settings["trials"] if self.trials is None else self.trials,
            settings["trial_epochs"],
            settings["prune"],
            settings["storage"] if self.storage is None else self.storage,
            settings["seed"],
        )

    def _space(self) -> Space:
        space: dict[str, tuple[Any, ...] | Range] = {}
        for name, (option, single) in _SEARCHED.items():
            if texts := getattr(self, option):
                space[name] = _values(option, texts)
                group, _, field = name.partition(".")
                if getattr(getattr(self.shared, group), field) != getattr(getattr(Config(), group), field):
                    raise ValueError(
                        f"--{single} holds for all trials, and --{option.replace('_', '-')} is searched; give a "
                        "single value to the latter"
                    )
        for each in self.search:
            name, equals, values = each.partition("=")
            if not equals or name in space:
                problem = "is searched twice" if equals else "needs FIELD=VALUES"
                raise ValueError(f"search {each!r}: {problem}; write each field once, as in model.cell=gru,lstm")
            space[name] = _values(name, values.split(","))
        return space


def _values(name: str, texts: Sequence[str]) -> tuple[Any, ...] | Range:
    """Choices, or a range if a single text writes one."""
    if len(texts) == 1 and ".." in texts[0]:
        log, ends = texts[0].startswith("log:"), texts[0].removeprefix("log:").split("..")
        low, high = map(_value, ends) if len(ends) == 2 else (None, None)
        if not isinstance(low, int | float) or not isinstance(high, int | float):
            raise ValueError(f"{name.replace('_', ' ')}: a range is LOW..HIGH or log:LOW..HIGH, got {texts[0]!r}")
        return Range(low, high, log)
    return tuple(map(_value, texts))


def _value(text: str) -> Any:
    """The number, boolean or None that the text writes, or the text itself."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
