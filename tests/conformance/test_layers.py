"""NoisyRNN without noise beside nn.RNN, nn.LSTM and nn.GRU: what both accept is equal, the rest is refused by name."""

import contextlib
import functools
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyro
import pytest
import torch
from torch import nn

import noisin_pyro as nz
from noisin_pyro.models import NoisyRNN
from noisin_pyro.recurrence.matmul import has_bfloat16

from .layer_contract import ALL, CALLS, CONSTRUCTION, FEATURES, LAYERS, TORCH_LAYERS, UNITS, Row, flat

BACKENDS = ("auto", "fused", "scan", "loop")
# torch's LSTM does not run in bfloat16 on other processors
needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="this processor has no bfloat16")


def cases(rows: Sequence[Row], cells: Collection[str]) -> list[Any]:
    """Rows and cells as parameters of a test."""
    return [
        pytest.param(
            row, cell, id=f"{row.what}-{cell}",
            marks=[*[pytest.mark.slow] * (cell in row.slow), *[needs_bfloat16] * ("autocast" in row.what)],
        )
        for row in rows
        for cell in cells
    ]  # fmt: skip


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


def layer_like(theirs: nn.Module, cell: str, **options: Any) -> NoisyRNN:
    """A layer with the weights of torch's."""
    ours = NoisyRNN(FEATURES, UNITS, LAYERS, cell, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours


@pytest.mark.parametrize(("row", "cell"), cases(CALLS, ALL))
def test_call(row: Row, cell: str) -> None:
    theirs = TORCH_LAYERS[cell](FEATURES, UNITS, LAYERS, batch_first=True)
    with torch_may_warn():
        if cell in row.torch:
            expected = row.run(theirs)
        else:
            with pytest.raises((ValueError, RuntimeError, TypeError, AttributeError)):
                row.run(theirs)
            expected = None if row.reference is None else row.reference(theirs)
        for backend in BACKENDS[:1] if row.once else BACKENDS:
            ours = layer_like(theirs, cell, spread=0.0, backend=backend)
            if row.refused or backend not in row.backends:
                with pytest.raises(ValueError, match=row.refused or r"only fused, loop; use one of these, or 'auto'"):
                    row.run(ours)
                continue
            for actual, part in zip(flat(row.run(ours)), flat(expected), strict=True):
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


@pytest.mark.parametrize(("row", "cell"), cases([row for row in CALLS if "torch." in row.what], ["tanh", "lstm"]))
def test_noise_off_is_the_same_layer(row: Row, cell: str) -> None:
    """``noise_off`` of a noisy layer does what the layer with ``spread=0`` does."""
    theirs = TORCH_LAYERS[cell](FEATURES, UNITS, LAYERS, batch_first=True)
    clean, view = layer_like(theirs, cell, spread=0.0), nz.noise_off(layer_like(theirs, cell, spread=0.5))
    with torch_may_warn():
        expected, result = flat(row.run(clean)), flat(row.run(view))
    for actual, part in zip(result, expected, strict=True):
        torch.testing.assert_close(actual, part, rtol=row.tolerance, atol=row.tolerance, equal_nan=True)


@pytest.mark.parametrize("cell", ALL)
def test_transforms_and_traces_with_the_global_store_after_a_first_call(cell: str) -> None:
    with pyro.settings.context(module_local_params=False), torch_may_warn():
        for row in CALLS:
            if row.what in ("`torch.func.vmap`", "`torch.func.jvp`", "`torch.jit.trace`"):
                theirs = TORCH_LAYERS[cell](FEATURES, UNITS, LAYERS, batch_first=True)
                ours = layer_like(theirs, cell, spread=0.0)
                ours(torch.zeros(1, 1, FEATURES))
                expected = (row.reference or row.run)(theirs)
                for actual, part in zip(flat(row.run(ours)), flat(expected), strict=True):
                    torch.testing.assert_close(actual, part, rtol=row.tolerance, atol=row.tolerance)
