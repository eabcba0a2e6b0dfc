"""Whether a series has the format that a model was made for."""

from __future__ import annotations

import torch
from torch import Tensor

from noisin_pyro.data import Series
from noisin_pyro.models import Scaled, SequenceModel

_REMEDY = "make them in the format of the training data: from_frame(..., format=run.series), or format=series.format"


def require_format_of(program: object, data: object) -> None:
    """Check that a series has inputs of the model's size, and values in the scale of its emission.

    Raises:
        ValueError: where it has not. The scaling of inputs is not known to a model, so it is not checked by itself.
    """
    if not isinstance(program, SequenceModel) or not isinstance(data, Series):
        return
    layout, emission = data.layout, program.emission
    if layout.input_size != program.rnn.input_size:
        raise ValueError(
            f"data have {len(layout.values)} values and {len(layout.covariates)} covariates, so inputs of "
            f"{layout.input_size} entries, but the model reads {program.rnn.input_size}; {_REMEDY}"
        )
    if not isinstance(emission, Scaled) or emission.loc is None or emission.scale is None:
        return
    fitted = layout.value_scaling
    if not (_are_close(emission.loc, fitted.loc) and _are_close(emission.scale, fitted.scale)):
        raise ValueError(
            f"data are scaled by (x - {_listed(fitted.loc)}) / {_listed(fitted.scale)}, but the model's emission by "
            f"(x - {_listed(emission.loc.tolist())}) / {_listed(emission.scale.tolist())}; {_REMEDY}"
        )


def _are_close(own: Tensor, given: tuple[float, ...]) -> bool:
    own = own.double().cpu()
    return own.shape == (len(given),) and torch.allclose(own, own.new_tensor(given), rtol=1e-5, atol=0.0)


def _listed(numbers: tuple[float, ...] | list[float]) -> str:
    return f"[{', '.join(f'{number:.6g}' for number in numbers)}]"
