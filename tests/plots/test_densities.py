"""Densities of the families of noise, a panel each."""

import pytest

from noisin_pyro import plots


def test_families_have_a_panel_each_with_the_same_range() -> None:
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
