"""What every test starts from: one seed, an empty parameter store, no network, and the default signal handlers."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import hypothesis
import pyro
import pytest
import torch

from noisin_pyro.data import download

from . import hooks

# The tests' tensors are tiny: threads gain nothing, and wait for each other where something else runs beside them.
torch.set_num_threads(1)

# No verdict depends on how fast the machine is.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def default_signal_handlers() -> Iterator[None]:
    """Handle SIGINT and SIGTERM as in the foreground, here and in the processes that tests start.

    A shell without job control starts background commands with SIGINT ignored; child processes inherit that.
    """
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture(autouse=True)
def fresh_start() -> Iterator[None]:
    """Seed torch, numpy and random; leave no parameter of one test in Pyro's store for the next."""
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


@pytest.fixture(autouse=True, scope="session")
def no_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty cache, and mirrors that nobody answers for: no test reaches out by mistake."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOISIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setattr(download, "MIRRORS", ("http://127.0.0.1:9/one/{path}", "http://127.0.0.1:9/two/{path}"))
        yield


@pytest.fixture
def after_step() -> Iterator[hooks.AfterStep]:
    """``after_step(n, do)`` calls ``do()`` right after the ``n``-th gradient step from now on, counted from 1.

    The step is not yet logged or checkpointed then.
    """
    with ExitStack() as planned:

        def plan(step: int, do: Callable[[], object]) -> None:
            planned.enter_context(hooks.after_each_step(lambda number: do() if number == step else None))

        yield plan
