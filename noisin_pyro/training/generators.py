"""The states of all generators that a run draws from, as plain values and back."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def states() -> dict[str, Any]:
    """Those of torch, its CUDA device (if in use), numpy and Python: tensors and plain values, for a checkpoint."""
    of_numpy: Any = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [],
        "numpy": of_numpy | {"state": of_numpy["state"] | {"key": of_numpy["state"]["key"].tolist()}},
        "python": random.getstate(),
    }


def restore(content: dict[str, Any]) -> None:
    """Go on drawing where :func:`states` was called."""
    torch.set_rng_state(content["torch"])
    if content["cuda"]:
        torch.cuda.set_rng_state(content["cuda"][0])
    of_numpy = content["numpy"]
    key = np.array(of_numpy["state"]["key"], dtype=np.uint32)
    np.random.set_state(of_numpy | {"state": of_numpy["state"] | {"key": key}})
    random.setstate(content["python"])
