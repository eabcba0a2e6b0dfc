"""What a GPU is to run of the papers' tables: commands that can be, in full and reduced, of the papers' model."""

from typing import Any

from noisin_pyro.cli import _parse
from noisin_pyro.commands.reproduce import Reproduce
from noisin_pyro.commands.sweep import Sweep
from noisin_pyro.recipes import icml_m


def test_every_command_can_be_run_in_full_and_reduced(gpu: Any) -> None:
    for line in gpu.TABLES.values():
        full, reduced = (_parse(f"{line} {more}".split()) for more in ("", gpu.REDUCED[line.split()[0]]))
        if isinstance(full, Reproduce) and isinstance(reduced, Reproduce):
            assert full._chosen() == reduced._chosen()
            assert (reduced.data, reduced.hidden_size, reduced.epochs, reduced.trial_epochs) == ("pydocs", 8, 1, 1)
        else:
            assert isinstance(full, Sweep) and isinstance(reduced, Sweep)
            assert full._space() == reduced._space()
            assert (reduced.held.data.name, reduced.held.optimisation.epochs, reduced.trials) == ("pydocs", 1, 3)


def test_the_search_is_of_the_published_papers_medium_model_with_its_dropout(gpu: Any) -> None:
    sweep, recipe = _parse(gpu.TABLES["sweep"].split()), icml_m("D").config
    assert isinstance(sweep, Sweep)
    held = sweep.held
    assert (held.data, held.model, held.optimisation) == (recipe.data, recipe.model, recipe.optimisation)
