"""Evaluations side by side: what is drawn, and that a figure can be saved."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from noisin_pyro import plots


def _row(model: str, method: str, kind: str, nats: float, **more: object) -> dict[str, object]:
    errors = {"monte_carlo_error": 0.1, "standard_error": 0.3}
    return {"model": model, "method": method, "kind": kind, "nats_per_step": nats, "guide": None, "pareto_k": None,
            **errors, **more}  # fmt: skip


COMPARED = [
    _row("noisy", "mean", "predictor", 8.0, monte_carlo_error=0.0),
    _row("noisy", "importance", "bound", 8.5, guide="prior", pareto_k=0.9),
    _row("noisy", "importance", "bound", 8.2, guide="AutoNormal", pareto_k=0.3, monte_carlo_error=float("nan")),
    _row("clean", "mean", "exact", 8.1),
]


def test_a_comparison_has_a_line_for_each_number(tmp_path: Path) -> None:
    figure = plots.comparison(COMPARED)
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "noisy: mean", "noisy: importance, prior", "noisy: importance, AutoNormal", "clean: mean",
    ]  # fmt: skip
    markers = axis.lines
    assert [float(np.asarray(line.get_xdata())[0]) for line in markers] == [8.0, 8.5, 8.2, 8.1]
    assert [line.get_markerfacecolor() == "white" for line in markers] == [False, True, False, False]
    legend = axis.get_legend()
    assert legend is not None and [text.get_text() for text in legend.get_texts()] == [
        "bound", "exact", "predictor", "k̂ > 0.7",
    ]  # fmt: skip
    assert markers[1].get_color() == markers[2].get_color() != markers[0].get_color()
    spans = [np.asarray(path.vertices)[:, 0].tolist() for bar in axis.collections for path in bar.get_paths()]
    assert spans[2] == pytest.approx([8.2, 8.8]) and spans[3] == pytest.approx([8.4, 8.6])
    positions = axis.get_yticks()
    assert positions[3] - positions[2] > positions[2] - positions[1]  # a gap between models
    figure.savefig(tmp_path / "table.png")
    height, width, _ = imread(tmp_path / "table.png").shape
    assert width > height > 300


def test_given_axes_are_used_and_no_rows_are_refused() -> None:
    figure = Figure()
    assert plots.comparison(COMPARED, ax=figure.add_subplot()) is figure and figure.axes[0].lines
    with pytest.raises(ValueError, match="at least one record"):
        plots.comparison([])


def test_a_comparison_beside_the_truth() -> None:
    (axis,) = plots.comparison(COMPARED, truth=8.15).axes
    assert np.unique(axis.lines[-1].get_xdata()).tolist() == [8.15] and axis.lines[-1].get_linestyle() == "--"
    legend = axis.get_legend()
    assert legend is not None and legend.get_texts()[-1].get_text() == "truth (8.150)"
    with pytest.raises(ValueError, match="truth must be finite"):
        plots.comparison(COMPARED, truth=float("nan"))


def test_methods_by_seed_are_sorted_by_their_means_beside_the_baselines(tmp_path: Path) -> None:
    values = {"None": [3.0, 3.2], "gamma": [2.0, 2.4], "gumbel": [4.0]}
    (axis,) = plots.seed_comparison(values, "perplexity", ["None"]).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["gamma", "None", "gumbel"]
    dots, bars, line = axis.lines[0], axis.lines[1], axis.lines[-1]
    assert np.asarray(dots.get_xdata()).tolist() == [2.0, 2.4] and float(np.asarray(bars.get_xdata())[0]) == 2.2
    assert np.unique(line.get_xdata()).tolist() == pytest.approx([3.1]) and line.get_label() == "None"
    assert axis.get_xlabel().startswith("perplexity")
    assert plots.seed_comparison({"a": [1.0]}, "nats").axes[0].get_legend() is None
    with pytest.raises(ValueError, match="at least one method"):
        plots.seed_comparison({"a": []}, "nats")
