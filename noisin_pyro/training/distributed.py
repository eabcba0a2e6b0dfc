"""Processes that train one model together, as ``torchrun`` starts them; a single process is a world of size 1.

Each has the same model and its own rows of every batch (:mod:`~noisin_pyro.training.sharding`). PyTorch's
DistributedDataParallel averages their gradients, so that all take the same step. Rank zero alone writes, keeps the time
and reports.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import numpy as np
import pyro
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from noisin_pyro.inference import Bound

T = TypeVar("T")
_GROUPS = itertools.count()  # counts the groups of this process, hence the same in all
TIMEOUT: timedelta | None = None
"""How long a process waits for the others; by default as long as PyTorch does, half an hour."""

logger = logging.getLogger("noisin_pyro")


@dataclass(frozen=True)
class World:
    """The processes that train together. All of them call each method, in the same order.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    def on_rank_zero(self, call: Callable[[], T]) -> T:
        """Call a function on rank zero alone, and return its result on all ranks; what it raises, all raise."""
        if self.size == 1:
            return call()
        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = call()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def rank_zero_first(self, call: Callable[[], T]) -> T:
        """Call a function on rank zero and then, when files that it writes are complete, on each other rank for itself.

        What it raises on rank zero, all raise.
        """
        results: list[T] = []
        self.on_rank_zero(lambda: results.append(call()))
        return results[0] if results else call()

    def all_gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def sum(self, value: float) -> float:
        """Sum over the ranks."""
        return self._all_reduce(value, op="SUM")[0]

    def all_max(self, *values: float) -> list[float]:
        """Maximum over the ranks, of each of the values."""
        return self._all_reduce(*values, op="MAX")

    def _all_reduce(self, *values: float, op: str) -> list[float]:
        if self.size == 1:
            return list(values)
        reduced = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(reduced, getattr(dist.ReduceOp, op))
        return reduced.tolist()

    def split(self, batch_size: int) -> int:
        """Number of this process's rows of a batch.

        Raises:
            ValueError: a batch size that is not a multiple of the number of processes.
        """
        part, rest = divmod(batch_size, self.size)
        if rest or not part:
            sizes = f"{part * self.size} or {(part + 1) * self.size}" if part else f"{self.size}"
            raise ValueError(
                f"batch size must be a multiple of the {self.size} processes, which share each batch equally, got "
                f"{batch_size}; take {sizes}, or start another number of processes"
            )
        return part

    def rows(self, count: int) -> slice:
        """This process's block of ``count`` rows; the blocks of two processes differ by at most one row."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


SINGLE = World()
"""A single process."""


@contextmanager
def world() -> Iterator[World]:
    """Connect the processes that ``torchrun`` has started, by gloo, and by NCCL between GPUs.

    Without ``torchrun`` it is :data:`SINGLE`. If a process group exists already, that is used, and not destroyed.

    Raises:
        ConnectionError: another process has ended, or has not answered within ``TIMEOUT``.
    """
    if dist.is_available() and dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size())
        return
    if not is_distributed():
        yield SINGLE
        return
    store, rank, size = next(dist.rendezvous("env://"))  # pyright: ignore[reportPrivateImportUsage]
    # A prefix of its own for each group: without it, the keys that an earlier one has left are taken for this one's.
    store = dist.PrefixStore(f"group {next(_GROUPS)}", store)  # pyright: ignore[reportPrivateImportUsage]
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        with _silence() if rank > 0 else nullcontext():
            yield World(rank, size)
    except RuntimeError as error:  # gloo, and torch where it uses it, have no class of their own for this
        if "gloo" not in str(error) and not isinstance(error, dist.DistError):
            raise
        problem = (
            "has not answered in time (it may hang, or the network between them may be down)"
            if "Timed out" in str(error)
            else "has ended (its message, or torchrun's report, says how)"
        )
        lost = ConnectionError(f"another process of this run {problem}, and the others cannot go on without it")
        lost.__notes__ = getattr(error, "__notes__", [])
        raise lost from error
    finally:
        dist.destroy_process_group()


def set_device(name: str, world: World = SINGLE) -> None:
    """Make ``"cuda"`` mean, of several GPUs, the one with this process's number on its machine.

    Raises:
        ValueError: there is no GPU, or not one for each process of this machine.
    """
    if name != "cuda":
        return
    if not torch.cuda.is_available():
        raise ValueError("device 'cuda' is not available on this machine; take 'cpu'")
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if world.size > 1 else 1
    gpus = torch.cuda.device_count()
    if gpus < processes:
        raise ValueError(f"device 'cuda': {processes} processes need as many GPUs, and here are {gpus}; start fewer")
    if world.size > 1:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))


def reseed(seed: int, world: World) -> None:
    """Give each rank noise of its own; rank zero's is the same as a single process's."""
    if world.rank > 0:
        pyro.set_rng_seed(int(np.random.SeedSequence((seed, world.rank)).generate_state(1)[0]))


class _DataParallelBound(DistributedDataParallel):
    """A bound whose gradients are averaged over the processes, and which has the bound's attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def data_parallel(bound: Bound, world: World) -> Bound:
    """The same bound, with gradients averaged over the processes; all of them call it at each step.

    The graph is static, so that parameters on which the loss does not depend are found once, and get no gradient.
    """
    return bound if world.size == 1 else cast(Bound, _DataParallelBound(bound, static_graph=True))


def log_once(text: str) -> bool:
    """Whether this process is the first to call this with ``text``, and so the one that prints it.

    The processes agree through ``torchrun``'s store, which is still there after the process group is destroyed.
    """
    if not is_distributed():
        return True
    address, wait = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), timedelta(minutes=1)
    try:
        store = dist.TCPStore(*address, is_master=False, timeout=wait, wait_for_workers=False)  # type: ignore[attr-defined]
        return store.add(f"printed {os.environ['TORCHELASTIC_RESTART_COUNT']}: {text}", 1) == 1
    except dist.DistError:  # torchrun has ended
        return True


def is_distributed() -> bool:
    """Whether ``torchrun`` has started this process among others; schedulers set ``WORLD_SIZE`` too, and leave it."""
    return dist.is_available() and dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def _silence() -> Iterator[None]:
    """Log nothing, and print nothing to stderr."""
    logger.disabled = True
    try:
        with open(os.devnull, "w") as null, redirect_stderr(null):
            yield
    finally:
        logger.disabled = False
