"""What ``noisin`` does with what there is: a class for each command, its fields the options, and ``run``."""

from noisin_pyro.commands.compare import Compare
from noisin_pyro.commands.evaluate import Evaluate
from noisin_pyro.commands.families import Families
from noisin_pyro.commands.generate import Generate
from noisin_pyro.commands.reproduce import Reproduce
from noisin_pyro.commands.sweep import Sweep

__all__ = ["Compare", "Evaluate", "Families", "Generate", "Reproduce", "Sweep"]
