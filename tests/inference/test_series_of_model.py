"""A series in another format than the model's is refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroSample

import noisin_pyro as nz
from noisin_pyro.data import Series, from_frame
from noisin_pyro.data.scaling import Scaling
from noisin_pyro.models import Gaussian, Poisson, Scaled
from noisin_pyro.training import Config, Data, Model, Optimization, Run


def frame(level: float) -> pd.DataFrame:
    day, rng = pd.date_range("2026-01-01", periods=20), np.random.default_rng(0)
    return pd.DataFrame({"day": day, "sales": level + rng.normal(size=20), "price": rng.normal(size=20)})


def model_of(series: Series) -> nz.SequenceModel:
    scaling = series.layout.value_scaling
    rnn = nz.NoisyRNN(series.layout.input_size, 3, spread=0.3)
    model = nz.SequenceModel(rnn, Scaled(Gaussian(3, 1), scaling.loc, scaling.scale))
    model.series = series.format
    return model


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
    with pytest.raises(ValueError, match=r"^data have values scaled by .* format=run.series\), or"):
        use(model, from_frame(shop, **columns))
    use(model, from_frame(shop, format=training.format))
    with pytest.raises(ValueError, match=r"^data have covariates scaled by"):
        layout = dataclasses.replace(training.layout, covariate_scaling=Scaling((1.0,), (2.0,)))
        use(model, from_frame(shop, format=dataclasses.replace(training.format, layout=layout)))
    with pytest.raises(ValueError, match=r"^data have 1 values and 0 covariates, .* the model reads 3; make"):
        use(model, from_frame(shop, time="day", values="sales"))


@pytest.mark.parametrize("loaded", [False, True])
def test_a_run_knows_its_series(loaded: bool, tmp_path: Path) -> None:
    table = tmp_path / "shops.csv"
    frame(10.0).round({"sales": 0}).to_csv(table, index=False)
    config = Config(
        data=Data(table, values=("sales",), time="day", covariates=("price",)),
        model=Model(hidden_size=3),
        optimization=Optimization(epochs=1),
        run=Run(folder=tmp_path / "run", twin=False, ensemble_samples=0),
    )
    result = nz.train(config)
    model = nz.load(tmp_path / "run").model if loaded else result.model
    assert isinstance(model.emission.emission, Poisson)
    shop = frame(500.0).round({"sales": 0})
    with pytest.raises(ValueError, match=r"^data have values scaled by \(x - \[0\]\) / \[499"):
        nz.evaluate(model, from_frame(shop, time="day", values="sales", covariates="price"))
    assert nz.evaluate(model, from_frame(shop, format=nz.load(tmp_path / "run").series)).num_steps == 20


def test_rounding_is_no_other_format_but_another_order_of_values_is() -> None:
    days = frame(10.0)
    training = from_frame(days, time="day", values=["sales", "price"], scaling="none")
    model = nz.SequenceModel(nz.NoisyRNN(4, 3, spread=0.3), Scaled(Gaussian(3, 2)))
    model.series = from_frame(days, time="day", values=["sales", "price"]).format
    for same in (days[::-1], days.astype({"sales": "float32", "price": "float32"})):
        nz.evaluate(model, from_frame(same, time="day", values=["sales", "price"]))
    model.series = training.format
    nz.evaluate(model, training)
    with pytest.raises(ValueError, match=r"^data have the values \['price', 'sales'\], but the model's are"):
        nz.evaluate(model, from_frame(days, time="day", values=["price", "sales"], scaling="none"))


class Widened(nz.SequenceModel):
    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.repeat_interleave(2, -1)


def test_models_with_an_embedding_or_sampled_weights_of_their_own() -> None:
    series = from_frame(frame(10.0).round({"sales": 0}), time="day", values="sales")
    assert nz.evaluate(Widened(nz.NoisyRNN(4, 3), Scaled(Poisson(3, 1))), series).num_steps == 20
    model = nz.SequenceModel(nz.NoisyRNN(2, 3), Scaled(Poisson(3, 1)))
    for name, shape in (("weight", (1, 3)), ("bias", (1,))):
        setattr(model.emission.linear, name, PyroSample(dist.Normal(0.0, 0.1).expand(shape).to_event(len(shape))))
    assert nz.evaluate(model, series, method="ensemble", num_samples=2).num_steps == 20


def test_values_outside_the_support_are_refused() -> None:
    model = nz.SequenceModel(nz.NoisyRNN(2, 3), Scaled(Poisson(3, 1)))
    with pytest.raises(ValueError, match=r"^targets must be in the support of the emission, integers from 0, got"):
        nz.evaluate(model, from_frame(frame(10.0), time="day", values="sales"))


def test_a_model_that_was_made_by_hand_takes_any_scaling() -> None:
    counts = from_frame(frame(10.0).round({"sales": 0}), time="day", values="sales", scaling="mean")
    model = nz.SequenceModel(nz.NoisyRNN(2, 3), Scaled(Poisson(3, 1)))
    assert nz.evaluate(model, counts).num_steps == 20
