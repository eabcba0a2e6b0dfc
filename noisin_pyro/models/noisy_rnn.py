"""The layer: an RNN whose hidden states are random, a drop-in replacement for torch's in any Pyro program."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from noisin_pyro._lookup import boolean, integer, known, named, refuse_others
from noisin_pyro.models._module import ReusableModule
from noisin_pyro.models._validation import (
    OPTIONS_OF_TORCH,
    AnySpread,
    State,
    check_dtypes,
    check_inputs,
    checked_name,
    initial_states,
    layer_spread,
    spread_per_layer,
)
from noisin_pyro.models.dropout import Dropout, draw, get_for_layers
from noisin_pyro.models.noisy_path import NoisyPath, sample_noisy
from noisin_pyro.models.spread import Spread, keep_spreads
from noisin_pyro.models.stepwise import States, StepwiseRNN
from noisin_pyro.models.views import require_view_of_noise
from noisin_pyro.noise import Family
from noisin_pyro.noise import get as get_noise
from noisin_pyro.recurrence.cells import CELLS, Cell, Weights
from noisin_pyro.recurrence.dispatch import BACKENDS, choose_backend
from noisin_pyro.recurrence.matmul import check_matmul_precision, needs_torch_operations
from noisin_pyro.recurrence.transition import FixedMeans, Recurrence, Transition, common_shape


class NoisyRNN(ReusableModule):
    """Stacked recurrent layers with noisy hidden states, z_t ~ noise(mean f(x_{t-1}, z_{t-1}), spread γ).

    Use it inside a Pyro program, in a plate of dimension -1 over the batch. Each layer with a spread other than 0 is
    one sample site, ``{name}_1`` (the lowest layer) to ``{name}_L``, a :class:`NoisyPath`; noisy inputs are
    ``{name}_0``. Parameters have torch's names (``weight_ih_l0`` …), so state dicts of ``nn.RNN``, ``nn.LSTM`` and
    ``nn.GRU`` load.

    Args:
        input_size: features of an input.
        hidden_size: units H of every layer.
        num_layers: number of layers, L.
        cell: ``"tanh"``, ``"sigmoid"``, ``"relu"``, ``"identity"``, ``"lstm"``, ``"gru"``, or a :class:`Cell`. The
            LSTM's noise is on its hidden state; its memory is deterministic given z.
        noise: a name (``"gamma"``, ``"gamma:multiplicative"``) or a family; ``noise.families()`` lists them.
        spread: γ: one for all layers (each gets its own copy) or a sequence of L, the lowest layer's first. Floats are
            fixed. :meth:`set_spread` changes it later.
        input_spread: γ_0 of noisy inputs.
        feedback: True feeds the noisy state back: E[z_t | z_{t-1}] = f(x_{t-1}, z_{t-1}) (weakly unbiased). False adds
            noise to the output only, z_L around h_L of the RNN without noise: E[z_t] = h_t (strongly unbiased). The
            recurrence then has no noise, and the library's fused kernels can run it whatever the family.
        name: the sites' prefix.
        backend: how the layers are computed, ``"auto"``, ``"fused"``, ``"scan"`` or ``"loop"``
            (``recurrence/dispatch.py``): the same numbers up to rounding. The loop takes over, whichever is given, for
            tensor subclasses, the meta device, and inside ``torch.func``, ``torch.compile`` and ``torch.export``.
        matmul_precision: ``"float32"``, or ``"bfloat16"`` (with float32 weights): operands and results of products with
            weights are rounded to it, forward and backward, and sums are accumulated in float32. Large products are
            faster with it on GPUs and on CPUs that support it. It applies to the scan, and to densities of states
            of a layer that the scan computes; fused kernels and the loop stay in float32.
        regularizer: dropout of inputs, recurrences and output with masks that are fixed along the sequence: ``"none"``,
            ``"variational-dropout"``, ``"D"``, or a :class:`Dropout` with rates of your own. The masks are sites,
            ``{name}_1_input_mask``, ``{name}_1_recurrent_mask`` and so on, and ``{name}_output_mask``. Dropout of an
            embedding belongs to :class:`LanguageModel`.
        of_torch: the other options of torch's layers, at the only values that are supported (``batch_first=True``).

    Raises:
        ValueError: for names that do not exist, a cell whose state leaves the family's range, a spread that the family
            or ``feedback=False`` cannot take, or dropout of an embedding; each says what can be done.

    Source: paper, sections 2.1 and 3.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        cell: str | Cell = "tanh",
        noise: str | Family = "gaussian",
        spread: AnySpread = 0.3,
        input_spread: float | Spread = 0.0,
        feedback: bool = True,
        name: str = "z",
        backend: str = "auto",
        matmul_precision: str = "float32",
        regularizer: str | Dropout = "none",
        **of_torch: Any,
    ) -> None:
        refuse_others(type(self).__name__, of_torch, OPTIONS_OF_TORCH)
        super().__init__()
        self.input_size = input_size = integer("input_size", input_size)
        self.hidden_size = hidden_size = integer("hidden_size", hidden_size)
        self.num_layers = num_layers = integer("num_layers", num_layers)
        self.feedback, self.name = boolean("feedback", feedback), checked_name(name)
        self.backend = known("backend", backend, BACKENDS)
        self.matmul_precision = check_matmul_precision(matmul_precision)
        self.cell = named("cell", cell, CELLS, Cell)
        self.cell.check(hidden_size)
        with torch.device("cpu"):  # a family is probed, which the meta device cannot do
            self.noise = get_noise(noise)
        self.dropout = get_for_layers(regularizer)
        rows = self.cell.gates * hidden_size
        for layer in range(num_layers):
            width = input_size if layer == 0 else hidden_size
            self.register_parameter(f"weight_ih_l{layer}", nn.Parameter(torch.empty(rows, width)))
            self.register_parameter(f"weight_hh_l{layer}", nn.Parameter(torch.empty(rows, hidden_size)))
            self.register_parameter(f"bias_ih_l{layer}", nn.Parameter(torch.empty(rows)))
            self.register_parameter(f"bias_hh_l{layer}", nn.Parameter(torch.empty(rows)))
        self.reset_parameters()
        if spread is None or input_spread is None:
            raise ValueError("spread and input_spread must be numbers or Spreads, got None; use 0 for no noise")
        self.set_spread(spread, input_spread)
        self.register_load_state_dict_pre_hook(keep_spreads)

    def set_spread(self, spread: AnySpread | None = None, input_spread: float | Spread | None = None) -> None:
        """Replace γ of the layers, of the inputs, or of both; arguments and errors as for the class.

        ``rnn.spread = 0.2`` does the same. A learned spread is a new parameter: make the optimizer and the bound
        afterwards.
        """
        values = {} if input_spread is None else {0: input_spread}
        if spread is not None:
            values |= dict(enumerate(spread_per_layer(spread, self.num_layers, self.feedback), start=1))
        sizes, like = [self.input_size, *[self.hidden_size] * self.num_layers], self.bias_ih_l0
        fixed = self.cell, self.noise, self.num_layers
        spreads = {i: layer_spread(i, value, *fixed, sizes[i], self.feedback) for i, value in values.items()}
        for layer, own in spreads.items():  # once none has been refused
            setattr(self, f"spread_{layer}", own.to(like.device, like.dtype))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("spread", "input_spread"):
            self.set_spread(**{name: value})
        elif name == "regularizer":
            raise ValueError("regularizer is an argument of the constructor; make a new network, and load_state_dict")
        else:
            super().__setattr__(name, value)

    def extra_repr(self) -> str:
        given = f"cell={self.cell.name!r}, noise='{self.noise.name}:{self.noise.form}', feedback={self.feedback}"
        dropout = f", regularizer={self.dropout}" if self.dropout.drops else ""
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, {given}{dropout}"

    def reset_parameters(self) -> None:
        """Draw every weight and bias from U(±1/√H), as torch does; so does the published paper for weights."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters(recurse=False):
            nn.init.uniform_(parameter, -bound, bound)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run the layers; each noisy one samples its trajectory.

        Args:
            inputs: ``(..., B, T, input_size)``.
            state: the noisy state to continue from, ``(L, ..., B, H)``, or a pair for the LSTM, as in torch; by default
                zeros.
            lengths: ``(B,)`` integers from 0 to T; steps beyond them have no density and do not change the state.

        Returns:
            z of the last layer, ``(..., B, T, H)``, and the state at each sequence's end.

        Raises:
            ValueError: for shapes, dtypes or lengths other than these.
        """
        check_inputs(inputs, lengths, self.input_size)
        lengths = lengths if lengths is None else lengths.to(inputs.device, torch.int64)
        x = self._noisy_inputs(inputs, lengths)
        ends = []
        for layer, (z, c) in enumerate(self._initial_states(inputs, state), start=1):
            mask = self._mask(f"{layer}_recurrent", self.dropout.recurrent, x, self.hidden_size)
            x = self._dropped(f"{layer}_input", self.dropout.input, x)
            weights = Weights(*self._weights(layer - 1))
            check_dtypes(x, weights, z, c)
            recurrence = Recurrence(self.cell, weights, x, z, c, self.backend, self.matmul_precision, mask)
            x, end = self._layer(layer, recurrence, lengths)
            ends.append(end)
        x = self._dropped("output", self.dropout.output, x)
        # with a z that is given, the last layer may lack particles, or all layers those of the inputs, which c has
        batch = common_shape(x.shape[:-2], *(part.shape[:-1] for end in ends for part in end if part is not None))
        last_z = torch.stack([z.expand(*batch, -1) for z, _ in ends])
        if not self.cell.has_memory:
            return x, last_z
        return x, (last_z, torch.stack([c.expand(*batch, -1) for _, c in ends if c is not None]))

    def stepwise(self, inputs: Tensor, state: State | None = None) -> StepwiseRNN:
        """The same layers one time step at a time, for callers that draw the states themselves.

        Only weights and γ that have priors are sampled here. Arguments and errors are those of ``forward``.

        Raises:
            ValueError: also for layers with dropout.
        """
        self.dropout.refuse("layers that run step by step have no masks")
        check_inputs(inputs, None, self.input_size)
        starts = self._initial_states(inputs, state)
        weights = [Weights(*self._weights(layer)) for layer in range(self.num_layers)]
        check_dtypes(inputs, weights[0], *starts[0])
        z, c = zip(*starts, strict=True)
        spreads = [self._spread(layer) for layer in range(self.num_layers + 1)]
        return StepwiseRNN(
            cell=self.cell,
            family=self.noise,
            feedback=self.feedback,
            weights=weights,
            spreads=[None if spread.is_zero else spread(inputs).squeeze(-2) for spread in spreads],
            inputs=inputs,
            start=States(z, c),
            precisions=[self._precision(layer) for layer in range(1, self.num_layers + 1)],
        )

    @property
    def noisy_layers(self) -> list[int]:
        """The numbers of the layers that have noise, the lowest first; 0 is the inputs."""
        return [layer for layer in range(self.num_layers + 1) if not self._spread(layer).is_zero]

    def spreads(self) -> dict[str, float]:
        """The current γ of each noisy layer by name (``gamma_0`` is the inputs'). Samples γ where it has a prior."""
        like = self._weights(0)[0].detach()
        return {f"gamma_{layer}": float(self._spread(layer)(like).detach()) for layer in self.noisy_layers}

    def backends(self, rows: int) -> list[str]:
        """The backend of each layer, the lowest first, for ``rows`` sequences times particles on the weights' device.

        Raises:
            ValueError: for a ``backend`` that cannot run a layer.
        """
        shared = not getattr(self, "_pyro_samples", ())
        return [self._chosen_backend(layer, rows, shared) for layer in range(1, self.num_layers + 1)]

    def _chosen_backend(self, layer: int, rows: int, shared: bool) -> str:
        family = self.noise if self.feedback and not self._spread(layer).is_zero else None
        device, numel, is_masked = self._weights(0)[0].device, rows * self.hidden_size, self.dropout.recurrent > 0
        options = (self.cell, family, shared, device, numel, self.matmul_precision, is_masked)
        return choose_backend(self.backend, *options)

    def _precision(self, layer: int) -> str:
        """Of a layer's products: those in bfloat16 exist in the scan alone."""
        if self.matmul_precision == "float32":
            return "float32"
        shared = Weights(*self._weights(layer - 1)).are_shared
        return self.matmul_precision if self._chosen_backend(layer, 1, shared) == "scan" else "float32"

    def _layer(
        self, layer: int, recurrence: Recurrence, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor | None]]:
        spread = self._spread(layer)
        if self.feedback and not spread.is_zero:
            path = self._path(recurrence, spread, recurrence.inputs, lengths)
            z = self._sample(layer, path)
            return z, recurrence.final(z, path.last_memory(z), lengths, self.noise)
        h, memory = recurrence.clean()
        end = recurrence.final(h, memory, lengths)
        if spread.is_zero:
            return h, end
        return self._sample(layer, self._path(FixedMeans(h), spread, h, lengths)), end

    def _noisy_inputs(self, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        spread = self._spread(0)
        if spread.is_zero:
            return inputs
        return self._sample(0, self._path(FixedMeans(inputs), spread, inputs, lengths))

    def _dropped(self, what: str, rate: float, x: Tensor) -> Tensor:
        """x ``(..., B, T, I)`` times a mask of its units, the same at all steps."""
        mask = self._mask(what, rate, x, x.shape[-1])
        return x if mask is None else x * mask.unsqueeze(-2)

    def _mask(self, what: str, rate: float, x: Tensor, units: int) -> Tensor | None:
        return draw(f"{self.name}_{what}_mask", rate, x, units)

    def _initial_states(self, inputs: Tensor, state: State | None) -> list[tuple[Tensor, Tensor | None]]:
        return initial_states(inputs, state, self.cell, self.num_layers, self.hidden_size)

    def _path(self, transition: Transition, spread: Spread, like: Tensor, lengths: Tensor | None) -> NoisyPath:
        return NoisyPath(transition, self.noise, spread(like), lengths, spread_is_sampled=spread.prior is not None)

    def _sample(self, layer: int, path: NoisyPath) -> Tensor:
        require_view_of_noise(f"{self.name}_{layer}")
        try:
            return sample_noisy(f"{self.name}_{layer}", path, self.noise, path.padding_is_flat)
        except RuntimeError as error:
            if not (path.spread.is_meta or needs_torch_operations()):
                raise
            raise ValueError(
                f"{self.noise} noise cannot be drawn on the meta device or in this transform of torch ({error}); draw "
                "it outside, and condition innovations(rnn) on it, or use noise_off(rnn)"
            ) from error

    def _spread(self, layer: int) -> Spread:
        return getattr(self, f"spread_{layer}")

    def _weights(self, layer: int) -> list[Tensor]:
        return [getattr(self, f"{kind}_l{layer}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
