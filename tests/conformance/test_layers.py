"""NoisyRNN without noise beside nn.RNN, nn.LSTM and nn.GRU: what both accept is equal, the rest is refused by name."""

import contextlib
import functools
import warnings
from collections.abc import Iterator
from typing import Any

import pyro
import pytest
import torch

import noisin_pyro as nz
from noisin_pyro.models import NoisyRNN

from .layer_contract import ALL, CALLS, CONSTRUCTION, FEATURES, LAYERS, TORCH_LAYERS, UNITS, Row, flat

BACKENDS = ("auto", "fused", "scan", "loop")
CASES = [
    pytest.param(row, cell, backend, id=f"{row.what}-{cell}-{backend}", marks=[pytest.mark.slow] * row.slow)
    for row in CALLS
    for cell in ALL
    for backend in (BACKENDS[:1] if row.once or row.refused else BACKENDS)
]


@pytest.fixture(autouse=True)
def parameters_in_modules() -> Iterator[None]:
    """A first call with Pyro's global store registers parameters, which transforms and tracers refuse."""
    with pyro.settings.context(module_local_params=True):
        yield


@contextlib.contextmanager
def torch_may_warn() -> Iterator[None]:
    """torch's own deprecations in its tracers are not the subject here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def layers(cell: str, backend: str) -> tuple[Any, NoisyRNN]:
    """Torch's layer, and ours with its weights."""
    theirs = TORCH_LAYERS[cell](FEATURES, UNITS, LAYERS, batch_first=True)
    ours = NoisyRNN(FEATURES, UNITS, LAYERS, cell, spread=0.0, backend=backend)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize(("row", "cell", "backend"), CASES)
def test_call(row: Row, cell: str, backend: str) -> None:
    theirs, ours = layers(cell, backend)
    with torch_may_warn():
        if cell in row.torch:
            expected = row.run(theirs)
        else:
            with pytest.raises((ValueError, RuntimeError, TypeError, AttributeError)):
                row.run(theirs)
            expected = None if row.reference is None else row.reference(theirs)
        if row.refused or backend not in row.backends:
            with pytest.raises(ValueError, match=row.refused or "only fused, loop; use one of these, or 'auto'"):
                row.run(ours)
            return
        result = row.run(ours)
    for actual, part in zip(flat(result), flat(expected), strict=True):
        torch.testing.assert_close(actual, part, rtol=row.tolerance, atol=row.tolerance, equal_nan=True)


@pytest.mark.parametrize("cell", ALL)
@pytest.mark.parametrize("row", CONSTRUCTION, ids=lambda row: row.what)
def test_construction(row: Row, cell: str) -> None:
    theirs, ours = TORCH_LAYERS[cell], functools.partial(NoisyRNN, cell=cell)
    with torch_may_warn():
        if row.torch:
            row.run(theirs)
        else:
            with pytest.raises((ValueError, TypeError)):
                row.run(theirs)
    if row.refused:
        with pytest.raises((ValueError, TypeError), match=row.refused):
            row.run(ours)
    else:
        shapes = [parameter.shape for parameter in theirs(FEATURES, UNITS, LAYERS).parameters()]
        assert [parameter.shape for parameter in row.run(ours).parameters()] == shapes


@pytest.mark.parametrize(
    "row", [row for row in CALLS if "torch." in row.what and not row.slow], ids=lambda row: row.what
)
@pytest.mark.parametrize("cell", ALL)
def test_noise_off_is_the_same_layer(row: Row, cell: str) -> None:
    """``noise_off`` of a noisy layer does what the layer with ``spread=0`` does."""
    _, clean = layers(cell, "auto")
    noisy = NoisyRNN(FEATURES, UNITS, LAYERS, cell, spread=0.5)
    noisy.load_state_dict(clean.state_dict())
    view = nz.noise_off(noisy)
    with torch_may_warn():
        expected, result = flat(row.run(clean)), flat(row.run(view))
    for actual, part in zip(result, expected, strict=True):
        torch.testing.assert_close(actual, part, rtol=row.tolerance, atol=row.tolerance, equal_nan=True)


@pytest.mark.parametrize("cell", ALL)
def test_transforms_and_traces_with_the_global_store_after_a_first_call(cell: str) -> None:
    with pyro.settings.context(module_local_params=False), torch_may_warn():
        for row in CALLS:
            if row.what in ("`torch.func.vmap`", "`torch.func.jvp`", "`torch.jit.trace`"):
                theirs, ours = layers(cell, "auto")
                ours(torch.zeros(1, 1, FEATURES))
                expected = (row.reference or row.run)(theirs)
                for actual, part in zip(flat(row.run(ours)), flat(expected), strict=True):
                    torch.testing.assert_close(actual, part, rtol=row.tolerance, atol=row.tolerance)
