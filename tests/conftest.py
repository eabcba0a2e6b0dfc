"""What every test starts from: one seed, and an empty parameter store."""

from collections.abc import Iterator

import hypothesis
import pyro
import pytest
import torch

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
