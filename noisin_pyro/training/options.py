"""Options of a run, in groups. The docstring of a field is its help text on the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro.conf
from annotated_types import Ge, Gt, Le, Lt

from noisin_pyro._lookup import as_number

Named = tyro.conf.arg
CELLS = "tanh", "sigmoid", "relu", "identity", "lstm", "gru"
EMISSIONS = (
    "categorical", "bernoulli", "gaussian", "student-t", "heteroscedastic-gaussian", "poisson", "negative-binomial"
)  # fmt: skip
LARGEST = 1e9  # of rates and spreads, far from overflow in single precision
Count = Annotated[int, Ge(1)]
Positive = Annotated[float, Gt(0), Lt(LARGEST)]
Fraction = Annotated[float, Gt(0), Lt(1)]
NonNegative = Annotated[float, Ge(0), Lt(LARGEST)]


def default(text: str, metavar: str = "INT", name: str | None = None) -> Any:
    """An option that is ``None`` or empty by default, with what that stands for in its help text."""
    return Named(name=name, metavar=metavar, help_behavior_hint=f"(default: {text})")


@dataclass(frozen=True)
class Options:
    """A group of options. NumPy's scalars become Python's, strings that stand for paths become paths, ``~`` at the
    beginning of a path becomes the home folder, and a single path or name becomes a tuple where there can be several.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            value, hint = getattr(self, field.name), str(field.type)
            if "tuple[" in hint and isinstance(value, str | Path):
                value = (value,)
            elif hint.startswith("Annotated[str,") and isinstance(value, Path):  # the data's name
                value = str(value)
            object.__setattr__(self, field.name, plain(_as_paths(value) if "Path" in hint else value))


def _as_paths(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_as_paths, value))
    return Path(value) if isinstance(value, str) else value


def plain(value: Any) -> Any:
    """A number of NumPy or torch as Python's, and a path with the home folder for ``~``; anything else as it is."""
    value = as_number(value)
    if isinstance(value, Path) or (isinstance(value, str) and value.startswith("~")):
        return type(value)(os.path.expanduser(value))  # no shell has done so in --folder=~/runs
    if isinstance(value, tuple | list):  # of words, which stay as they are, or of paths
        return tuple(plain(each) if isinstance(each, Path) else each for each in value)
    return value


@dataclass(frozen=True)
class Data(Options):
    """Data: text, music or a table of series. The folder of a text holds train.txt, valid.txt and test.txt."""

    name: Annotated[str, Named(name="data", metavar="NAME|FOLDER|FILE")] = "pydocs"
    """Text: pydocs (built in), ptb, wikitext-2, a folder, a file. Music: jsb, nottingham, piano-midi, musedata, a .mat
    file. Table: a .csv, .tsv or .parquet file with a row for each step of each series."""

    root: Annotated[Path | None, default("$NOISIN_DATA, the cache, a download", "FOLDER", "data-root")] = None
    """Folder that contains ptb, wikitext-2 or polyphonic. The cache is $NOISIN_CACHE, if set."""

    files: Annotated[tuple[Path, ...] | None, Named(metavar="TRAIN VALID TEST|FILE", help_behavior_hint="")] = None
    """Three text files of your own, instead of --data; or one file, which is split."""

    level: Literal["word", "character"] = "word"
    """Read your own text as words or as characters."""

    min_count: Annotated[int | None, default("keep every word; 2 for one file", "INT")] = None
    """Replace words that occur less often than this in your own training text by <unk>."""

    max_vocabulary: Annotated[int | None, default("keep every word")] = None
    """Maximum vocabulary size of your own text. The least frequent words are replaced by <unk>."""

    id: Annotated[str | None, default("inferred", "COLUMN")] = None
    """Table: column that names the series of a row."""

    time: Annotated[str | None, default("inferred", "COLUMN")] = None
    """Table: column of times, dates or numbers. Where a regular time has no row, the step is missing."""

    values: Annotated[tuple[str, ...], default("inferred", "COLUMN [COLUMN ...]")] = ()
    """Table: columns to predict. Empty cells are missing."""

    covariates: Annotated[tuple[str, ...], default("none", "COLUMN [COLUMN ...]")] = ()
    """Table: columns that are known in advance."""

    frequency: Annotated[str | None, default("inferred", "OFFSET|NUMBER|rows")] = None
    """Table: step of the regular times, as pandas writes it (D, 15min, MS); rows: each row is a step."""

    time_difference: bool = False
    """Table: take rows as steps, and the time since the row before as one more covariate."""

    split: Annotated[Literal["time", "series"] | None, default("time", "{time,series}")] = None
    """Table: validate and test on the last steps of each series, or on the last series."""

    valid_fraction: Annotated[Fraction | None, default("0.1", "FLOAT")] = None
    """Your own text in one file, or a table: fraction of the tokens, steps or series for validation."""

    test_fraction: Annotated[Fraction | None, default("0.1", "FLOAT")] = None
    """Your own text in one file, or a table: fraction of the tokens, steps or series for the test."""

    scaling: Annotated[
        Literal["standard", "mean", "none"] | None, default("by the emission", "{standard,mean,none}")
    ] = None
    """Table: scale values by mean and standard deviation, by their mean, or not. Scores stay in the data's units."""

    batch_size: Count = 20
    """Batch size. A text is cut into this number of columns."""

    eval_batch_size: Annotated[Count | None, default("10 for a text, otherwise the batch size")] = None
    """Batch size in validation and test. A text is cut into this number of columns, on which perplexity depends."""

    window: Annotated[Count | None, default("35; of a table, whole series")] = None
    """Steps of truncated backpropagation through time. In a table, each window starts from the initial state."""


