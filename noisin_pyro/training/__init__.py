"""Training: ``train(Config(...))`` makes a run's folder and returns its ``Result``; ``fit`` is the loop alone."""

import importlib
from typing import TYPE_CHECKING, Any

from noisin_pyro.training.config import Config
from noisin_pyro.training.options import Data, Inference, Model, Noise, Optimization, Run

__all__ = [
    "Config",
    "Data",
    "Inference",
    "Model",
    "Noise",
    "Optimization",
    "Result",
    "Run",
    "StopTraining",
    "TrainedRun",
    "export",
    "fit",
    "load",
    "train",
]

if TYPE_CHECKING:
    from noisin_pyro.training.loop import StopTraining, fit
    from noisin_pyro.training.result import Result
    from noisin_pyro.training.run import train
    from noisin_pyro.training.trained import TrainedRun, export, load
else:
    # Imported on first use (PEP 562): options, and with them ``noisin train --help``, do without torch.
    _MODULES = {
        "StopTraining": "loop",
        "Result": "result",
        "TrainedRun": "trained",
        "export": "trained",
        "fit": "loop",
        "load": "trained",
        "train": "run",
    }

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
        return globals().setdefault(name, getattr(module, name))

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
