"""Posteriors and diagnostics: what is drawn, and that a figure can be saved."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from noisin_pyro import plots

T, PADDED = 6, 2
DRAWS = np.linspace(-1, 1, 101)[:, None] + np.arange(T)  # quantiles by construction
DRAWS[:, T - PADDED :] = np.nan
NOISE_OFF, TRUTH = np.arange(T) / 10, np.arange(T) / 5


def _values(axis: Axes, label: str) -> np.ndarray:
    (line,) = [line for line in axis.lines if line.get_label() == label]
    return np.asarray(line.get_ydata(), dtype=float)


def _can_be_saved(figure: Figure, path: Path) -> bool:
    figure.savefig(path)
    height, width, _ = imread(path).shape
    return width > height > 300


def test_a_trajectory_has_quantiles_draws_noise_off_and_truth(tmp_path: Path) -> None:
    figure = plots.trajectories(DRAWS, NOISE_OFF, TRUTH, probability=0.8, num_draws=2, title="unit 0")
    (axis,) = figure.axes
    assert (axis.get_title(), axis.get_xlabel()) == ("unit 0", "time (steps)")
    real, padding = slice(T - PADDED), slice(T - PADDED, T)
    for label, expected in (("median", np.arange(T)), ("noise off", NOISE_OFF), ("truth", TRUTH)):
        assert _values(axis, label)[real] == pytest.approx(expected[real])
        assert np.isnan(_values(axis, label)[padding]).all()
    (band,) = axis.collections
    corners = np.concatenate([np.asarray(path.vertices) for path in band.get_paths()])
    first = corners[corners[:, 0] == 1]
    assert (first[:, 1].min(), first[:, 1].max()) == pytest.approx((-0.8, 0.8))
    assert (corners[:, 0].min(), corners[:, 0].max()) == (1, T - PADDED)  # time counts from 1
    assert [np.asarray(line.get_ydata())[0] for line in axis.lines[:2]] == [-1, 1]
    legend = axis.get_legend()
    assert legend is not None and [text.get_text() for text in legend.get_texts()] == [
        "80% interval", "single draws", "median", "noise off", "truth",
    ]  # fmt: skip
    assert _can_be_saved(figure, tmp_path / "trajectory.png")


def test_given_axes_are_used() -> None:
    figure = Figure()
    axis = figure.add_subplot()
    assert plots.trajectories(DRAWS, num_draws=0, legend=False, ax=axis) is figure
    assert [line.get_label() for line in axis.lines] == ["median"] and axis.get_legend() is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"draws": DRAWS[0]}, "draws must have the axes"),
        ({"draws": DRAWS[None]}, "draws must have the axes"),
        ({"draws": np.full((3, T), np.nan)}, "must be finite at some step"),
        ({"draws": np.where(np.arange(101)[:, None] == 7, np.nan, DRAWS)}, "NaN in all draws or in none"),
        ({"noise_off": NOISE_OFF[1:]}, "noise_off must have a value for each of the 6 steps"),
        ({"truth": TRUTH[:, None]}, "truth must have a value"),
        ({"probability": 90}, "probability must be between 0 and 1"),
        ({"num_draws": 102}, "num_draws must be from 0 to the number of draws, 101"),
    ],
)
def test_a_trajectory_refuses(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plots.trajectories(**{"draws": DRAWS, **wrong})


K, EFFECTIVE = [0.9, np.inf, 0.2, -np.inf, np.nan], [100.0, 10.0, 500.0, 1000.0, 1.0]


def test_diagnostics_are_sorted_and_show_every_sequence(tmp_path: Path) -> None:
    figure = plots.diagnostics({"prior": (K, EFFECTIVE), "guide": ([0.1, 0.3], [900.0, 800.0])}, num_proposals=1000)
    left, right = figure.axes
    order = np.asarray(left.lines[0].get_xdata())
    shown = _values(left, "prior (1 NaN)")
    assert order.tolist() == [1, 2, 3, 4] and shown == pytest.approx([np.nan, 0.2, 0.9, np.nan], nan_ok=True)
    edges = [line for line in left.lines if line.get_transform() == left.get_xaxis_transform()]
    assert [(*np.asarray(line.get_xdata()), *np.asarray(line.get_ydata())) for line in edges] == [(1, 0), (4, 1)]
    assert all(line.get_markerfacecolor() == "white" for line in edges)
    assert _values(left, "guide").tolist() == [0.1, 0.3]
    legend = left.get_legend()
    assert legend is not None and [text.get_text() for text in legend.get_texts()] == [
        "prior (1 NaN)", "guide", "infinite",
    ]  # fmt: skip
    assert 0.7 in [np.unique(line.get_ydata()).tolist()[0] for line in left.lines if line.get_linestyle() == "--"]
    assert [np.asarray(line.get_ydata()).tolist() for line in right.lines] == [[1, 0.5, 0.1, 0.01, 0.001], [0.9, 0.8]]
    assert right.get_yscale() == "log" and right.get_ylim()[0] < 0.001 < 1 < right.get_ylim()[1]
    assert _can_be_saved(figure, tmp_path / "diagnostics.png")


def test_diagnostics_of_all_sequences_together_on_given_axes() -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plots.diagnostics({"shared": (0.4, 30.0)}, 100, axes=(left, right)) is figure
    assert _values(left, "shared").tolist() == [0.4]
    assert [np.asarray(line.get_ydata()).tolist() for line in right.lines] == [[0.3]]


@pytest.mark.parametrize(
    ("draws", "message"),
    [
        ({}, "at least one pair"),
        ({"prior": (K, EFFECTIVE[1:])}, r"draws\['prior'\] must hold a k̂ and an effective sample size for each"),
        ({"prior": ([K], [EFFECTIVE])}, "for each"),
        ({"prior": ([0.1], [1001.0])}, "is 1001"),
    ],
)
def test_diagnostics_refuse(draws: dict[str, tuple[list[float], list[float]]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plots.diagnostics(draws, num_proposals=1000)
