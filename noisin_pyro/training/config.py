"""Everything a run is told, as frozen dataclasses: a field's docstring is its help on the command line.

Groups are sections of ``noisin train --help``; :func:`to_json` and :func:`from_json` go to ``config.json`` and back.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro.conf

from noisin_pyro.models import regularizers
from noisin_pyro.training.kinds import checked
from noisin_pyro.training.optimizers import averages, decay, optimizer_class

Named = tyro.conf.arg
LARGEST = 1e9  # of any rate or spread: beyond it single precision has nothing to say


@dataclass(frozen=True)
class Data:
    """The text or music, and how it is cut. A text's folder holds train.txt, valid.txt and test.txt."""

    name: Annotated[str, Named(name="data", metavar="NAME|FOLDER|FILE.mat")] = "pydocs"
    """Text: pydocs (embedded), ptb, wikitext-2, a folder. Music: jsb, nottingham, piano-midi, musedata, a .mat file."""

    root: Annotated[
        Path | None,
        Named(name="data-root", metavar="FOLDER", help_behavior_hint="(default: $NOISIN_DATA, the cache, a download)"),
    ] = None
    """Folder that holds ptb, wikitext-2 or polyphonic. The cache is $NOISIN_CACHE, if set."""

    files: Annotated[tuple[Path, Path, Path] | None, Named(metavar="TRAIN VALID TEST", help_behavior_hint="")] = None
    """Three text files of your own, in place of --data."""

    min_count: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: keep every word)")] = None
    """Words of your own text that training sees less often than this become <unk>."""

    max_vocabulary: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: keep every word)")] = None
    """Most words to keep of your own text, the most frequent first; the others become <unk>."""

    batch_size: int = 20
    """Sequences read side by side (of a text: the columns it is cut into)."""

    window: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: 35)")] = None
    """Steps of truncated backpropagation through time. Texts only: music is read whole."""


@dataclass(frozen=True)
class Model:
    """The underlying recurrent network."""

    cell: Literal["tanh", "sigmoid", "relu", "identity", "lstm", "gru"] = "tanh"
    """Recurrent cell."""

    num_layers: Annotated[int, Named(name="layers")] = 1
    """Number of layers."""

    hidden_size: int = 256
    """Units of each layer, and of the embedding."""

    tie_weights: bool = False
    """Let the softmax share its weights with the embedding. Texts only."""

    initialization: Literal["torch", "published"] = "torch"
    """Weights at the start: torch's (embedding N(0, 1)), or the published paper's (embedding U(±0.1), biases 0)."""

    weight_prior: Literal["dirac", "normal"] = "dirac"
    """Prior of the layers' weight matrices: dirac (plain weights), or normal with learned means and deviations."""

    regularizer: Literal["none", "variational-dropout", "D"] = "none"
    """Dropout, alone or beside noise, by masks that stay along a window: Gal and Ghahramani's, or the published D."""

    dropout: Annotated[
        float | None,
        Named(metavar="RATE", help_behavior_hint="(default: the paper's)"),
    ] = None
    """Share that each mask of variational-dropout drops; the paper's: 0.3 of words and recurrence, else 0.5."""

    products: Literal["float32", "bfloat16"] = "float32"
    """Type that factors and results of products with weights are rounded to; sums are float32 in both. The layers'
    too where engine scan computes them."""


@dataclass(frozen=True)
class Noise:
    """What is injected into the hidden states."""

    family: Annotated[str, Named(name="noise", metavar="FAMILY[:FORM]")] = "gaussian"
    """Family of the noise, and its form: additive, multiplicative or native. See: noisin families."""

    spread: float = 0.5
    """Standard deviation γ of each layer's noise (multiplicative: relative to the state); 0 is the plain network."""

    learn_spread: bool = False
    """Learn the spread of each layer with the weights, starting from --spread. That of the inputs stays fixed."""

    spread_floor: Annotated[float | None, Named(metavar="FLOAT", help_behavior_hint="(default: 0.1, the paper's)")] = (
        None
    )
    """Least that a learned spread can become; needs --learn-spread. With 0, --patience alone stops it short of 0."""

    input_spread: float = 0.0
    """Standard deviation of noise of the same family on the (embedded) inputs."""

    feedback: bool = True
    """Feed the noisy state back (weakly unbiased noise); without, it is on the output alone (strongly unbiased)."""


