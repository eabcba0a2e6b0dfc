"""Recurrent models whose hidden states are random, as Pyro programs. Import as ``import noisin_pyro as nz``.

Public names are imported on first use (PEP 562), so that ``noisin --help`` does not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__all__ = [
    "Comparison",
    "Config",
    "Dropout",
    "Evaluation",
    "Forecast",
    "LanguageModel",
    "NoisyRNN",
    "PriorAsGuide_ELBO",
    "SequenceModel",
    "Spread",
    "compare",
    "data",
    "evaluate",
    "export",
    "forecast",
    "forecast_scores",
    "generate",
    "guides",
    "innovations",
    "load",
    "noise",
    "noise_off",
    "noise_penalty",
    "posterior",
    "train",
    "unroll",
]

if TYPE_CHECKING:
    from noisin_pyro import data, noise
    from noisin_pyro.inference import (
        Comparison,
        Evaluation,
        Forecast,
        PriorAsGuide_ELBO,
        compare,
        evaluate,
        forecast,
        forecast_scores,
        generate,
        guides,
        noise_penalty,
        posterior,
    )
    from noisin_pyro.models import (
        Dropout,
        LanguageModel,
        NoisyRNN,
        SequenceModel,
        Spread,
        innovations,
        noise_off,
        unroll,
    )
    from noisin_pyro.training import Config, export, load, train

    __version__: str
else:
    _SUBPACKAGES = (
        "data", "inference", "models", "noise", "plots", "recurrence", "reproduction", "search", "training",
    )  # fmt: skip

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            return importlib.import_module("importlib.metadata").version(__name__)
        if name in _SUBPACKAGES:
            return importlib.import_module(f"{__name__}.{name}")
        for package in ("models", "inference", "training") if name in __all__ else ():
            module = importlib.import_module(f"{__name__}.{package}")
            if name in module.__all__:
                return globals().setdefault(name, getattr(module, name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
