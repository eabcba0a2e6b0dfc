"""A whole run, as a frozen dataclass of the groups of its options; what cannot be is refused here.

Groups are sections of ``noisin train --help``; :func:`to_json` and :func:`from_json` go to ``config.json`` and back.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from noisin_pyro.training.options import Data, Inference, Model, Noise, Optimization, Run

if TYPE_CHECKING:
    from noisin_pyro.models.dropout import Dropout

# The checks need torch and import it where they are, so that ``noisin train --help`` does not wait for it.

LARGEST = 1e9  # of any rate or spread: beyond it single precision has nothing to say


@dataclass(frozen=True)
class Config:
    """A whole run. Every group has defaults: ``Config()`` is what ``noisin train`` does without arguments.

    Raises:
        ValueError: a value of another type, a number outside its range, or an option that cannot apply beside the
            others. What only the data and the model can tell comes from them, before a run writes anything.
    """

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    noise: Noise = field(default_factory=Noise)
    inference: Inference = field(default_factory=Inference)
    optimization: Optimization = field(default_factory=Optimization)
    run: Run = field(default_factory=Run)

    def __post_init__(self) -> None:
        from noisin_pyro.training.kinds import checked
        from noisin_pyro.training.optim import optimizer_class

        for group in dataclasses.fields(self):
            checked(getattr(self, group.name))
        how = self.optimization
        for option, value, least in (
            ("batch size", self.data.batch_size, 1),
            ("eval batch size", self.data.eval_batch_size, 1),
            ("window", self.data.window, 1),
            ("num layers", self.model.num_layers, 1),
            ("hidden size", self.model.hidden_size, 1),
            ("emission hidden size", self.model.emission_hidden_size, 1),
            ("guide hidden size", self.inference.guide_hidden_size, 1),
            ("kl annealing", self.inference.kl_annealing, 1),
            ("epochs", how.epochs, 1),
            ("patience", how.patience, 1),
            ("num particles", how.num_particles, 1),
            ("average after", how.average_after, 0),
            ("seed", self.run.seed, 0),
            ("checkpoint steps", self.run.checkpoint_steps, 1),
            ("checkpoint seconds", self.run.checkpoint_seconds, 0),
        ):
            if value is not None and not value >= least:  # not a number is not either
                raise ValueError(f"{option} must be at least {least}, got {value}")
        if self.run.seed >= 2**32:
            raise ValueError(f"seed must be below 2**32, got {self.run.seed}")
        optimizer_class(how.optimizer)
        self._refuse_what_has_no_effect()
        if self.run.ensemble_samples < 0 or self.run.ensemble_samples == 1:
            raise ValueError(f"ensemble samples must be 0 (none) or at least 2, got {self.run.ensemble_samples}")
        for option, value in (
            ("learning rate", how.learning_rate),
            ("clip", how.clip),
            ("minutes", how.minutes),
        ):
            if value is not None and not 0 < value < LARGEST:
                raise ValueError(f"{option} must be a positive number below {LARGEST:g}, got {value}")
        for option, value in (
            ("spread", self.noise.spread),
            ("input spread", self.noise.input_spread),
            ("weight decay", how.weight_decay),
        ):
            if value is not None and not 0 <= value < LARGEST:
                raise ValueError(f"{option} must be a number from 0 to {LARGEST:g}, got {value}")
        if how.schedule_factor is not None and not 1 < how.schedule_factor < LARGEST:
            raise ValueError(f"schedule factor must be above 1, to divide the rate by, got {how.schedule_factor}")
        if self.data.files is not None and self.data.name != Data.name:
            raise ValueError(f"data is {self.data.name!r} and files are given too; leave one of them out")

    def _refuse_what_has_no_effect(self) -> None:
        from noisin_pyro.training.optim import averages, default_weight_decay, optimizer_class

        how, noise = self.optimization, self.noise
        _ = self._dropout  # refuses a rate that has no effect
        if noise.spread_floor is not None and not noise.learn_spread:
            raise ValueError(
                f"spread floor {noise.spread_floor:g} is for a learned spread; learn it, or leave that out"
            )
        if how.schedule_factor is not None and how.schedule != "divide":
            raise ValueError(f"schedule factor is for schedule 'divide', not {how.schedule!r}; leave it out, or divide")
        if how.schedule != "fixed" and optimizer_class(how.optimizer).__name__ == "Rprop":
            raise ValueError("Rprop reads its rate once, at the start: take schedule 'fixed', or another optimizer")
        if how.average_after is not None and not averages(how.optimizer):
            raise ValueError(
                f"average after is for optimizer 'ASGD', not {how.optimizer!r}; leave it out, or use that optimizer"
            )
        if how.weight_decay is not None and default_weight_decay(how.optimizer) is None:
            raise ValueError(f"weight decay: {how.optimizer} has none; leave it out, or take another optimizer")
        if how.bound != "elbo" and how.num_particles < 2:
            raise ValueError(f"bound {how.bound} needs num particles of at least 2: with one it is the elbo")
        self._refuse_filtering_in_vain()
        if self.run.tf32 and (self.run.device != "cuda" or self.run.precision != "float32"):
            where = f"device {self.run.device!r} with precision {self.run.precision}"
            raise ValueError(f"tf32 is for float32 products on device 'cuda', got {where}; leave it out")
        if self.run.precision != "float32" and self.model.matmul_precision != "float32":
            raise ValueError(
                f"matmul precision {self.model.matmul_precision} needs precision float32, got "
                f"{self.run.precision!r}; leave one of them out"
            )
        self._refuse_a_guide_in_vain()
        if (not self.noisy and how.num_particles > 1) or (noise.spread == 0 and not noise.feedback):
            raise ValueError("without noise (spread 0), num particles and feedback have no effect; leave them out")

    def _refuse_filtering_in_vain(self) -> None:
        how = self.optimization
        if how.bound != "filtering":
            for option, value in (("threshold", how.threshold), ("ancestor term", how.ancestor_term)):
                if value is not None:
                    raise ValueError(f"{option} is for bound 'filtering', not {how.bound!r}; leave it out")
            return
        if how.threshold is not None and not 0 <= how.threshold <= 1:
            raise ValueError(f"threshold must be from 0 (never resample) to 1, got {how.threshold}")
        if self.run.backend not in ("auto", "loop"):
            raise ValueError(
                f"backend {self.run.backend!r} runs whole sequences, and bound 'filtering' single steps; take 'auto'"
            )
        self._dropout.refuse("bound 'filtering' does not support dropout masks", "bound 'elbo'")
        if self.model.weight_prior != "dirac":
            raise ValueError(
                "bound 'filtering' is validated by a particle filter, which needs fixed weights; take weight prior "
                "'dirac', or bound 'elbo'"
            )

    def _refuse_a_guide_in_vain(self) -> None:
        inference = self.inference
        if inference.guide != "prior":
            told = f"guide {inference.guide!r} does not support dropout masks"
            self._dropout.refuse(told, "guide 'prior'")
            if not self.noisy:
                raise ValueError(f"guide {inference.guide!r} has no noise to draw where spread is 0; give a spread")
            if self.model.weight_prior != "dirac":
                raise ValueError(
                    f"guide {inference.guide!r} is validated by its bound on each sequence, which weights with priors "
                    "share; take weight prior 'dirac', or guide 'prior'"
                )
            if inference.kl_annealing is not None and self.optimization.bound != "elbo":
                bound = self.optimization.bound
                raise ValueError(f"kl annealing is for bound 'elbo': the {bound} bound has no KL to weigh")
            return
        options = dataclasses.asdict(inference)
        del options["guide"]
        given = [name.replace("_", " ") for name, value in options.items() if value is not None]
        if given:
            raise ValueError(f"{' and '.join(given)}: only of a guide other than the prior; name one, or leave it out")

    @property
    def noisy(self) -> bool:
        """Whether anything is random in the model."""
        noise = self.noise.spread > 0 or self.noise.input_spread > 0
        return noise or self._dropout.drops or self.model.weight_prior != "dirac"

    @property
    def _dropout(self) -> Dropout:
        from noisin_pyro.models.dropout import get as get_dropout

        return get_dropout(self.model.regularizer, self.model.dropout)

    def deterministic_twin(self, folder: Path) -> Config:
        """The same run without noise and dropout: same data, weights at the start (same seed) and optimizer."""
        silent = dataclasses.replace(
            self.noise, spread=0.0, learn_spread=False, spread_floor=None, input_spread=0.0, feedback=True
        )
        return dataclasses.replace(
            self,
            model=dataclasses.replace(self.model, weight_prior="dirac", regularizer="none", dropout=None),
            noise=silent,
            inference=Inference(),
            optimization=dataclasses.replace(
                self.optimization, num_particles=1, bound="elbo", threshold=None, ancestor_term=None
            ),
            run=dataclasses.replace(self.run, twin=False, folder=folder),
        )


def to_json(config: Config) -> str:
    """The whole configuration as JSON, a key for each group; paths as text."""
    return json.dumps(dataclasses.asdict(config), indent=2, default=str)


def from_json(text: str) -> Config:
    """The configuration that :func:`to_json` wrote.

    Raises:
        ValueError: text that is no JSON of groups, a group or field that is missing or unknown, or what
            :class:`Config` refuses.
    """
    try:
        groups = json.loads(text)
        data, run = groups["data"], groups["run"]
        root, files, folder = data["root"], data["files"], run["folder"]
        data |= {"root": root and Path(root), "files": files and tuple(map(Path, files))}
        run |= {"folder": folder and Path(folder), "resume": None}
        if "eval_batch_size" not in data:  # version 0.1 read held-out texts in the columns of the training batch
            data["eval_batch_size"] = data["batch_size"]
        return Config(
            Data(**data), Model(**groups["model"]), Noise(**groups["noise"]),
            Inference(**groups["inference"]), Optimization(**groups["optimization"]), Run(**run),
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a configuration of this version: {error}") from error
