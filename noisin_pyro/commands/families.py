"""``noisin families``: every family of noise, as a table and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from noisin_pyro import noise, plots
from noisin_pyro._files import atomic_write
from noisin_pyro._tables import aligned
from noisin_pyro.commands._options import NewFile, require_new
from noisin_pyro.training.options import Options

SPREAD, MEAN, UNITS = 0.5, 0.4, 8  # where a law depends on them; the mean is for laws with an upper bound of 1


@dataclass(frozen=True)
class Families(Options):
    """List the families of noise, with their forms and options."""

    png: NewFile = None
    """New PNG file for a picture of the density of each law."""

    def run(self) -> None:
        """Print the table, and draw the picture if one is requested.

        Raises:
            ValueError: a file that exists, or whose folder does not.
        """
        require_new(self.png)
        rows = [("--noise", "law", "options (in Python: nz.noise.get)")] + [
            (
                entry.name if entry.form == "additive" else f"{entry.name}:{entry.form}",
                entry.law,
                _options(entry.options),
            )
            for entry in noise.describe()
        ]
        print(aligned(rows))
        print(
            "\nγ is --spread, h the state without noise, ε the law standardized to mean 0 and variance 1."
            "\nAdditive: z = h + γε. Multiplicative: z = h(1 + γε). A law that names γ has mean 1 and multiplies h;"
            "\na native one has mean h."
        )
        if self.png is not None:
            with atomic_write(self.png) as file:
                plots.families(_panels()).savefig(file, format="png")
            print(f"\npicture of each law: {self.png}")


def _panels() -> list[plots.Panel]:
    """A panel for each law, with all forms that have it: additive and multiplicative forms often share one."""
    forms: dict[tuple[str, str], list[noise.FamilyInfo]] = {}
    for entry in noise.describe():
        forms.setdefault((entry.name, entry.law), []).append(entry)
    return [_panel(name, law, entries) for (name, law), entries in forms.items()]


def _panel(name: str, law: str, entries: list[noise.FamilyInfo]) -> plots.Panel:
    family = entries[0].make()
    mean = MEAN if family.mean_range[1] <= 1 else 1.0
    at = entries[0].options | ({"γ": SPREAD} if "γ" in law else {}) | ({"h": mean} if family.form == "native" else {})
    if "units" in law:
        at |= {"units": UNITS}
    density = noise.density(family, mean, SPREAD, UNITS)
    return plots.Panel(
        name=name,
        forms=", ".join(entry.form for entry in entries),
        description=[law, *(f"{symbol} = {value:g}" for symbol, value in at.items())],
        points=density.points.tolist(),
        values=density.values.tolist(),
        discrete=density.discrete,
    )


def _options(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in options.items())
