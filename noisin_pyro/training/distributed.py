"""The processes that train one model together, as ``torchrun`` starts them; a process alone is the case of one.

Each has the same model and its own rows of every batch (:mod:`~noisin_pyro.training.shares`). Torch's
DistributedDataParallel averages their gradients, so that all take the same step. What is a run's and not a step's, its
folder, its clock and its messages, is the first one's.
"""

from __future__ import annotations

import itertools
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
_GROUPS = itertools.count()  # of this process, hence the same in all
TIMEOUT: timedelta | None = None
"""How long a process waits for the others before it gives up; by default PyTorch's own, half an hour."""


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is. All call each method, in the same order.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def once(self, do: Callable[[], T]) -> T:
        """What ``do`` returns to the writer, which alone calls it, for all; where it raises, all raise the same."""
        if self.size == 1:
            return do()
        found: list[Any] = [None, None]
        if self.writes:
            try:
                found[0] = do()
            except Exception as error:
                found[1] = error
        dist.broadcast_object_list(found)
        if found[1] is not None:
            raise found[1]
        return found[0]

    def gathered(self, value: T) -> list[T]:
        """Everybody's value, in the order of ranks."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def sum(self, value: float) -> float:
        """The sum of everybody's."""
        return self._reduced(value, op="SUM")[0]

    def most(self, *values: float) -> list[float]:
        """The largest of everybody's, of each of the values."""
        return self._reduced(*values, op="MAX")

    def _reduced(self, *values: float, op: str) -> list[float]:
        if self.size == 1:
            return list(values)
        reduced = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(reduced, getattr(dist.ReduceOp, op))
        return reduced.tolist()

    def split(self, batch_size: int) -> int:
        """This one's part of a batch of that size.

        Raises:
            ValueError: a size that cannot be shared equally.
        """
        part, over = divmod(batch_size, self.size)
        if over or not part:
            sizes = f"{part * self.size} or {(part + 1) * self.size}" if part else f"{self.size}"
            raise ValueError(
                f"batch size must be a multiple of the {self.size} processes, which share each batch equally, got "
                f"{batch_size}; take {sizes}, or start another number of processes"
            )
        return part

    def rows(self, count: int) -> slice:
        """This one's of so many rows; the parts of two processes differ by at most one."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


def here() -> Ranks:
    """This process among those it has joined."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return Ranks()


@contextmanager
def joined() -> Iterator[None]:
    """Within, the processes that ``torchrun`` has started, if there are several, are connected: by gloo, and by nccl
    between GPUs. The first of each machine alone has its messages on stderr.

    Raises:
        ConnectionError: another of them has ended, or has not answered within ``TIMEOUT``.
    """
    if not _are_several() or dist.is_initialized():
        yield
        return
    store, rank, size = next(dist.rendezvous("env://"))  # pyright: ignore[reportPrivateImportUsage]
    # of its own name, or it would connect to what is left of the one before
    named = dist.PrefixStore(f"group {next(_GROUPS)}", store)  # pyright: ignore[reportPrivateImportUsage]
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=named, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        with _silence() if _local("RANK", 0) > 0 else nullcontext():
            yield
    except RuntimeError as error:  # gloo, and torch where it uses it, have no class of their own for this
        if "gloo" not in str(error) and not isinstance(error, dist.DistError):
            raise
        what = (
            "has not answered in time (it may hang, or the network between them may be down)"
            if "Timed out" in str(error)
            else "has ended (its message, or torchrun's report, says how)"
        )
        message = ConnectionError(f"another process of this run {what}, and the others cannot go on without it")
        message.__notes__ = getattr(error, "__notes__", [])
        raise message from error
    finally:
        dist.destroy_process_group()


def take_device(name: str) -> None:
    """See to it that ``"cuda"`` means, of several GPUs, the one of this process's number.

    Raises:
        ValueError: there is none, or not one for each process of this machine.
    """
    if name != "cuda":
        return
    if not torch.cuda.is_available():
        raise ValueError("device 'cuda' is not available on this machine; take 'cpu'")
    processes, gpus = _local("WORLD_SIZE", 1), torch.cuda.device_count()
    if gpus < processes:
        raise ValueError(f"device 'cuda': {processes} processes need as many GPUs, and here are {gpus}; start fewer")
    if here().size > 1:
        torch.cuda.set_device(_local("RANK", 0))


def reseed(seed: int) -> None:
    """Give each process noise of its own; that of the first goes on as that of a single one would."""
    if (rank := here().rank) > 0:
        pyro.set_rng_seed(int(np.random.SeedSequence((seed, rank)).generate_state(1)[0]))


class _Averaging(DistributedDataParallel):
    """A bound whose gradients are averaged over the processes; all else is to be had of it as before."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def averaging(bound: Bound) -> Bound:
    """The same bound, a call of which is the start of one step of all processes.

    The graph is static, so that parameters that the loss does not depend on are found once, and keep no gradient.
    """
    return bound if here().size == 1 else cast(Bound, _Averaging(bound, static_graph=True))


def first_to_tell(text: str) -> bool:
    """Whether no other process has told this yet: what all have to say is said once, what one has to say, by that one.

    It outlives the connection, since it asks ``torchrun``.
    """
    if not _are_several():
        return True
    address, wait = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), timedelta(seconds=5)
    try:
        store = dist.TCPStore(*address, is_master=False, timeout=wait, wait_for_workers=False)  # type: ignore[attr-defined]
        return store.add(f"told {os.environ['TORCHELASTIC_RESTART_COUNT']}: {text}", 1) == 1
    except dist.DistError:  # torchrun has ended
        return True


def _are_several() -> bool:
    return dist.is_available() and dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


def _local(what: str, otherwise: int) -> int:
    """What ``torchrun`` says of this machine alone."""
    return int(os.environ.get(f"LOCAL_{what}", otherwise))


@contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        yield
