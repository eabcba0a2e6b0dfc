"""``noisin sweep``: search for the family and the spread of the noise on validation data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro.conf

from noisin_pyro.commands.options import Named
from noisin_pyro.training import Config, Found, Range, Run, Space, search
from noisin_pyro.training.config import from_json
from noisin_pyro.training.found import SEARCH, settings_in

TRIALS = 12
_SHORT = {  # for each field, the option with its candidate values, and the option that fixes it
    "noise.family": ("noises", "noise"),
    "noise.spread": ("spreads", "spread"),
    "optimisation.learning_rate": ("learning_rates", "learning-rate"),
}


@dataclass(frozen=True)
class SearchRun(Run):
    """The search and its runs."""

    folder: Annotated[
        Path | None, Named(metavar="FOLDER", help_behavior_hint="(default: runs/DATA-sweep-1, -2, ...)")
    ] = None
    """New or empty folder for the trials, or the folder of a search with the same options, which is then resumed."""

    twin: tyro.conf.Suppress[bool] = False

    resume: Annotated[Path | None, Named(metavar="FOLDER", help_behavior_hint="")] = None
    """Resume the search in this folder with its options. Only --trials may be raised."""


@dataclass(frozen=True)
class Held(Config):
    """Options that are the same in all trials."""

    run: SearchRun = field(default_factory=SearchRun)


@dataclass(frozen=True)
class Sweep:
    """Search for the noise that performs best in validation, and train the best model.

    Each trial is a short run. Options with one value (--layers) apply to all trials.

    Search options take choices, or a range: LOW..HIGH, or log:LOW..HIGH (log scale).

    If --trials covers all combinations, each is tried once; otherwise Optuna samples.

    Run the same command with the same --folder to resume, or to add a worker.

    Needs: pip install "noisin_pyro[sweep]".
    """

    held: Annotated[Held, Named(name="")] = field(default_factory=Held)
    """Options that are the same in all trials."""

    spreads: Annotated[tuple[str, ...], Named(metavar="γ [γ ...]|LOW..HIGH")] = ("0.25", "0.5", "1.0")
    """Standard deviations of the noise to try."""

    noises: Annotated[tuple[str, ...], Named(metavar="FAMILY[:FORM] [...]")] = ("gaussian", "gaussian:multiplicative")
    """Families of noise to try, each with an optional form."""

    learning_rates: Annotated[
        tuple[str, ...], Named(metavar="RATE [RATE ...]|LOW..HIGH", help_behavior_hint="(default: not searched)")
    ] = ()
    """Learning rates to try."""

    search: Annotated[tuple[str, ...], Named(metavar="FIELD=VALUE,VALUE|LOW..HIGH [...]", help_behavior_hint="")] = ()
    """Values to try for other fields of config.json, such as model.cell=gru,lstm model.hidden_size=64..512."""

    trials: Annotated[int | None, Named(metavar="INT", help_behavior_hint=f"(default: {TRIALS})")] = None
    """Number of trials."""

    trial_epochs: int = 5
    """Maximum number of epochs per trial. Strong noise helps late in training; too few epochs favour weak noise."""

    prune: bool = True
    """Stop a trial early if it is worse than the median of the other trials at the same epoch."""

    storage: Annotated[str | None, Named(metavar="URL", help_behavior_hint="(default: a journal in the folder)")] = None
    """Database URL of the Optuna study, such as sqlite:///sweeps.db."""

    def run(self) -> None:
        """Run the search, and print the trials and the results of the best one.

        Raises:
            ValueError: invalid options, or the folder of a different search.
        """
        found = self._searched()
        shown = "perplexity" if found.measure == "perplexity" else "nats per step"
        print(f"{shown} of the best epoch, noise off\n{found.table()}")
        if found.result is not None and found.best is not None:
            print(f"\ntrial {found.best.number}, trained to its end\n{found.result.table()}")
        print(f"\nall of it: {found.folder / SEARCH}")

    def _searched(self) -> Found:
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

    def _resumed(self, where: Path) -> Found:
        if dataclasses.replace(self, held=Held(run=SearchRun(resume=where)), trials=None, storage=None) != (
            dataclasses.replace(Sweep(), held=self.held)
        ):
            raise ValueError("a resumed search keeps its options, but for more trials; leave the others out")
        told = settings_in(where)
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
    """Parse choices, or a single text that gives a range."""
    if len(texts) == 1 and ".." in texts[0]:
        log, ends = texts[0].startswith("log:"), texts[0].removeprefix("log:").split("..")
        low, high = map(_value, ends) if len(ends) == 2 else (None, None)
        if not isinstance(low, int | float) or not isinstance(high, int | float):
            raise ValueError(f"{name.replace('_', ' ')}: a range is LOW..HIGH or log:LOW..HIGH, got {texts[0]!r}")
        return Range(low, high, log)
    return tuple(map(_value, texts))


def _value(text: str) -> Any:
    """Parse a number, a boolean or None; any other text is returned unchanged."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
