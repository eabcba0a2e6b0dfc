"""Inference in noisy recurrent models: objectives, guides, evaluation, posteriors and generation."""

from noisin_pyro.inference import guides
from noisin_pyro.inference.elbo import Bound, PriorAsGuide_ELBO
from noisin_pyro.inference.evaluation.compare import Comparison, compare
from noisin_pyro.inference.evaluation.evaluate import METHODS, evaluate
from noisin_pyro.inference.evaluation.result import Evaluation
from noisin_pyro.inference.forecasting import Forecast, forecast
from noisin_pyro.inference.generation import generate
from noisin_pyro.inference.penalty import noise_penalty
from noisin_pyro.inference.posterior.sample import posterior
from noisin_pyro.inference.scores import ForecastScores, crps, forecast_scores

__all__ = [
    "METHODS",
    "Bound",
    "Comparison",
    "Evaluation",
    "Forecast",
    "ForecastScores",
    "PriorAsGuide_ELBO",
    "compare",
    "crps",
    "evaluate",
    "forecast",
    "forecast_scores",
    "generate",
    "guides",
    "noise_penalty",
    "posterior",
]
