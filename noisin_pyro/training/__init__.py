"""Training: ``train(Config(...))`` makes a run's folder and returns its ``Result``; ``fit`` is the loop alone."""

from noisin_pyro.training.config import Config, Data, Inference, Model, Noise, Optimisation, Run
from noisin_pyro.training.loop import fit
from noisin_pyro.training.result import Result
from noisin_pyro.training.run import train

__all__ = ["Config", "Data", "Inference", "Model", "Noise", "Optimisation", "Result", "Run", "fit", "train"]
