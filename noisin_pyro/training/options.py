"""What a run is told, by group: a field's docstring is its help on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro.conf

Named = tyro.conf.arg


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

    eval_batch_size: Annotated[
        int | None, Named(metavar="INT", help_behavior_hint="(default: 10 for a text, --batch-size for music)")
    ] = None
    """Sequences scored side by side. Of a text these are the columns that its held-out parts are read in: perplexity
    depends on them slightly, so they do not follow --batch-size."""

    window: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: 35)")] = None
    """Steps of truncated backpropagation through time. Texts only: music is read whole."""


@dataclass(frozen=True)
class Model:
    """The underlying recurrent network."""

    cell: Literal["tanh", "sigmoid", "relu", "identity", "lstm", "gru"] = "tanh"
    """Recurrent cell."""

    num_layers: int = 1
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

    matmul_precision: Literal["float32", "bfloat16"] = "float32"
    """Type that factors and results of products with weights are rounded to; sums are float32 in both. The layers'
    too where engine scan computes them."""


@dataclass(frozen=True)
class Noise:
    """What is injected into the hidden states."""

    noise: Annotated[str, Named(metavar="FAMILY[:FORM]")] = "gaussian"
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

    guide_covariance: Annotated[Literal["diagonal", "full"] | None, Named(help_behavior_hint="(default: diagonal)")] = (
        None
    )
    """Of a layer's units at one step, in the guide."""

    guide_hidden_size: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: the layers')")] = None
    """Units of the guide's encoder and networks."""

    kl_annealing: Annotated[int | None, Named(metavar="EPOCHS", help_behavior_hint="(default: none)")] = None
    """Epochs in which the weight of the guide's KL rises in equal steps to 1."""


@dataclass(frozen=True)
class Optimization:
    """How the parameters are found."""

    optimizer: Annotated[str, Named(metavar="NAME")] = "Adam"
    """Any optimizer of torch.optim, by name."""

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
        float | None, Named(metavar="FLOAT", help_behavior_hint="(default: the optimizer's: 0, but AdamW's 0.01)")
    ] = None
    """Decay of the weights, as the optimizer defines it: L2, AdamW's beside the gradient. Spreads are left out."""

    clip: Annotated[float | None, Named(metavar="FLOAT|None")] = 5.0
    """Largest norm of the whole gradient, of the loss in nats per step; None does not clip."""

    epochs: int = 14
    """Most passes over the training data."""

    patience: Annotated[int | None, Named(metavar="INT|None")] = 5
    """Stop after so many epochs in a row without a better validation, whose model and spreads are kept; None: never."""

    minutes: Annotated[float | None, Named(metavar="FLOAT", help_behavior_hint="(default: no limit)")] = None
    """Stop after the epoch in which training and validation reach this many minutes by the clock, breaks left out."""

    num_particles: int = 1
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

    backend: Literal["auto", "fused", "scan", "loop"] = "auto"
    """Way to compute the layers; the same numbers but for rounding. auto takes the fastest, and the log says which."""

    tf32: bool = False
    """Let a GPU round the factors of float32 products to TF32 (10 binary digits); torch itself does so in cuDNN."""

    twin: bool = True
    """Train the deterministic network too, everything but the noise equal, for comparison."""

    resume: Annotated[Path | None, Named(metavar="FOLDER", help_behavior_hint="")] = None
    """Resume the run in this folder exactly where it was; its options are the folder's. With more --epochs a finished
    run is continued too, to the same numbers as if it had been asked for them at once."""

    checkpoint_steps: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: none)")] = None
    """Gradient steps between checkpoints within an epoch, beside that at each epoch's end."""

    checkpoint_seconds: Annotated[float | None, Named(metavar="FLOAT|None")] = 300.0
    """Seconds between checkpoints within an epoch; None keeps none by the clock."""

    ensemble_samples: int = 50
    """Noisy runs that the final test averages over; 0 leaves that test out."""
