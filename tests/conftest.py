"""What every test starts from: one seed, and an empty parameter store."""

from collections.abc import Iterator

import hypothesis
import pyro
import pytest
import torch

from noisin_pyro.data import download

# The tests' tensors are tiny: threads gain nothing, and wait for each other where something else runs beside them.
torch.set_num_threads(1)

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


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