@dataclass(frozen=True)
class Model(Options):
    """The underlying recurrent network."""

    cell: Annotated[str, Named(metavar=f"{{{','.join(CELLS)}}}|MODULE:NAME")] = "tanh"
    """Recurrent cell, or the import path of one of your own."""

    emission: Annotated[
        str | None, default("bernoulli; of a table, by its values", f"{{{','.join(EMISSIONS)}}}|MODULE:NAME")
    ] = None
    """Distribution of an observation, or the import path of one. Not for texts, which have a softmax."""

    num_layers: Count = 1
    """Number of layers."""

    hidden_size: Count = 256
    """Number of units of each layer, and size of the embedding."""

    tie_weights: bool = False
    """Share the weights of the embedding and the softmax. Texts only."""

    emission_hidden_size: Annotated[Count | None, default("none")] = None
    """Number of units of a hidden layer between the states and the output. By default the output is linear."""

    initialization: Literal["torch", "published"] = "torch"
    """Initial weights: torch's (embedding N(0, 1)), or the published paper's (embedding U(±0.1), biases 0)."""

    weight_prior: Literal["dirac", "normal"] = "dirac"
    """Prior of the weight matrices of the layers: dirac (plain weights), or normal with learned mean and scale."""

    regularizer: Literal["none", "variational-dropout", "D"] = "none"
    """Dropout with masks fixed over time, with or without noise: Gal and Ghahramani's, or the published paper's D."""

    dropout: Annotated[float | None, default("Gal and Ghahramani's", "RATE")] = None
    """Dropout rate of variational-dropout. By default 0.3 for words and recurrence, and 0.5 elsewhere."""

    matmul_precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix products with weights; sums are in float32. In layers, bfloat16 needs the backend scan."""


@dataclass(frozen=True)
class Noise(Options):
    """Noise that is injected into the hidden states."""

    noise: Annotated[str, Named(metavar="FAMILY[:FORM]|MODULE:NAME")] = "gaussian"
    """Family and form (additive, multiplicative or native), as noisin families lists them, or an import path."""

    spread: NonNegative = 0.5
    """Standard deviation γ of the noise (multiplicative: relative to the state); 0 is the deterministic network."""

    learn_spread: bool = False
    """Learn the spread of each layer, starting at --spread. The spread of the inputs stays fixed."""

    spread_floor: Annotated[float | None, default("0.1, the paper's", "FLOAT")] = None
    """Lower bound of a learned spread; needs --learn-spread. With 0, only early stopping keeps it above 0."""

    input_spread: NonNegative = 0.0
    """Standard deviation of noise of the same family on the inputs (of a text: on their embeddings)."""

    feedback: bool = True
    """Feed the noisy state back (weakly unbiased). Otherwise only the output is noisy (strongly unbiased)."""


@dataclass(frozen=True)
class Inference(Options):
    """Distribution of the noise in training: its prior, or a guide that is trained with the model."""

    guide: Literal["prior", "mean-field", "filtering", "smoothing"] = "prior"
    """prior: equation (1). Others: a guide that depends on the data, for the bound in training and validation.
    With --bound filtering it is the proposal, trained in the run of --init-from; with --threshold 0, trained here."""

    guide_covariance: Annotated[Literal["diagonal", "full"] | None, default("diagonal", "{diagonal,full}")] = None
    """Covariance of the guide between the units of a layer at one step."""

    guide_hidden_size: Annotated[Count | None, default("the layers'")] = None
    """Number of units of the guide's networks."""

    kl_annealing: Annotated[Count | None, default("none", "EPOCHS")] = None
    """Number of epochs over which the weight of the KL term rises linearly to 1."""


