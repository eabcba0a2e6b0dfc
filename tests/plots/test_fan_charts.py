"""Fan charts show the history, the intervals and the medians of a forecast."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgba

from noisin_pyro import Forecast
from noisin_pyro.data import Sequences, from_frame
from noisin_pyro.plots import forecasts


def test_dates() -> None:
    days = pd.date_range("2026-01-01", periods=6)
    frame = pd.DataFrame({"day": days, "y": [1.0, np.nan, 2.0, 3.0, 2.0, 1.0], "shop": "a"})
    data = from_frame(frame, values="y", time="day", id="shop")
    later = pd.date_range("2026-01-07", periods=3)
    result = Forecast(torch.randn(50, 1, 3, 1), ["a"], ["y"], [later], "shop", "day")
    figure = forecasts(result, data, actual=np.zeros((1, 3, 1)))
    (axis,) = figure.axes
    history, median, actual = axis.lines
    np.testing.assert_array_equal(history.get_xdata(), days)
    np.testing.assert_array_equal(history.get_ydata(), frame["y"])
    np.testing.assert_array_equal(median.get_xdata(), later)
    np.testing.assert_allclose(median.get_ydata(), result.quantile(0.5)[0, :, 0])
    np.testing.assert_array_equal(actual.get_ydata(), np.zeros(3))
    assert (axis.get_xlabel(), axis.get_ylabel(), len(axis.collections)) == ("day", "y", 3)
    widest = axis.collections[0].get_paths()[0].get_extents()
    assert widest.y0 == pytest.approx(float(result.interval(0.95)[0].min()))
    for band, patch in zip(axis.collections, figure.legends[0].get_patches(), strict=True):
        np.testing.assert_array_equal(band.get_facecolor()[0], patch.get_facecolor())
        assert to_rgba(patch.get_facecolor())[3] == 1  # opaque, so that what is drawn is what the legend shows
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["observed", "95% interval", "80% interval", "50% interval", "median", "actual values"]


def test_steps_and_panels() -> None:
    x = torch.arange(30.0).reshape(2, 5, 3)
    data = Sequences(x, x, torch.tensor([5, 3]), mask=torch.ones(2, 5).bool().index_fill(1, torch.tensor([1]), False))
    result = Forecast(torch.randn(9, 2, 2, 3), range(2), ["u", "v", "w"])
    figure = forecasts(result, data, max_panels=5)
    assert len(figure.axes) == 5
    last = figure.axes[4]
    np.testing.assert_array_equal(last.lines[0].get_ydata(), [16.0, np.nan, 22.0])
    np.testing.assert_array_equal(last.lines[1].get_xdata(), [4, 5])
    assert (last.get_title(), last.get_ylabel()) == ("sequence 1", "v")
    with pytest.raises(ValueError, match="forecast must be of values, got classes"):
        forecasts(Forecast(torch.zeros(9, 2, 2), range(2), ["class"]), data)
