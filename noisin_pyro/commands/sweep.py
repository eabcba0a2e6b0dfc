"""``noisin sweep``: which noise, and how much of it, does best in validation."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro.conf

from noisin_pyro.commands.options import Named
from noisin_pyro.search import Range, SearchResult, Space, search
from noisin_pyro.search.result import SEARCH, read_settings
from noisin_pyro.training import Config, Run
from noisin_pyro.training.config import from_json

TRIALS = 12
_SHORT = {  # the options that have a field's values, and that which holds it fixed
    "noise.family": ("noises", "noise"),
    "noise.spread": ("spreads", "spread"),
    "optimisation.learning_rate": ("learning_rates", "learning-rate"),
}


@dataclass(frozen=True)
class SearchRun(Run):
    """The search itself, and its runs."""

    folder: Annotated[
        Path | None, Named(metavar="FOLDER", help_behavior_hint="(default: runs/DATA-sweep-1, -2, ...)")
    ] = None
    """New or empty folder for the trials, or that of a search with these options, which goes on."""

    twin: tyro.conf.Suppress[bool] = False

    resume: Annotated[Path | None, Named(metavar="FOLDER", help_behavior_hint="")] = None
    """Go on with the search of this folder; its options are the folder's, but for more --trials."""


@dataclass(frozen=True)
class Held(Config):
    """What is held fixed: all options of a run."""

    run: SearchRun = field(default_factory=SearchRun)


@dataclass(frozen=True)
class Sweep:
    """Search for the noise that does best in validation, and train that to its end.

    Each trial is a short run. Options of one value (--layers) hold for all of them.

    Those of several are searched: choices; or LOW..HIGH, log:LOW..HIGH (logarithm).

    If --trials are enough for all choices, each is tried; else Optuna proposes.

    The same command and --folder, elsewhere or later, does its share, or goes on.

    Needs: pip install "noisin_pyro[sweep]".
    """

    held: Annotated[Held, Named(name="")] = field(default_factory=Held)
    """What is held fixed."""

    spreads: Annotated[tuple[str, ...], Named(metavar="γ [γ ...]|LOW..HIGH")] = ("0.25", "0.5", "1.0")
    """Standard deviations of the noise to search."""

    noises: Annotated[tuple[str, ...], Named(metavar="FAMILY[:FORM] [...]")] = ("gaussian", "gaussian:multiplicative")
    """Families of the noise, and their forms, to search."""

    learning_rates: Annotated[
        tuple[str, ...], Named(metavar="RATE [RATE ...]|LOW..HIGH", help_behavior_hint="(default: not searched)")
    ] = ()
    """Learning rates to search."""

    search: Annotated[tuple[str, ...], Named(metavar="FIELD=VALUE,VALUE|LOW..HIGH [...]", help_behavior_hint="")] = ()
    """Any other field to search, by its name in config.json: model.cell=gru,lstm model.hidden_size=64..512."""

    trials: Annotated[int | None, Named(metavar="INT", help_behavior_hint=f"(default: {TRIALS})")] = None
    """Combinations to try."""

    trial_epochs: int = 5
    """Most epochs of a trial. Strong noise pays late: too few of them choose too little of it."""

    prune: bool = True
    """Stop trials that are worse than the median of the others halfway."""

    storage: Annotated[str | None, Named(metavar="URL", help_behavior_hint="(default: a journal in the folder)")] = None
    """Database for Optuna, such as sqlite:///sweeps.db."""

    def run(self) -> None:
        """Search, and print the trials and what the best one came to.

        Raises:
            ValueError: options that cannot be, or another search's folder.
        """
        found = self._searched()
        shown = "perplexity" if found.measure == "perplexity" else "nats per step"
        print(f"{shown} of the best epoch, noise off\n{found.table()}")
        if found.result is not None and found.best is not None:
            print(f"\ntrial {found.best.number}, trained to its end\n{found.result.table()}")
        print(f"\nall of it: {found.folder / SEARCH}")

    def _searched(self) -> SearchResult:
        where = self.held.run.resume
        if where is not None:
            return self._resumed(where)
        return search(
            self.held,
            self._space(),
            self.held.run.folder,
            TRIALS if self.trials is None else self.trials,
            self.trial_epochs,
            self.prune,
            self.storage,
            self.held.run.seed,
        )

    def _resumed(self, where: Path) -> SearchResult:
        if dataclasses.replace(self, held=Held(run=SearchRun(resume=where)), trials=None, storage=None) != (
            dataclasses.replace(Sweep(), held=self.held)
        ):
            raise ValueError("a resumed search keeps its options, but for more trials; leave the others out")
        told = read_settings(where)
        if told is None:
            raise ValueError(f"{str(where)!r} has no {SEARCH}: no search to go on with; name the folder of one")
        space = {
            name: Range(**values) if isinstance(values, dict) else tuple(values)
            for name, values in told["space"].items()
        }
        return search(
            from_json(json.dumps(told["config"])),
            space,
            where,
            told["trials"] if self.trials is None else self.trials,
            told["trial_epochs"],
            told["prune"],
            told["storage"] if self.storage is None else self.storage,
            told["seed"],
        )

    def _space(self) -> Space:
        space: dict[str, tuple[Any, ...] | Range] = {}
        for name, (option, single) in _SHORT.items():
            if texts := getattr(self, option):
                space[name] = _values(option, texts)
                group, _, field = name.partition(".")
                if getattr(getattr(self.held, group), field) != getattr(getattr(Config(), group), field):
                    raise ValueError(
                        f"--{single} holds for all trials, and --{option.replace('_', '-')} is searched; for one value "
                        "alone, give that to the latter"
                    )
        for each in self.search:
            name, equals, values = each.partition("=")
            if not equals or name in space:
                problem = "is searched twice" if equals else "needs FIELD=VALUES"
                raise ValueError(f"search {each!r}: {problem}; write each field once, as in model.cell=gru,lstm")
            space[name] = _values(name, values.split(","))
        return space


def _values(name: str, texts: Sequence[str]) -> tuple[Any, ...] | Range:
    """Choices, or the range that a text alone writes."""
    if len(texts) == 1 and ".." in texts[0]:
        log, ends = texts[0].startswith("log:"), texts[0].removeprefix("log:").split("..")
        low, high = map(_value, ends) if len(ends) == 2 else (None, None)
        if not isinstance(low, int | float) or not isinstance(high, int | float):
            raise ValueError(f"{name.replace('_', ' ')}: a range is LOW..HIGH or log:LOW..HIGH, got {texts[0]!r}")
        return Range(low, high, log)
    return tuple(map(_value, texts))


def _value(text: str) -> Any:
    """A number, a boolean or None where the text is one, else the text."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