@dataclass(frozen=True)
class Optimization(Options):
    """Optimizer, learning rate and stopping."""

    optimizer: Annotated[str, Named(metavar="NAME")] = "Adam"
    """Name of an optimizer in torch.optim."""

    learning_rate: Positive = 0.001
    """Initial learning rate."""

    schedule: Literal["fixed", "halve", "divide"] = "fixed"
    """Learning rate schedule: fixed, halve (every epoch after the fourth), or divide (when validation gets worse)."""

    schedule_factor: Annotated[
        Annotated[float, Gt(1), Lt(LARGEST)] | None, default("1.2, the published paper's", "FLOAT")
    ] = None
    """Factor by which the learning rate is divided; needs --schedule divide."""

    average_after: Annotated[Annotated[int, Ge(0)] | None, default("0", "STEPS")] = None
    """Gradient steps before averaging begins; needs --optimizer ASGD. The averaged weights are tested and saved."""

    weight_decay: Annotated[NonNegative | None, default("the optimizer's: 0, but AdamW's 0.01", "FLOAT")] = None
    """Weight decay, as the optimizer defines it. Spreads are not decayed."""

    clip: Annotated[Positive | None, Named(metavar="FLOAT|None")] = 5.0
    """Maximum global gradient norm (the loss is in nats per step); None for no clipping."""

    epochs: Count = 14
    """Maximum number of epochs."""

    patience: Annotated[Count | None, Named(metavar="INT|None")] = 5
    """Early stopping: number of epochs without improvement in validation, after KL annealing; None for none."""

    minutes: Annotated[Positive | None, default("no limit", "FLOAT")] = None
    """Time limit in minutes: stop after the epoch that reaches it. Interruptions do not count."""

    num_particles: Count = 1
    """Number of Monte Carlo samples of the noise per gradient."""

    bound: Literal["elbo", "importance", "filtering"] = "elbo"
    """Objective: elbo (the paper's), importance (not a bound on a cut text), filtering (by a particle filter)."""

    threshold: Annotated[Annotated[float, Ge(0), Le(1)] | None, default("0.5", "FLOAT")] = None
    """With --bound filtering: resample if the effective sample size is below this fraction of particles; 0 is off."""

    ancestor_term: Annotated[tyro.conf.DisallowNone[bool | None], Named(help_behavior_hint="(default: True)")] = None
    """With --bound filtering: include the gradient of ancestors' weights. Without it: less variance, but a bias."""


@dataclass(frozen=True)
class Run(Options):
    """Folder, device and checkpoints."""

    folder: Annotated[Path | None, default("runs/DATA-1, -2, ...", "FOLDER")] = None
    """New or empty folder for the configuration, log, best model, figures and result."""

    seed: Annotated[int, Ge(0), Lt(2**32)] = 0
    """Random seed of the weights, the noise and the order of the data."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Device."""

    precision: Literal["float32", "float64"] = "float32"
    """Precision of weights, states and noise. float64 is meant for checks, at twice the memory and time or more."""

    backend: Literal["auto", "fused", "scan", "loop"] = "auto"
    """Implementation of the layers. Results differ by rounding only; auto takes the fastest."""

    tf32: bool = False
    """Allow TF32 in float32 matrix products on a GPU."""

    twin: bool = True
    """Also train the deterministic network, with all other settings equal."""

    resume: Annotated[Path | None, Named(metavar="FOLDER", help_behavior_hint="")] = None
    """Resume the run in this folder exactly. With more --epochs a finished run continues, as if it were one run."""

    init_from: Annotated[Path | None, Named(metavar="FOLDER", help_behavior_hint="")] = None
    """Start from the best weights of the run in this folder, and of its guide if it has one. Sizes and vocabulary must
    be the same. A learned γ is taken over only if this run learns γ too."""

    checkpoint_steps: Annotated[Count | None, default("none")] = None
    """Number of gradient steps between checkpoints within an epoch. There is always one at the end of an epoch."""

    checkpoint_seconds: Annotated[NonNegative | None, Named(metavar="FLOAT|None")] = 300.0
    """Seconds between checkpoints within an epoch; None for no such checkpoints."""

    ensemble_samples: Annotated[int, Ge(0)] = 50
    """Number of noisy runs that the final ensemble test averages over; 0 skips it."""
