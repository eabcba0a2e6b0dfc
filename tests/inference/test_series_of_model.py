"""A series in another format than the model's is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import noisin_pyro as nz
from noisin_pyro.data import Series, from_frame
from noisin_pyro.models import Gaussian, Poisson, Scaled


def frame(level: float) -> pd.DataFrame:
    day, rng = pd.date_range("2026-01-01", periods=20), np.random.default_rng(0)
    return pd.DataFrame({"day": day, "sales": level + rng.normal(size=20), "price": rng.normal(size=20)})


def model_of(series: Series) -> nz.SequenceModel:
    scaling = series.layout.value_scaling
    rnn = nz.NoisyRNN(series.layout.input_size, 3, spread=0.3)
    return nz.SequenceModel(rnn, Scaled(Gaussian(3, 1), scaling.loc, scaling.scale))


USES: dict[str, Callable[[Any, Series], Any]] = {
    "evaluate": nz.evaluate,
    "evaluate a view": lambda model, data: nz.evaluate(nz.noise_off(model), data),
    "forecast": lambda model, data: nz.forecast(model, data, 2, 3, covariates=torch.zeros(len(data), 2, 1)),
    "scores": lambda model, data: nz.forecast_scores(model, data, 2, num_samples=3),
    "posterior": lambda model, data: nz.posterior(model, data, num_samples=3, method="smoother"),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_another_format_is_refused(use: Callable[[Any, Series], Any]) -> None:
    columns: dict[str, Any] = {"time": "day", "values": "sales", "covariates": "price"}
    training = from_frame(frame(10.0), **columns)
    model, shop = model_of(training), frame(500.0)
    with pytest.raises(ValueError, match=r"^data are scaled by .* format=run.series\), or format=series.format$"):
        use(model, from_frame(shop, **columns))
    use(model, from_frame(shop, format=training.format))
    with pytest.raises(ValueError, match=r"^data have 1 values and 0 covariates, .* the model reads 3; make"):
        use(model, from_frame(shop, time="day", values="sales"))


def test_counts_are_not_scaled() -> None:
    counts = from_frame(frame(10.0).round({"sales": 0}), time="day", values="sales", scaling="mean")
    model = nz.SequenceModel(nz.NoisyRNN(2, 3), Scaled(Poisson(3, 1)))
    assert nz.evaluate(model, counts).num_steps == 20