@dataclass(frozen=True)
class Inference:
    """Where the noise is drawn from in training: its prior, or a guide that is trained with the model."""

    guide: Literal["prior", "mean-field", "filtering", "smoothing"] = "prior"
    """prior: equation (1). Others: the ELBO of a guide that looks at the data; validation is by that bound then."""

    covariance: Annotated[
        Literal["diagonal", "full"] | None, Named(name="guide-covariance", help_behavior_hint="(default: diagonal)")
    ] = None
    """Of a layer's units at one step, in the guide."""

    hidden_size: Annotated[
        int | None, Named(name="guide-hidden-size", metavar="INT", help_behavior_hint="(default: the layers')")
    ] = None
    """Units of the guide's encoder and networks."""

    kl_annealing: Annotated[int | None, Named(metavar="EPOCHS", help_behavior_hint="(default: none)")] = None
    """Epochs in which the weight of the guide's KL rises in equal steps to 1."""


@dataclass(frozen=True)
class Optimisation:
    """How the parameters are found."""

    optimizer: Annotated[str, Named(metavar="NAME")] = "Adam"
    """Any optimiser of torch.optim, by name."""

    learning_rate: float = 0.001
    """Learning rate, of the first epoch where a schedule lowers it."""

    schedule: Literal["fixed", "halve", "divide"] = "fixed"
    """Fixed rate, halved in every epoch after the fourth, or divided after each epoch not better in validation."""

    schedule_factor: Annotated[
        float | None, Named(metavar="FLOAT", help_behavior_hint="(default: 1.2, the published paper's)")
    ] = None
    """What the rate is divided by; needs --schedule divide."""

    average_after: Annotated[int | None, Named(metavar="STEPS", help_behavior_hint="(default: 0)")] = None
    """Gradient steps before averaging begins; needs --optimizer ASGD, which tests and keeps its averaged weights."""

    weight_decay: Annotated[
        float | None, Named(metavar="FLOAT", help_behavior_hint="(default: the optimiser's: 0, but AdamW's 0.01)")
    ] = None
    """Decay of the weights, as the optimiser defines it: L2, AdamW's beside the gradient. Spreads are left out."""

    clip: Annotated[float | None, Named(metavar="FLOAT|None")] = 5.0
    """Largest norm of the whole gradient, of the loss in nats per step; None does not clip."""

    epochs: int = 14
    """Most passes over the training data."""

    patience: Annotated[int | None, Named(metavar="INT|None")] = 5
    """Stop after so many epochs in a row without a better validation, whose model and spreads are kept; None: never."""

    minutes: Annotated[float | None, Named(metavar="FLOAT", help_behavior_hint="(default: no limit)")] = None
    """Stop after the epoch in which training and validation reach this many minutes by the clock, breaks left out."""

    particles: int = 1
    """Samples of the noise for each gradient."""

    bound: Literal["elbo", "importance"] = "elbo"
    """Objective: the samples' mean log-likelihood (the paper's) or their log-mean-exp (of a cut text: not a bound)."""


