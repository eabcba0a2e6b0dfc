"""Noisy recurrent models as Pyro programs.

Start at ``sequence_model``, then read ``noisy_rnn`` and ``noisy_path``. ``noisin_pyro.recurrence`` computes the means.
"""

from noisin_pyro.models.dropout import REGULARIZERS, Dropout, Mask
from noisin_pyro.models.emissions import EMISSIONS, Emission, Gaussian
from noisin_pyro.models.export import PlainNetwork
from noisin_pyro.models.missing import scored_steps
from noisin_pyro.models.noisy_path import NoisyPath, SiteInfo, real_steps, site_info
from noisin_pyro.models.noisy_rnn import NoisyRNN
from noisin_pyro.models.scaled import Scaled
from noisin_pyro.models.sequence_model import (
    LanguageModel,
    Output,
    SequenceModel,
    initialize_as_published,
)
from noisin_pyro.models.spread import Spread, SpreadPrior
from noisin_pyro.models.stepwise import States, StepwiseRNN
from noisin_pyro.models.views import innovations, noise_off, underlying, unroll
from noisin_pyro.models.weight_priors import NormalWeights, place_priors
from noisin_pyro.recurrence.cells import CELLS, Cell

__all__ = [
    "CELLS",
    "EMISSIONS",
    "REGULARIZERS",
    "Cell",
    "Dropout",
    "Emission",
    "Gaussian",
    "LanguageModel",
    "Mask",
    "NoisyPath",
    "NoisyRNN",
    "NormalWeights",
    "Output",
    "PlainNetwork",
    "Scaled",
    "SequenceModel",
    "SiteInfo",
    "Spread",
    "SpreadPrior",
    "States",
    "StepwiseRNN",
    "initialize_as_published",
    "innovations",
    "noise_off",
    "place_priors",
    "real_steps",
    "scored_steps",
    "site_info",
    "underlying",
    "unroll",
]
