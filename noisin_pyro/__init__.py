"""Recurrent models whose hidden states are random, as Pyro programs. Import as ``import noisin_pyro as nz``."""

from noisin_pyro import data, noise
from noisin_pyro.inference import (
    Comparison,
    Evaluation,
    PriorAsGuide_ELBO,
    compare,
    evaluate,
    generate,
    guides,
    noise_penalty,
    posterior,
)
from noisin_pyro.models import Dropout, LanguageModel, NoisyRNN, SequenceModel, Spread, innovations, noise_off, unroll
from noisin_pyro.training import Config, train

__all__ = [
    "Comparison",
    "Config",
    "Dropout",
    "Evaluation",
    "LanguageModel",
    "NoisyRNN",
    "PriorAsGuide_ELBO",
    "SequenceModel",
    "Spread",
    "compare",
    "data",
    "evaluate",
    "generate",
    "guides",
    "innovations",
    "noise",
    "noise_off",
    "noise_penalty",
    "posterior",
    "train",
    "unroll",
]
