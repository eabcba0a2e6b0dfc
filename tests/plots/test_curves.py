"""Curves over epochs: what is drawn, and that a figure can be saved."""

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


def test_a_long_run_is_scaled_to_its_late_epochs() -> None:
    rows = [{"epoch": epoch, "valid_nats": 8 + 30 / epoch, "train_nats": 7 + 30 / epoch} for epoch in range(1, 401)]
    left, _ = plots.learning_curves({"noisy": rows}, measure="nats").axes
    assert left.get_ylim()[1] < 10 < rows[0]["valid_nats"]
    assert left.lines[0].get_markevery() == 20


@pytest.mark.parametrize("last", [70.0, 20.0])
def test_perplexities_have_enough_ticks(last: float) -> None:
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


def test_given_axes_are_used() -> None:
    figure = Figure()
    left, right, below = figure.subplots(1, 3)
    assert plots.learning_curves(LOGS, axes=(left, right)) is figure
    assert plots.spreads(LOGS["noisy"], ax=below) is figure
    assert all(axis.lines for axis in (left, right, below))


@pytest.mark.parametrize("rows", [[], [{"epoch": 1.0}]])
def test_a_log_without_spreads_is_refused(rows: list[dict[str, float]]) -> None:
    with pytest.raises(ValueError, match="gamma_"):
        plots.spreads(rows)


def test_learned_spreads_beside_the_maximum_likelihood(tmp_path: Path) -> None:
    figure = plots.learned_spreads(LOGS, maximum_likelihood=0.9, floor=0.1)
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == [*LOGS, "maximum likelihood (0.90)", "floor (0.10)"]
    assert np.asarray(axis.lines[0].get_ydata()).tolist() == [0.4, 0.5, 0.6]
    assert [np.unique(line.get_ydata()) for line in axis.lines[2:]] == [0.9, 0.1]
    assert axis.get_ylim()[0] == 0
    figure.savefig(tmp_path / "spreads.png")
    assert len(plots.learned_spreads(LOGS, Figure().subplots()).axes[0].lines) == 2
