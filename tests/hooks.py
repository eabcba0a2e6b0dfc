"""Code that runs at a chosen gradient step, whoever takes it: ``fit``, ``train``, ``search`` or the command."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch.optim.optimizer import register_optimizer_step_post_hook

AfterStep = Callable[[int, Callable[[], object]], None]
"""What the fixture ``after_step`` is."""


@contextmanager
def after_each_step(do: Callable[[int], object]) -> Iterator[None]:
    """Within, call ``do(n)`` right after the ``n``-th update of any optimizer, counted from 1."""
    numbers = itertools.count(1)

    def hook(*_: object) -> None:
        do(next(numbers))

    handle = register_optimizer_step_post_hook(hook)
    try:
        yield
    finally:
        handle.remove()
