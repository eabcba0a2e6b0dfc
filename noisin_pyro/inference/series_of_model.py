"""Whether a series has the format that a model was made for."""

from __future__ import annotations

from noisin_pyro.data import Series
from noisin_pyro.data.scaling import Scaling
from noisin_pyro.models import Scaled, SequenceModel

_REMEDY = "make them in the format of the training data: from_frame(..., format=run.series), or format=series.format"


def require_format_of(program: object, data: object) -> None:
    """Check that a series has inputs of the model's size, possible values, and the scaling of the series that the model
    was made for.

    Raises:
        ValueError: where it has not. What a model was made for is known if ``train`` or ``load`` has made it.
    """
    if not isinstance(program, SequenceModel) or not isinstance(data, Series):
        return
    own, size = data.layout, program.rnn.input_size
    if own.input_size != size:
        raise ValueError(
            f"data have {len(own.values)} values and {len(own.covariates)} covariates, so inputs of {own.input_size} "
            f"entries, but the model reads {size}; {_REMEDY}"
        )
    if isinstance(program.emission, Scaled):  # which validates no values by itself
        program.emission.check_values(data.targets.to(next(program.emission.parameters()).device))
    if program.series is None:
        return
    expected = program.series.layout
    for kind in ("value_scaling", "covariate_scaling"):
        given, fitted = getattr(own, kind), getattr(expected, kind)
        if given != fitted:
            what = kind.partition("_")[0]
            raise ValueError(
                f"data have {what}s scaled by {_shown(given)}, but the model's by {_shown(fitted)}; {_REMEDY}"
            )


def _shown(scaling: Scaling) -> str:
    loc, scale = (", ".join(f"{number:.6g}" for number in part) for part in (scaling.loc, scaling.scale))
    return f"(x - [{loc}]) / [{scale}]"
