"""The checkpoints that a run goes on from: everything the next step depends on, in the last two states kept."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import SequenceModel
from noisin_pyro.training import checkpoint, generators
from noisin_pyro.training.distributed import here
from noisin_pyro.training.divergence import require_finite_weights
from noisin_pyro.training.folder import BEFORE, LAST, modules
from noisin_pyro.training.optimizers import load_state
from noisin_pyro.training.progress import Progress


class Keeper:
    """Keeps ``last.pt`` in a run's folder, and the one before it in ``before.pt``.

    Args:
        folder: of the run.
        model, guide, optimizer, order, progress: what a checkpoint holds, with the generators; ``guide`` is ``None``
            where the prior is the guide, ``order`` is the generator of the data's order, ``None`` for a text.
        every_steps: gradient steps after which one is :meth:`due`.
        every_seconds: seconds after which one is.
    """

    def __init__(
        self,
        folder: Path,
        model: SequenceModel,
        guide: Guide | None,
        optimizer: torch.optim.Optimizer,
        order: torch.Generator | None,
        progress: Progress,
        every_steps: int | None = None,
        every_seconds: float | None = None,
    ) -> None:
        self.folder, self.model, self.optimizer, self.order, self.progress = folder, model, optimizer, order, progress
        self.trained = modules(model, guide)
        self._every_steps, self._every_seconds, self._saved_at = every_steps, every_seconds, time.monotonic()
        self._saved_batches = 0
        self._last_is_good = True

    def due(self) -> bool:
        """Whether it is time for a checkpoint within an epoch."""
        batches, age = self.progress.under_way.batches, time.monotonic() - self._saved_at
        every = self._every_steps
        by_steps = every is not None and batches // every > self._saved_batches // every
        return by_steps or (self._every_seconds is not None and age >= self._every_seconds)

    def save(self) -> None:
        """Write ``last.pt``; what goes wrong, a full disk included, leaves the one before readable.

        Raises:
            FloatingPointError: weights that are not finite, which are not worth to go on from. Nothing is written.
        """
        where = f"epoch {self.progress.epoch}, step {self.progress.under_way.batches}"
        require_finite_weights(self.model, where, self.trained.get("guide"))
        first, *others = here().gathered(generators.states())
        content = {
            **{name: module.state_dict() for name, module in self.trained.items()},
            "optimizer": self.optimizer.state_dict(),
            "progress": self.progress.to_plain(),
            "generators": first,
            "generators_of_others": others,
        }
        before = self.folder / BEFORE if self._last_is_good else None
        here().once(partial(checkpoint.save, self.folder / LAST, content, before))
        self._last_is_good = True
        self._saved_at, self._saved_batches = time.monotonic(), self.progress.under_way.batches

    def restore(self) -> None:
        """Go on from ``last.pt``, or, with a warning, from the one before; from the start where there is neither.

        Raises:
            ValueError: no checkpoint that can be read, or one of another model.
        """
        content = self._latest()
        if content is None:
            return
        try:
            for name, module in self.trained.items():
                module.load_state_dict(content[name])
            load_state(self.optimizer, content["optimizer"])
            self.progress.load(content["progress"], next(self.model.parameters()).device)
            self._saved_batches = self.progress.under_way.batches
            if self.order is not None and self.progress.order is not None:
                self.order.set_state(self.progress.order)
            kept = [content["generators"], *content.get("generators_of_others", [])]
            if (rank := here().rank) < len(kept):  # one that was not there before has noise that is new
                generators.restore(kept[rank])
        except (RuntimeError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise ValueError(
                f"the checkpoint in {str(self.folder)!r} is not of the model in its config.json "
                f"({type(error).__name__}: {str(error).partition(chr(10))[0]}); train anew in another folder"
            ) from error

    def _latest(self) -> dict[str, Any] | None:
        last, before = self.folder / LAST, self.folder / BEFORE
        paths = [path for path in (last, before) if path.exists()]
        for path in paths:
            try:
                content = checkpoint.load(path)
            except ValueError as error:
                tqdm.write(f"warning: {error}", file=sys.stderr)
                continue
            if path == before:
                tqdm.write(f"warning: going on from {before.name}, the checkpoint before the last", file=sys.stderr)
                self._last_is_good = False  # the next one takes its place, and leaves the good one where it is
            return content
        if paths:
            raise ValueError(
                f"no checkpoint in {str(self.folder)!r} can be read; remove {' and '.join(p.name for p in paths)} "
                "to begin this run anew"
            )
        return None
