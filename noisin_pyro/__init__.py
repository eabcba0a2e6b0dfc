"""Recurrent models whose hidden states are random, as Pyro programs. Import as ``import noisin_pyro as nz``."""

from noisin_pyro import data, noise
from noisin_pyro.inference import Evaluation, PriorAsGuide_ELBO, evaluate, generate, guides
from noisin_pyro.models import LanguageModel, NoisyRNN, SequenceModel, Spread, innovations, noise_off, unroll
from noisin_pyro.training import Config, train

__all__ = [
    "Config",
    "Evaluation",
    "LanguageModel",
    "NoisyRNN",
    "PriorAsGuide_ELBO",
    "SequenceModel",
    "Spread",
    "data",
    "evaluate",
    "generate",
    "guides",
    "innovations",
    "noise",
    "noise_off",
    "train",
    "unroll",
]
