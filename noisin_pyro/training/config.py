"""The configuration of a run: a frozen dataclass of groups of options, which are checked when it is made.

Groups are sections of ``noisin train --help``; :func:`to_json` and :func:`from_json` go to ``config.json`` and back.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from noisin_pyro._lookup import is_import_path, known
from noisin_pyro.training.options import CELLS, EMISSIONS, Data, Inference, Model, Noise, Optimization, Run

if TYPE_CHECKING:
    from noisin_pyro.models.dropout import Dropout

# The checks need torch and import it where they are, so that ``noisin train --help`` does not wait for it.

C = TypeVar("C", bound="Config")


@dataclass(frozen=True)
class Config:
    """The configuration of a run. ``Config()`` is what ``noisin train`` does without arguments.

    Raises:
        ValueError: a value of another type, a number outside its range, or an option that has no effect with the
            others. Options that do not fit the data or the model are refused when these are built, before a run writes
            anything.
    """

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    noise: Noise = field(default_factory=Noise)
    inference: Inference = field(default_factory=Inference)
    optimization: Optimization = field(default_factory=Optimization)
    run: Run = field(default_factory=Run)

    def __post_init__(self) -> None:
        from noisin_pyro.training.optim import optimizer_class
        from noisin_pyro.training.type_checks import check_types

        for group in dataclasses.fields(self):
            check_types(getattr(self, group.name))
        optimizer_class(self.optimization.optimizer)
        for option, name, names in (("cell", self.model.cell, CELLS), ("emission", self.model.emission, EMISSIONS)):
            if name is not None and not is_import_path(name):
                try:
                    known(option, name, names)
                except ValueError as error:
                    raise ValueError(f"{error}; the import path of your own is MODULE:NAME") from None
        if self.run.ensemble_samples == 1:
            raise ValueError("ensemble samples must be 0 (none) or at least 2, got 1")
        self._require_effective_options()
        files = self.data.files
        if files is not None and len(files) not in (1, 3):
            raise ValueError(f"files must be one file or three (training, validation, test), got {len(files)}")
        if files is not None and self.data.name not in (Data.name, str(files[0])):
            raise ValueError(f"data is {self.data.name!r} and files are given too; leave one of them out")

    def _require_effective_options(self) -> None:
        from noisin_pyro.training.optim import averages, default_weight_decay, optimizer_class

        optimization, noise = self.optimization, self.noise
        _ = self._dropout  # raises for a rate that has no effect
        if noise.spread_floor is not None and not noise.learn_spread:
            raise ValueError(
                f"spread floor {noise.spread_floor:g} is for a learned spread; learn the spread, or leave the floor out"
            )
        if optimization.schedule_factor is not None and optimization.schedule != "divide":
            raise ValueError(
                f"schedule factor is for schedule 'divide', not {optimization.schedule!r}; leave it out, or divide"
            )
        if optimization.schedule != "fixed" and optimizer_class(optimization.optimizer).__name__ == "Rprop":
            raise ValueError("Rprop reads its rate once, at the start: take schedule 'fixed', or another optimizer")
        if optimization.average_after is not None and not averages(optimization.optimizer):
            raise ValueError(
                f"average after is for optimizer 'ASGD', not {optimization.optimizer!r}; leave it out, or use that "
                "optimizer"
            )
        if optimization.weight_decay is not None and default_weight_decay(optimization.optimizer) is None:
            raise ValueError(
                f"weight decay: {optimization.optimizer} has none; leave it out, or take another optimizer"
            )
        if optimization.bound != "elbo" and optimization.num_particles < 2:
            raise ValueError(f"bound {optimization.bound} needs num particles of at least 2: with one it is the elbo")
        self._require_effective_filtering()
        if self.run.tf32 and (self.run.device != "cuda" or self.run.precision != "float32"):
            where = f"device {self.run.device!r} with precision {self.run.precision}"
            raise ValueError(f"tf32 is for float32 products on device 'cuda', got {where}; leave it out")
        if self.run.precision != "float32" and self.model.matmul_precision != "float32":
            raise ValueError(
                f"matmul precision {self.model.matmul_precision} needs precision float32, got "
                f"{self.run.precision!r}; leave one of them out"
            )
        self._require_effective_guide()
        if (not self.noisy and optimization.num_particles > 1) or (noise.spread == 0 and not noise.feedback):
            raise ValueError("without noise (spread 0), num particles and feedback have no effect; leave them out")

    def _require_effective_filtering(self) -> None:
        optimization = self.optimization
        if optimization.bound != "filtering":
            for option in ("threshold", "ancestor_term"):
                if getattr(optimization, option) is not None:
                    raise ValueError(
                        f"{label(option)} is for bound 'filtering', not {optimization.bound!r}; leave it out"
                    )
            return
        if self.run.backend not in ("auto", "loop"):
            raise ValueError(
                f"backend {self.run.backend!r} runs whole sequences, and bound 'filtering' single steps; take 'auto'"
            )
        if optimization.threshold == 0 and optimization.ancestor_term is not None:
            raise ValueError("ancestor term is for resampling, and threshold 0 has none; leave one of them out")
        self._dropout.refuse("bound 'filtering' does not support dropout masks", "bound 'elbo'")
        if self.model.weight_prior != "dirac":
            raise ValueError(
                "bound 'filtering' is validated by a particle filter, which needs fixed weights; take weight prior "
                "'dirac', or bound 'elbo'"
            )

    def _require_effective_guide(self) -> None:
        inference = self.inference
        if inference.guide == "prior":
            names = [label(name) for name, value in vars(inference).items() if name != "guide" and value is not None]
            if names:
                raise ValueError(
                    f"{' and '.join(names)}: only for a guide other than 'prior'; take one, or leave them out"
                )
            return
        self._dropout.refuse(f"guide {inference.guide!r} does not support dropout masks", "guide 'prior'")
        if not self.noisy:
            raise ValueError(f"guide {inference.guide!r} has no noise to draw where spread is 0; give a spread")
        if self.model.weight_prior != "dirac":
            raise ValueError(
                f"guide {inference.guide!r} is validated by its bound on each sequence, which weights with priors "
                "share; take weight prior 'dirac', or guide 'prior'"
            )
        if inference.kl_annealing is not None and self.optimization.bound != "elbo":
            raise ValueError(
                f"kl annealing is for bound 'elbo': the {self.optimization.bound} bound has no KL to weigh"
            )

    @property
    def noisy(self) -> bool:
        """Whether anything is random in the model."""
        noise = self.noise.spread > 0 or self.noise.input_spread > 0
        return noise or self._dropout.drops or self.model.weight_prior != "dirac"

    @property
    def import_paths(self) -> set[str]:
        """The options that name code to import."""
        paths = {name for name in (self.model.cell, self.model.emission) if is_import_path(name)}
        return paths | ({self.noise.noise} if is_own_family(self.noise.noise) else set())

    def require_imports(
        self,
        imports: Iterable[str],
        folder: Path,
        remedy: str = "by the argument imports in Python, --imports to read the run, --cell and the like to resume it",
    ) -> None:
        """Raise for import paths that are not in ``imports``: the folder of this configuration may be a stranger's.

        Raises:
            ValueError: naming them. Nothing has been imported.
        """
        unnamed = sorted(self.import_paths.difference([imports] if isinstance(imports, str) else imports))
        if unnamed:
            raise ValueError(
                f"{str(folder)!r} needs code that its configuration names, {', '.join(unnamed)}; if you trust it, name "
                f"it again: {remedy}"
            )

    @property
    def _dropout(self) -> Dropout:
        from noisin_pyro.models.dropout import get as get_dropout

        return get_dropout(self.model.regularizer, self.model.dropout)

    def deterministic_twin(self, folder: Path) -> Config:
        """The same run without noise and dropout: same data, initial weights (same seed) and optimizer."""
        no_noise = {"spread": 0.0, "learn_spread": False, "spread_floor": None, "input_spread": 0.0, "feedback": True}
        elbo = {"num_particles": 1, "bound": "elbo", "threshold": None, "ancestor_term": None}
        return with_values(
            dataclasses.replace(self, inference=Inference()),
            {
                **{f"noise.{name}": value for name, value in no_noise.items()},
                **{"model.weight_prior": "dirac", "model.regularizer": "none", "model.dropout": None},
                **{f"optimization.{name}": value for name, value in elbo.items()},
                **{"run.twin": False, "run.folder": folder},
            },
        )


def is_own_family(noise: str) -> bool:
    """Whether the option ``noise`` is an import path, rather than the name of a family with a form."""
    from noisin_pyro.noise import families

    family, _, form = noise.partition(":")
    is_named = family in families() or form in ("additive", "multiplicative", "native")
    return is_import_path(noise) and not is_named


def with_values(config: C, values: Mapping[str, Any]) -> C:
    """A copy of ``config`` with these values, given by dotted names of options such as ``"noise.spread"``.

    Raises:
        ValueError: a combination that :class:`Config` refuses.
    """
    groups: dict[str, Any] = {}
    for name, value in values.items():
        group, _, option = name.partition(".")
        groups[group] = dataclasses.replace(groups.get(group, getattr(config, group)), **{option: value})
    return dataclasses.replace(config, **groups)


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values in nested dictionaries by dotted name."""
    values: dict[str, Any] = {}
    for key, value in nested.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return values


def label(name: str) -> str:
    """The name of an option in messages, from its dotted name or the name of its field."""
    return name.rpartition(".")[2].replace("_", " ")


def to_json(config: Config) -> str:
    """The whole configuration as JSON, a key for each group; paths as text."""
    return json.dumps(dataclasses.asdict(config), indent=2, default=str)


def from_json(text: str) -> Config:
    """The configuration that :func:`to_json` wrote.

    Raises:
        ValueError: text that is not JSON of groups, a group or field that is missing or unknown, or what
            :class:`Config` refuses.
    """
    try:
        groups = json.loads(text)
        data, run = groups["data"], groups["run"]
        run |= {"resume": None}
        if "eval_batch_size" not in data:  # version 0.1 read held-out texts in the columns of the training batch
            data["eval_batch_size"] = data["batch_size"]
        return Config(**{name: group(**groups[name]) for name, group in get_type_hints(Config).items()})
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a configuration of this version: {error}") from error
