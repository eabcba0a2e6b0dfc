"""What functions of inference say about data and programs that they cannot use."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn
from torch.utils.data import DataLoader

import noisin_pyro as nz
from noisin_pyro.data import Sequences

from .posterior.posteriors import look, make, some_data


def compared(model: Any, data: Any, **options: Any) -> Any:
    return nz.compare({"model": model}, data, **options)


EACH: list[Callable[..., Any]] = [nz.evaluate, compared, look]


@pytest.mark.parametrize("function", EACH)
@pytest.mark.parametrize("make_data", [lambda x: x, lambda x: (x, x), lambda x: DataLoader(Sequences(x, x))])
def test_data_that_are_none(function: Any, make_data: Any) -> None:
    data = make_data(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=f"data must be Sequences, a Series or a Stream, got {type(data).__name__}"):
        function(make(), data)


@pytest.mark.parametrize("function", EACH)
def test_a_folder_is_no_model(function: Any) -> None:
    with pytest.raises(ValueError, match=r"model must be a program.*, got str; that of a run is load\(folder\)\.model"):
        function("runs/1", some_data())


def test_models_of_a_comparison_have_names() -> None:
    with pytest.raises(
        ValueError, match=r'models must contain at least one model, as in \{"noisy": model\}, got a list'
    ):
        nz.compare([make()], some_data())  # type: ignore[arg-type]


class Program(PyroModule):
    """It takes neither lengths nor a state."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any, targets: Any = None) -> Any:
        return self.model(inputs, targets)


@pytest.mark.parametrize("function", EACH)
def test_a_program_with_other_arguments(function: Any) -> None:
    model = make()
    for program in (
        Program(model),
        nz.innovations(Program(model)),
        lambda inputs, targets=None: model(inputs, targets),
    ):
        with pytest.raises(ValueError, match=r"model has no argument lengths.*\(inputs, targets=None, state=None, len"):
            function(program, some_data())
    with pytest.raises(ValueError, match="guide has no argument lengths"):
        nz.evaluate(model, some_data(), "importance", guide=lambda inputs, targets: None)


def test_targets_that_are_given_twice() -> None:
    model, data = make(), some_data()
    given = pyro.condition(model, {"x": 1 - data.targets})
    for method in ("mean", "ensemble", "importance", "particle-filter"):
        with pytest.raises(ValueError, match="'x' is conditioned on, but the data give the targets"):
            nz.evaluate(given, data, method)
    with pytest.raises(ValueError, match="'x' is conditioned on, but the data give the targets"):
        look(nz.innovations(given), data)


def test_a_seed_makes_a_score_and_leaves_the_generators_alone() -> None:
    model, data = make(), some_data()
    before = torch.get_rng_state()
    for method in ("ensemble", "importance", "particle-filter"):
        one, two = (nz.evaluate(model, data, method, 8, seed=5).nats_per_step for _ in range(2))
        assert one == two != nz.evaluate(model, data, method, 8, seed=6).nats_per_step
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match=r"seed must be an integer, got 1\.5"):
        nz.evaluate(model, data, "ensemble", seed=1.5)  # type: ignore[arg-type]


def test_programs_that_are_wrapped() -> None:
    """What counts are the arguments of the wrapper, or of a module's own ``__call__``."""
    model = make()

    def narrow(inputs: Any, targets: Any = None) -> Any:
        return model(inputs, targets)

    @functools.wraps(narrow)
    def wide(*args: Any, state: Any = None, lengths: Any = None, **options: Any) -> Any:
        return narrow(*args, **options)

    class Called(nn.Module):
        def forward(self, inputs: Any) -> Any:
            return inputs

        def __call__(self, inputs: Any, targets: Any = None, **options: Any) -> Any:
            return model(inputs, targets, **options)

    for program in (wide, Called(), pyro.poutine.scale(wide, 1.0)):  # type: ignore[attr-defined]
        assert nz.evaluate(program, some_data(), "ensemble", 4).kind == "predictor"


def test_numbers_of_torch_and_flags_of_numpy() -> None:
    model, data = make(), some_data()
    half = torch.tensor(0.5)
    bound = nz.PriorAsGuide_ELBO(kl_weight=half)  # type: ignore[arg-type]
    assert bound.loss(model, None, data.inputs, data.targets) > 0
    nz.evaluate(model, data, "particle-filter", 8, threshold=half, seed=-1)  # type: ignore[arg-type]
    for flag in (1, np.bool_(True), torch.tensor(True)):
        assert nz.NoisyRNN(2, 3, feedback=flag).feedback is True  # type: ignore[arg-type]


def test_draws_of_the_prior_are_not_passed_off_as_those_of_a_guide() -> None:
    model = make(spread=nz.Spread(prior=dist.Gamma(2.0, 4.0)))
    guide = nz.guides.get("smoothing", model)
    with pytest.warns(UserWarning) as caught:  # another one may be of k̂
        look(model, some_data(), guide, 200, num_particles=0)
    words = "the guide does not learn rnn.spread_1.gamma, whose draws are those of the prior"
    assert any(words in str(warning.message) for warning in caught)