@dataclass(frozen=True)
class Run:
    """The run itself."""

    folder: Annotated[Path | None, Named(metavar="FOLDER", help_behavior_hint="(default: runs/DATA-1, -2, ...)")] = None
    """New or empty folder for configuration, log, best model, pictures and result."""

    seed: int = 0
    """Seed of the weights, the noise and the order of the data."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Device to compute on."""

    precision: Literal["float32", "float64"] = "float32"
    """Type of all weights, states and noise; float64 is for checks, at twice the memory and time or more."""

    engine: Literal["auto", "kernel", "scan", "loop"] = "auto"
    """Way to compute the layers; the same numbers but for rounding. auto takes the fastest, and the log says which."""

    tf32: bool = False
    """Let a GPU round the factors of float32 products to TF32 (10 binary digits); torch itself does so in cuDNN."""

    twin: bool = True
    """Train the deterministic network too, everything but the noise equal, for comparison."""

    resume: Annotated[Path | None, Named(metavar="FOLDER", help_behavior_hint="")] = None
    """Go on with the unfinished run of this folder, exactly where it was; its options are the folder's."""

    checkpoint_steps: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: none)")] = None
    """Gradient steps between checkpoints within an epoch, beside that at each epoch's end."""

    checkpoint_seconds: Annotated[float | None, Named(metavar="FLOAT|None")] = 300.0
    """Seconds between checkpoints within an epoch; None keeps none by the clock."""

    ensemble_samples: int = 50
    """Noisy runs that the final test averages over; 0 leaves that test out."""


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
    optimisation: Optimisation = field(default_factory=Optimisation)
    run: Run = field(default_factory=Run)

    def __post_init__(self) -> None:
        for group in dataclasses.fields(self):
            checked(getattr(self, group.name))
        how = self.optimisation
        for option, value, least in (
            ("batch size", self.data.batch_size, 1),
            ("window", self.data.window, 1),
            ("layers", self.model.num_layers, 1),
            ("hidden size", self.model.hidden_size, 1),
            ("guide hidden size", self.inference.hidden_size, 1),
            ("kl annealing", self.inference.kl_annealing, 1),
            ("epochs", how.epochs, 1),
            ("patience", how.patience, 1),
            ("particles", how.particles, 1),
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
        how, noise = self.optimisation, self.noise
        _ = self._dropout  # refuses a rate that has no effect
        if noise.spread_floor is not None and not noise.learn_spread:
            raise ValueError(
                f"spread floor {noise.spread_floor:g} is for a learned spread; learn it, or leave that out"
            )
        if how.schedule_factor is not None and how.schedule != "divide":
            raise ValueError(f"schedule factor is for schedule 'divide', not {how.schedule!r}; leave it out, or divide")
        if how.schedule != "fixed" and optimizer_class(how.optimizer) is torch.optim.Rprop:
            raise ValueError("Rprop reads its rate once, at the start: take schedule 'fixed', or another optimizer")
        if how.average_after is not None and not averages(how.optimizer):
            raise ValueError(
                f"average after is for optimizer 'ASGD', not {how.optimizer!r}; leave it out, or take that"
            )
        if how.weight_decay is not None and decay(how.optimizer) is None:
            raise ValueError(f"weight decay: {how.optimizer} has none; leave it out, or take another optimizer")
        if how.bound == "importance" and how.particles < 2:
            raise ValueError("bound importance needs at least 2 particles: with one it is the elbo")
        if self.run.tf32 and (self.run.device != "cuda" or self.run.precision != "float32"):
            where = f"device {self.run.device!r} with precision {self.run.precision}"
            raise ValueError(f"tf32 is for float32 products on device 'cuda', got {where}; leave it out")
        if self.run.precision != "float32" and self.model.products != "float32":
            raise ValueError(
                f"products in {self.model.products} are of float32 numbers, not of precision "
                f"{self.run.precision!r}; leave one of them out"
            )
        self._refuse_a_guide_in_vain()
        if (not self.noisy and how.particles > 1) or (noise.spread == 0 and not noise.feedback):
            raise ValueError("without noise (spread 0), particles and feedback have no effect; leave them out")

    def _refuse_a_guide_in_vain(self) -> None:
        inference = self.inference
        if inference.guide != "prior":
            told = f"guide {inference.guide!r} walks along the layers step by step, without masks"
            self._dropout.refuse(told, "guide 'prior'")
            if not self.noisy:
                raise ValueError(f"guide {inference.guide!r} has no noise to draw where spread is 0; give a spread")
            if self.model.weight_prior != "dirac":
                raise ValueError(
                    f"guide {inference.guide!r} is validated by its bound on each sequence, which weights with priors "
                    "share; take weight prior 'dirac', or guide 'prior'"
                )
            if inference.kl_annealing is not None and self.optimisation.bound == "importance":
                raise ValueError("kl annealing is for bound 'elbo': the importance bound has no KL to weigh")
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
    def _dropout(self) -> regularizers.Dropout:
        return regularizers.get(self.model.regularizer, self.model.dropout)

    def deterministic_twin(self, folder: Path) -> Config:
        """The same run without noise and dropout: same data, weights at the start (same seed) and optimiser."""
        silent = dataclasses.replace(
            self.noise, spread=0.0, learn_spread=False, spread_floor=None, input_spread=0.0, feedback=True
        )
        return dataclasses.replace(
            self,
            model=dataclasses.replace(self.model, weight_prior="dirac", regularizer="none", dropout=None),
            noise=silent,
            inference=Inference(),
            optimisation=dataclasses.replace(self.optimisation, particles=1, bound="elbo"),
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
        if groups["model"].get("softmax_products") == "float32":  # of runs from before there was ``products``
            del groups["model"]["softmax_products"]
        return Config(
            Data(**data), Model(**groups["model"]), Noise(**groups["noise"]),
            Inference(**groups["inference"]), Optimisation(**groups["optimisation"]), Run(**run),
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a configuration of this version: {error}") from error
