"""Noisy recurrent models as Pyro programs.

Start at ``sequence_model``, then read ``noisy_rnn`` and ``noisy_path``. ``noisin_pyro.recurrence`` computes the means.
"""

from noisin_pyro.models.dropout import REGULARIZERS, Dropout, Mask
from noisin_pyro.models.emissions import (
    EMISSIONS,
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    Mixture,
    NegativeBinomial,
    Poisson,
    StudentT,
)
from noisin_pyro.models.export import PlainNetwork
from noisin_pyro.models.missing import scored_steps
from noisin_pyro.models.noisy_path import NoisyPath, SiteInfo, real_steps, site_info
from noisin_pyro.models.noisy_rnn import NoisyRNN
from noisin_pyro.models.read_out import Emission, ModuleEmission
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
    "Bernoulli",
    "Categorical",
    "Cell",
    "Dropout",
    "Emission",
    "Gaussian",
    "HeteroscedasticGaussian",
    "LanguageModel",
    "Mask",
    "Mixture",
    "ModuleEmission",
    "NegativeBinomial",
    "NoisyPath",
    "NoisyRNN",
    "NormalWeights",
    "Output",
    "PlainNetwork",
    "Poisson",
    "Scaled",
    "SequenceModel",
    "SiteInfo",
    "Spread",
    "SpreadPrior",
    "States",
    "StepwiseRNN",
    "StudentT",
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
