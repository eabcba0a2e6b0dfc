"""Training: ``train(Config(...))`` makes a run's folder and returns its ``Result``; ``fit`` is the loop alone.

``search`` trains many short runs and the best of them to its end.
"""

from noisin_pyro.training.config import Config
from noisin_pyro.training.found import Found
from noisin_pyro.training.loop import Paused, fit
from noisin_pyro.training.options import Data, Inference, Model, Noise, Optimisation, Run
from noisin_pyro.training.result import Result
from noisin_pyro.training.run import train
from noisin_pyro.training.search import search
from noisin_pyro.training.space import Range, Space

__all__ = [
    "Config",
    "Data",
    "Found",
    "Inference",
    "Model",
    "Noise",
    "Optimisation",
    "Paused",
    "Range",
    "Result",
    "Run",
    "Space",
    "fit",
    "search",
    "train",
]
