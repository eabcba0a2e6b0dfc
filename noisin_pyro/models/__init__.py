"""Noisy recurrent models as Pyro programs. Start at ``sequence_model``, then ``noisy_rnn``, ``path``, ``scan``."""

from noisin_pyro.models.cells import CELLS, Cell
from noisin_pyro.models.emissions import EMISSIONS, Emission
from noisin_pyro.models.initialization import initialize_as_published
from noisin_pyro.models.noisy_rnn import NoisyRNN
from noisin_pyro.models.path import NoisyPath, real_steps
from noisin_pyro.models.regularizers import REGULARIZERS, Dropout, Mask
from noisin_pyro.models.sequence_model import LanguageModel, Output, SequenceModel
from noisin_pyro.models.spread import Spread
from noisin_pyro.models.steps import States, Steps
from noisin_pyro.models.views import innovations, noise_off, underlying, unroll
from noisin_pyro.models.weight_priors import NormalWeights, place_priors

__all__ = [
    "CELLS",
    "EMISSIONS",
    "REGULARIZERS",
    "Cell",
    "Dropout",
    "Emission",
    "LanguageModel",
    "Mask",
    "NoisyPath",
    "NoisyRNN",
    "NormalWeights",
    "Output",
    "SequenceModel",
    "Spread",
    "States",
    "Steps",
    "initialize_as_published",
    "innovations",
    "noise_off",
    "place_priors",
    "real_steps",
    "underlying",
    "unroll",
]
