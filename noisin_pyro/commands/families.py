"""``noisin families``: every kind of noise, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from noisin_pyro import noise
from noisin_pyro.training.result import aligned


@dataclass(frozen=True)
class Families:
    """List the families of noise, with their forms and options."""

    def run(self) -> None:
        """Print the table."""
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
            "\nγ is --spread, h the state without noise, ε the law brought to mean 0 and variance 1."
            "\nAdditive: z = h + γε. Multiplicative: z = h(1 + γε). A law that names γ has mean 1 and multiplies h;"
            "\na native one has mean h."
        )


def _options(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in options.items())
