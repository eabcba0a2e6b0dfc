"""Fan charts of forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from noisin_pyro.plots.style import STYLES, label_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def forecasts(
    forecast: Any,
    data: Any,
    probabilities: Sequence[float] = (0.5, 0.8, 0.95),
    actual: Any = None,
    max_panels: int = 4,
    max_history: int | None = None,
) -> Figure:
    """Medians and central intervals of a forecast, after the end of the history: a panel for each series and value.

    Args:
        forecast: a :class:`~noisin_pyro.Forecast`.
        data: the :class:`~noisin_pyro.data.Series` or :class:`~noisin_pyro.data.Sequences` that it continues.
        probabilities: of the intervals.
        actual: the values that came, ``(N, H, D)``, where they are known; drawn as dots.
        max_panels: maximum number of panels; the first series and values have them.
        max_history: number of steps of the history to show (default: five times the forecast, at least 20).

    Raises:
        ValueError: a forecast of classes.
    """
    if forecast.samples.dim() != 4:
        raise ValueError("forecast must be of values, got classes; plot the frequencies of its samples")
    sequences, steps, values = forecast.samples.shape[1:]
    panels = [(n, d) for n in range(sequences) for d in range(values)][:max_panels]
    shown = max(5 * steps, 20) if max_history is None else max_history
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(5.0 * columns, 3.0 * rows + 0.4)
    observed = _observed(data)
    bands = [(p, forecast.interval(p).numpy()) for p in sorted(probabilities, reverse=True)]
    median = forecast.quantile(0.5).numpy()
    for place, (n, d) in enumerate(panels, start=1):
        axis = figure.add_subplot(rows, columns, place)
        history = observed[n, : int(data.lengths[n]), d]
        past, future = _times(forecast, data, n, len(history))
        axis.plot(past[-shown:], history[-shown:], color="black", linewidth=1.2, marker=".", markersize=3)
        for band, (_, ends) in enumerate(bands):
            color = _lightened(STYLES[0][0], 0.2 + 0.2 * band)
            axis.fill_between(future, *ends[:, n, :, d], color=color, linewidth=0)
        axis.plot(future, median[n, :, d], color=STYLES[0][0], linewidth=1.6)
        if actual is not None:
            axis.plot(future, np.asarray(actual)[n, :, d], "o", color=STYLES[1][0], markersize=3)
        title = "" if sequences == 1 else f"{forecast.id} {forecast.ids[n]}"
        label_axes(axis, title, forecast.time, str(forecast.names[d]))
        if forecast.times is not None and hasattr(forecast.times[n], "year"):
            _show_dates(axis)
    names = ["observed", *(f"{100 * p:g}% interval" for p, _ in bands), "median"]
    names += ["actual values"] if actual is not None else []
    figure.legend(names, frameon=False, fontsize=8, ncols=len(names), loc="outside lower center")
    return figure


def _lightened(color: str, strength: float) -> tuple[float, ...]:
    """The color on white, opaque, so that bands over each other have the colors of the legend."""
    from matplotlib.colors import to_rgb

    return tuple(1 - min(strength, 0.8) * (1 - part) for part in to_rgb(color))


def _observed(data: Any) -> np.ndarray:
    """Values ``(N, T, D)``, NaN where missing."""
    values = data.values if hasattr(data, "values") else data.targets
    values = values.detach().cpu().double()
    if not hasattr(data, "values") and data.mask is not None:
        values = values.masked_fill(~data.mask.cpu().unsqueeze(-1), np.nan)
    return values.numpy()


def _times(forecast: Any, data: Any, n: int, length: int) -> tuple[Any, Any]:
    """Times of the history and of the forecast; step numbers from 1 if they are not regular."""
    if forecast.times is None:
        steps = np.arange(1, length + forecast.samples.shape[2] + 1)
        return steps[:length], steps[length:]
    return data.times[n].to_numpy(), forecast.times[n].to_numpy()


def _show_dates(axis: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(maxticks=7)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
