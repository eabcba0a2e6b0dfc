"""Checkpoints: ``best.pt``, the best model in validation, and ``last.pt``, from which training resumes."""

from __future__ import annotations

import io
import itertools
import logging
import random
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from noisin_pyro._files import atomic_write
from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import SequenceModel
from noisin_pyro.training.distributed import SINGLE, World
from noisin_pyro.training.optim import load_state
from noisin_pyro.training.rundir.layout import BEFORE, BEST, CONFIG, LAST
from noisin_pyro.training.rundir.train_state import TrainState
from noisin_pyro.training.train_step import require_finite_weights
from noisin_pyro.training.type_checks import same_structure

logger = logging.getLogger("noisin_pyro")


def save(path: Path, content: dict[str, Any], backup: Path | None = None) -> None:
    """Write tensors and plain values to ``path`` atomically; the previous file goes to ``backup`` if that is given."""
    buffer = io.BytesIO()  # writing into the file, torch would raise its own error for a full disk
    torch.save(content, buffer)
    with atomic_write(path, backup) as file:
        file.write(buffer.getbuffer())


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what :func:`save` wrote, onto ``device``. No code in the file is run.

    Raises:
        ValueError: a file that is truncated or damaged, or holds more than tensors and plain values.
    """
    buffer = io.BytesIO(path.read_bytes())  # so that errors of the disk are not taken for damage
    try:
        if (damaged := zipfile.ZipFile(buffer).testzip()) is not None:  # torch does not verify checksums
            raise zipfile.BadZipFile(damaged)
        buffer.seek(0)
        content = torch.load(buffer, map_location=device, weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can fail anywhere in the archive or its pickle
        raise ValueError(
            f"checkpoint {str(path)!r} cannot be read: it is damaged, or holds more than weights "
            f"({type(error).__name__})"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"checkpoint {str(path)!r} cannot be read: it holds a {type(content).__name__}")
    return content


def rng_state() -> dict[str, Any]:
    """States of the generators of torch, its CUDA device (if in use), NumPy and Python, as tensors and plain values."""
    numpy_state: Any = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [],
        "numpy": numpy_state | {"state": numpy_state["state"] | {"key": numpy_state["state"]["key"].tolist()}},
        "python": random.getstate(),
    }


def set_rng_state(content: dict[str, Any]) -> None:
    """Restore the states that :func:`rng_state` returned."""
    torch.set_rng_state(content["torch"])
    if content["cuda"]:
        torch.cuda.set_rng_state(content["cuda"][0])
    numpy_state = content["numpy"]
    key = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state(numpy_state | {"state": numpy_state["state"] | {"key": key}})
    random.setstate(content["python"])


def trained_modules(model: nn.Module, guide: nn.Module | None) -> dict[str, nn.Module]:
    """The modules that are trained, by their names in checkpoints."""
    return {"model": model} if guide is None else {"model": model, "guide": guide}


def read_best(folder: Path, model: nn.Module, guide: nn.Module | None = None) -> dict[str, Any]:
    """Read ``best.pt``: the states of these modules, and ``"epoch"``.

    Raises:
        ValueError: it is missing, damaged, of another model, or its weights are not finite.
    """
    path = folder / BEST
    try:
        best = load(path)
    except FileNotFoundError as error:
        raise ValueError(
            f"{str(folder)!r} has no {BEST}: no epoch was completed, or the file was removed; train a new run"
        ) from error
    states = {name: dict(module.state_dict()) for name, module in trained_modules(model, guide).items()}
    if not all(same_structure(best.get(name), state) for name, state in states.items()):
        raise ValueError(
            f"{path} does not fit the model that {CONFIG} and the data make: one of them has changed since it "
            "was trained (pydocs changes with the version of Python); restore it, or train a new run"
        )
    values = itertools.chain(*(best[name].values() for name in states))
    if type(best.get("epoch")) is not int or not all(value.isfinite().all() for value in values):
        raise ValueError(f"{path} is damaged: it lacks its epoch, or its weights are not finite; train a new run")
    return best


def load_best(folder: Path, model: nn.Module, guide: nn.Module | None = None) -> dict[str, Any]:
    """Load the states in ``best.pt`` into the modules; returns, and raises, as :func:`read_best`."""
    best = read_best(folder, model, guide)
    for name, module in trained_modules(model, guide).items():
        module.load_state_dict(best[name])
    return best


def load_initial_state(module: nn.Module, other: nn.Module, source: Path, part: str = "network") -> None:
    """Load the weights of another run's module, its ``part``. Spreads are taken from it where both are learned.

    Raises:
        ValueError: modules with other weights, or of other sizes.
    """
    own, given = module.state_dict(), other.state_dict()
    spreads = {name for name in own.keys() ^ given.keys() if "spread_" in name}  # learned by one of the two alone
    sizes, others = ({key: value.shape for key, value in state.items() if key not in spreads} for state in (own, given))
    if sizes != others:
        raise ValueError(f"init from {str(source)!r}: its {part} has other sizes or parts; give that run's options")
    module.load_state_dict({name: given[name] for name in sizes}, strict=False)


class Checkpointer:
    """Writes ``last.pt`` and ``best.pt`` in a run's folder. The checkpoint before the last stays in ``before.pt``.

    Args:
        folder: the run's.
        model, guide, optimizer, state: saved with the generators; ``guide`` is ``None`` where the prior is the guide.
        order: generator of the data's order; ``None`` for a text.
        world: the processes that train together. Rank zero writes.
        every_steps: gradient steps between checkpoints within an epoch; ``None`` for no such checkpoints.
        every_seconds: seconds between checkpoints within an epoch; ``None`` for no such checkpoints.
    """

    def __init__(
        self,
        folder: Path,
        model: SequenceModel,
        guide: Guide | None,
        optimizer: torch.optim.Optimizer,
        state: TrainState,
        order: torch.Generator | None = None,
        world: World = SINGLE,
        every_steps: int | None = None,
        every_seconds: float | None = None,
    ) -> None:
        self.folder, self.model, self.guide, self.optimizer, self.state = folder, model, guide, optimizer, state
        self.modules, self.order, self.world = trained_modules(model, guide), order, world
        self._every_steps, self._every_seconds, self._saved_at = every_steps, every_seconds, time.monotonic()
        self._saved_batches = 0
        self._last_is_good = True

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint within an epoch."""
        batches, age = self.state.under_way.batches, time.monotonic() - self._saved_at
        every = self._every_steps
        by_steps = every is not None and batches // every > self._saved_batches // every
        return by_steps or (self._every_seconds is not None and age >= self._every_seconds)

    def save_best(self, epoch: int, valid_nats: float) -> None:
        """Write ``best.pt``."""
        states = {name: module.state_dict() for name, module in self.modules.items()}
        content = {**states, "epoch": epoch, "valid_nats": valid_nats}
        self.world.on_rank_zero(partial(save, self.folder / BEST, content))

    def save(self) -> None:
        """Write ``last.pt``. If that fails, for example on a full disk, the previous checkpoint stays readable.

        Raises:
            FloatingPointError: weights that are not finite. Nothing is written.
        """
        where = f"epoch {self.state.epoch}, step {self.state.under_way.batches}"
        require_finite_weights(self.model, where, self.guide)
        rank_zero, *others = self.world.all_gather(rng_state())
        content = {
            **{name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "progress": self.state.state_dict(self.world),
            "generators": rank_zero,
            "generators_of_others": others,
        }
        backup = self.folder / BEFORE if self._last_is_good else None
        self.world.on_rank_zero(partial(save, self.folder / LAST, content, backup))
        self._last_is_good = True
        self._saved_at, self._saved_batches = time.monotonic(), self.state.under_way.batches

    def restore(self) -> None:
        """Load ``last.pt`` or, with a warning, ``before.pt``; without either, training begins at the start.

        Raises:
            ValueError: no checkpoint that can be read, or one of another model.
        """
        content = self._read_latest()
        if content is None:
            return
        try:
            for name, module in self.modules.items():
                module.load_state_dict(content[name])
            load_state(self.optimizer, content["optimizer"])
            device = next(self.model.parameters()).device
            self.state.load_state_dict(content["progress"], device, self.world)
            self._saved_batches = self.state.under_way.batches
            if self.order is not None and self.state.order is not None:
                self.order.set_state(self.state.order)
            rng_states = [content["generators"], *content["generators_of_others"]]
            if self.world.rank < len(rng_states):  # additional processes draw new noise
                set_rng_state(rng_states[self.world.rank])
        except (RuntimeError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise ValueError(
                f"the checkpoint in {str(self.folder)!r} is not of the model in its config.json, or of another version "
                f"({type(error).__name__}: {str(error).partition(chr(10))[0]}); train a new run in another folder"
            ) from error

    def _read_latest(self) -> dict[str, Any] | None:
        last, before = self.folder / LAST, self.folder / BEFORE
        paths = [path for path in (last, before) if path.exists()]
        for path in paths:
            try:
                content = load(path)
            except ValueError as error:
                logger.warning("warning: %s", error)
                continue
            if path == before:
                logger.warning("warning: resuming from %s, the checkpoint before the last", before.name)
                self._last_is_good = False  # the next save overwrites the damaged file, not this one
            return content
        if paths:
            raise ValueError(
                f"no checkpoint in {str(self.folder)!r} can be read; remove {' and '.join(p.name for p in paths)} "
                "to restart this run"
            )
        return None
