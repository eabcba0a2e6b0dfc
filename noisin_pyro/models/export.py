"""The network below a model, with its noise off, as a module of torch's own layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from noisin_pyro.models.emissions import Gaussian, HeteroscedasticGaussian
from noisin_pyro.models.scaled import Scaled
from noisin_pyro.models.sequence_model import LanguageModel, SequenceModel
from noisin_pyro.recurrence import cells


class PlainNetwork(nn.Module):
    """Embedding, recurrent layers and read-out, without Pyro and without noise; :func:`noisin_pyro.export` makes it.

    Its state dict loads into the same layers anywhere: ``embedding.weight`` (of a language model), ``rnn.*``
    (``nn.RNN``, ``nn.LSTM`` or ``nn.GRU``, batch first), ``linear.weight`` and ``linear.bias``.

    Args:
        embedding: of tokens; None if inputs are vectors.
        rnn: the recurrent layers.
        hidden: the read-out's hidden layer, whose units are rectified; None if it has none.
        linear: the read-out.
    """

    def __init__(
        self, embedding: nn.Embedding | None, rnn: nn.RNNBase, hidden: nn.Linear | None, linear: nn.Linear
    ) -> None:
        super().__init__()
        self.embedding, self.rnn, self.hidden, self.linear = embedding, rnn, hidden, linear

    def forward(self, inputs: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Run the network.

        Args:
            inputs: tokens ``(B, T)`` of a language model, or ``(B, T, features)``.
            state: ``(L, B, H)``, for an LSTM a pair; zeros by default.

        Returns:
            the read-out V h_t + b, ``(B, T, output_size)``: logits of the categorical and the Bernoulli emission, means
            of the Gaussian and Student-t, logarithms of means of counts, means and log standard deviations of the
            heteroscedastic Gaussian; and the state at the end.
        """
        h, state = self.rnn(inputs if self.embedding is None else self.embedding(inputs), state)
        return self.linear(h if self.hidden is None else self.hidden(h).relu()), state


class ElmanRNN(nn.RNN):
    """h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), with an f that ``nn.RNN`` lacks."""

    def __init__(self, f: Callable[[Tensor], Tensor], *sizes: int, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.f = f

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        ends = []
        for layer, (ih, hh, bias_ih, bias_hh) in enumerate(self.all_weights):
            h = input.new_zeros(input.shape[0], self.hidden_size) if hx is None else hx[layer]
            path = []
            for a in nn.functional.linear(input, ih, bias_ih).unbind(1):
                h = self.f(a + nn.functional.linear(h, hh, bias_hh))
                path.append(h)
            input = torch.stack(path, 1)
            ends.append(h)
        return input, torch.stack(ends)


def _same(x: Tensor) -> Tensor:
    return x


_LAYERS: dict[type[cells.Cell], Callable[..., nn.RNNBase]] = {
    cells.Tanh: nn.RNN,
    cells.Relu: partial(nn.RNN, nonlinearity="relu"),
    cells.LSTM: nn.LSTM,
    cells.GRU: nn.GRU,
    cells.Sigmoid: partial(ElmanRNN, torch.sigmoid),
    cells.Identity: partial(ElmanRNN, _same),
}


def _copy(layer: Any) -> nn.Linear:
    copy = nn.Linear(*reversed(layer.weight.shape), device=layer.weight.device, dtype=layer.weight.dtype)
    copy.load_state_dict(layer.state_dict())
    return copy


def _to_units_of_data(linear: nn.Linear, scaled: Scaled) -> None:
    """Change a copy of the read-out of y into that of x = loc + scale · y."""
    loc, scale, kind = scaled.loc, scaled.scale, type(scaled.emission)
    if loc is None or scale is None:
        return
    if not issubclass(kind, Gaussian | HeteroscedasticGaussian):
        raise ValueError(
            f"export: the values are scaled, and what the read-out of the emission {kind.__name__} is in the units of "
            "the data is not known; use noise_off(model)"
        )
    means = slice(len(scale))
    linear.weight[means].mul_(scale.unsqueeze(1))
    linear.bias[means].mul_(scale).add_(loc)
    if issubclass(kind, HeteroscedasticGaussian):
        linear.bias[means.stop :].add_(scale.log())


@torch.no_grad()
def plain_network(model: SequenceModel) -> PlainNetwork:
    """The network of a model with its noise off: the same outputs as ``noise_off(model)``, up to rounding.

    Weights are copied, those with a normal prior as their means; tied ones stay tied. Without dropout. Products are in
    the precision of the weights, also where the model's ``matmul_precision`` is bfloat16. What an emission has beside
    its read-out (a Gaussian's ``scale``) is not part of it. Means of series are in the units of the data.

    Raises:
        ValueError: not a :class:`SequenceModel`, or one with an embedding or a cell of its own, or with scaled values
            and an emission of its own.
    """
    if not isinstance(model, SequenceModel) or type(model).embed not in (SequenceModel.embed, LanguageModel.embed):
        raise ValueError(
            f"export needs a SequenceModel or LanguageModel, got {type(model).__name__}; pass the model itself, not a "
            "view; one with an embedding of its own runs as noise_off(model)"
        )
    rnn, cell = model.rnn, type(model.rnn.cell)
    if cell not in _LAYERS:
        raise ValueError(
            f"export: torch has no layer for the cell {rnn.cell.name!r}; use noise_off(model), or a cell of "
            f"{', '.join(each.name for each in _LAYERS)}"
        )
    if model.emission.linear is None:
        kind = type(model.emission).__name__
        raise ValueError(f"export: the emission {kind} has no linear read-out; use noise_off(model)")
    like = model.emission.linear.weight
    sizes, options = (rnn.input_size, rnn.hidden_size, rnn.num_layers), {"device": like.device, "dtype": like.dtype}
    layers = _LAYERS[cell](*sizes, batch_first=True, **options)
    for name, parameter in layers.named_parameters():
        weight = getattr(rnn, f"{name}_mean" if hasattr(rnn, f"{name}_mean") else name)
        parameter.copy_(weight)
    hidden = None if model.emission.hidden is None else _copy(model.emission.hidden)
    linear = _copy(model.emission.linear)
    if isinstance(model.emission, Scaled):
        _to_units_of_data(linear, model.emission)
    embedding = None
    if isinstance(model, LanguageModel):
        embedding = nn.Embedding(*model.embedding.weight.shape, **options)
        embedding.load_state_dict(model.embedding.state_dict())
        if model.embedding.weight is like:
            linear.weight = embedding.weight
    return PlainNetwork(embedding, layers, hidden, linear)
