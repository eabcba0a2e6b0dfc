"""Whether a series has the format that a model was made for."""

from __future__ import annotations

import numpy as np

from noisin_pyro.data import Series
from noisin_pyro.data.scaling import InputLayout, Scaling
from noisin_pyro.models import Scaled, SequenceModel

_REMEDY = "make them in the format of the training data: from_frame(..., format=run.series), or format=series.format"


def require_format_of(program: object, data: object) -> None:
    """Check that a series has inputs of the model's size, possible values, and the columns and scaling of the series
    that the model was made for.

    Raises:
        ValueError: where it has not. What a model was made for is known if ``train`` or ``load`` has made it.
    """
    if not isinstance(program, SequenceModel) or not isinstance(data, Series):
        return
    own, size = data.layout, program.rnn.input_size
    if own.input_size != size and type(program).embed is SequenceModel.embed:
        raise ValueError(
            f"data have {len(own.values)} values and {len(own.covariates)} covariates, so inputs of {own.input_size} "
            f"entries, but the model reads {size}; {_REMEDY}"
        )
    emission = program.emission
    if isinstance(emission, Scaled) and (like := next(emission.parameters(), None)) is not None:
        emission.check_values(data.targets.to(like.device))  # it validates none by itself
    if program.series is not None:
        _require_layout(own, program.series.layout)


def _require_layout(own: InputLayout, expected: InputLayout) -> None:
    for kind in ("values", "covariates"):
        names, known = getattr(own, kind), getattr(expected, kind)
        if names != known and set(names) == set(known):
            raise ValueError(f"data have the {kind} {list(names)}, but the model's are {list(known)}; {_REMEDY}")
        part = f"{kind.removesuffix('s')}_scaling"
        given, fitted = getattr(own, part), getattr(expected, part)
        if not _are_close(given, fitted):
            raise ValueError(
                f"data have {kind} scaled by {_shown(given)}, but the model's by {_shown(fitted)}; {_REMEDY}"
            )


def _are_close(one: Scaling, other: Scaling) -> bool:
    """Up to rounding, which depends on the order of rows and on their type."""
    scale = np.array(other.scale)
    same_size = len(one.scale) == len(scale)
    return same_size and bool(
        (np.abs(np.array(one.loc) - other.loc) <= 1e-4 * scale).all()
        and np.allclose(one.scale, scale, rtol=1e-4, atol=0)
    )


def _shown(scaling: Scaling) -> str:
    loc, scale = (", ".join(f"{number:.8g}" for number in part) for part in (scaling.loc, scaling.scale))
    return f"(x - [{loc}]) / [{scale}]"
