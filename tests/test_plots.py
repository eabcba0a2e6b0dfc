"""Pictures: what they show, and that they are pictures."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from noisin_pyro import plots


def _log(start: float) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "gamma_0": 0.2, "gamma_1": 0.3 + epoch / 10}
        | {f"{part}_{measure}": start / epoch for part in ("train", "valid") for measure in ("perplexity", "nats")}
        for epoch in (1, 2, 3)
    ]


LOGS = {"noisy": _log(200.0), "deterministic": _log(180.0)}


@pytest.mark.parametrize(("measure", "label"), [("perplexity", "perplexity"), ("nats", "nats per step")])
def test_learning_curves(tmp_path: Path, measure: str, label: str) -> None:
    figure = plots.learning_curves(LOGS, measure=measure)
    left, right = figure.axes
    assert "Validation" in left.get_title() and "Training" in right.get_title()
    for axis in (left, right):
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", label)
        assert [line.get_label() for line in axis.lines] == ["noisy", "deterministic"]
        assert np.asarray(axis.lines[1].get_ydata()).tolist() == [180.0, 90.0, 60.0]
    assert left.lines[0].get_color() != left.lines[1].get_color()
    assert left.lines[0].get_marker() != left.lines[1].get_marker()
    assert left.get_legend() is not None
    figure.savefig(tmp_path / "curves.png")
    height, width, _ = imread(tmp_path / "curves.png").shape
    assert width > height > 300


def test_a_long_run_shows_how_its_end_differs() -> None:
    rows = [{"epoch": epoch, "valid_nats": 8 + 30 / epoch, "train_nats": 7 + 30 / epoch} for epoch in range(1, 401)]
    left, _ = plots.learning_curves({"noisy": rows}, measure="nats").axes
    assert left.get_ylim()[1] < 10 < rows[0]["valid_nats"]
    assert left.lines[0].get_markevery() == 20


@pytest.mark.parametrize("last", [70.0, 20.0])
def test_perplexities_have_ticks_enough_to_be_read(last: float) -> None:
    rows = [{"epoch": epoch, "valid_perplexity": p, "train_perplexity": p} for epoch, p in ((1, 115.0), (2, last))]
    for axis in plots.learning_curves({"noisy": rows}).axes:
        low, high = axis.get_ylim()
        assert 4 <= sum(low <= tick <= high for tick in axis.get_yticks()) <= 8
        assert axis.get_yscale() == "log"


def test_spreads_of_each_layer() -> None:
    (axis,) = plots.spreads(LOGS["noisy"]).axes
    assert [line.get_label() for line in axis.lines] == ["inputs", "layer 1"]
    assert np.asarray(axis.lines[1].get_ydata()).tolist() == pytest.approx([0.4, 0.5, 0.6])
    assert axis.get_ylim()[0] == 0


def test_they_draw_on_axes_that_are_given() -> None:
    figure = Figure()
    left, right, below = figure.subplots(1, 3)
    assert plots.learning_curves(LOGS, axes=(left, right)) is figure
    assert plots.spreads(LOGS["noisy"], ax=below) is figure
    assert all(axis.lines for axis in (left, right, below))


@pytest.mark.parametrize("rows", [[], [{"epoch": 1.0}]])
def test_a_log_without_spreads_is_refused(rows: list[dict[str, float]]) -> None:
    with pytest.raises(ValueError, match="gamma_"):
        plots.spreads(rows)


def test_families_have_a_panel_each_on_one_axis() -> None:
    curve = plots.Panel("smooth", "additive", ["a law", "rate = 2"], [-1.0, 0.0, 1.0], [0.0, 1.0, float("inf")], False)
    atoms = plots.Panel("atoms", "native", ["two points"], [-1.0, 1.0], [0.5, 0.5], True)
    figure = plots.families([curve, atoms, curve], columns=2)
    shown = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title("left") for axis in shown] == ["smooth", "atoms", "smooth"]
    assert [axis.get_title("right") for axis in shown] == ["additive", "native", "additive"]
    assert {axis.get_xlim() for axis in shown} == {(-4.0, 4.0)}
    assert shown[0].get_ylim()[1] > 1 and "rate = 2" in shown[0].texts[0].get_text()
    assert len(shown[1].collections) == 1 and shown[0].lines[0].get_color() != shown[1].lines[0].get_color()
    with pytest.raises(ValueError, match="at least one law"):
        plots.families([])


def test_learned_spreads_beside_the_likeliest(tmp_path: Path) -> None:
    figure = plots.learned_spreads(LOGS, likeliest=0.9, floor=0.1)
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == [*LOGS, "likeliest γ (0.90)", "floor (0.10)"]
    assert np.asarray(axis.lines[0].get_ydata()).tolist() == [0.4, 0.5, 0.6]
    assert [np.unique(line.get_ydata()) for line in axis.lines[2:]] == [0.9, 0.1]
    assert axis.get_ylim()[0] == 0
    figure.savefig(tmp_path / "spreads.png")
    assert len(plots.learned_spreads(LOGS, Figure().subplots()).axes[0].lines) == 2


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
    places = axis.get_yticks()
    assert places[3] - places[2] > places[2] - places[1]  # a gap between models
    figure.savefig(tmp_path / "table.png")
    height, width, _ = imread(tmp_path / "table.png").shape
    assert width > height > 300


def test_a_comparison_draws_on_axes_that_are_given_and_refuses_none() -> None:
    figure = Figure()
    assert plots.comparison(COMPARED, ax=figure.add_subplot()) is figure and figure.axes[0].lines
    with pytest.raises(ValueError, match="at least one number"):
        plots.comparison([])


def test_a_comparison_beside_the_truth() -> None:
    (axis,) = plots.comparison(COMPARED, truth=8.15).axes
    assert np.unique(axis.lines[-1].get_xdata()).tolist() == [8.15] and axis.lines[-1].get_linestyle() == "--"
    legend = axis.get_legend()
    assert legend is not None and legend.get_texts()[-1].get_text() == "truth (8.150)"
    with pytest.raises(ValueError, match="truth must be finite"):
        plots.comparison(COMPARED, truth=float("nan"))
