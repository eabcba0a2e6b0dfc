"""The generative program of section 3: noisy layers, an emission, a plate over the sequences."""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from noisin_pyro._lookup import BatchError, boolean, integer, named
from noisin_pyro.models._module import ReusableModule, put_into_store
from noisin_pyro.models._validation import AnySpread, State
from noisin_pyro.models.dropout import Dropout, draw
from noisin_pyro.models.dropout import get as get_dropout
from noisin_pyro.models.emissions import EMISSIONS
from noisin_pyro.models.missing import scored_steps, without_missing
from noisin_pyro.models.noisy_rnn import NoisyRNN
from noisin_pyro.models.output import Output
from noisin_pyro.models.read_out import Emission, ModuleEmission, check_support, check_targets
from noisin_pyro.models.spread import Spread
from noisin_pyro.models.weight_priors import place_priors
from noisin_pyro.noise import Family
from noisin_pyro.recurrence.cells import Cell

_OF_THE_LAYERS = inspect.signature(NoisyRNN).parameters.keys() - {"name", "of_torch"}


class SequenceModel(ReusableModule):
    """A noisy RNN with an emission: p(x_{1:T} | z_{1:T}) p(z_{1:T}), as a Pyro program.

    It opens the plate ``sequences`` (dimension -1); the observed site is ``x``.

    Args:
        rnn: the noisy layers.
        emission: a name in ``EMISSIONS`` (with the layers' ``matmul_precision``), an :class:`Emission`, or a module
            that returns a distribution of x given z, as for :class:`ModuleEmission`.
        output_size: classes, or dimensions of x; for an emission given by name, or a module.
        weight_prior: of the layers' weight matrices: ``"dirac"`` (plain weights), or ``"normal"``, with learned mean
            and standard deviation (empirical Bayes, section 3); see :func:`place_priors`.
        emission_hidden_size: units of a hidden layer of the read-out; only for an emission given by name. None: the
            read-out is linear, as in the paper.

    Attributes:
        series: the format of the series that the model was made for (a ``SeriesFormat``), as ``train`` and ``load`` set
            it. Series that are scaled otherwise are then refused. None if it is not known.

    Raises:
        ValueError: for an unknown emission, one of another width than the layers', or an ``output_size`` or
            ``emission_hidden_size`` that is missing or has no effect.
    """

    series: Any = None

    def __init__(
        self,
        rnn: NoisyRNN,
        emission: str | nn.Module = "categorical",
        output_size: int | None = None,
        weight_prior: str = "dirac",
        emission_hidden_size: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(getattr(rnn, "_orig_mod", rnn), NoisyRNN):  # torch.compile wraps it
            raise ValueError(f'rnn must be a NoisyRNN, got {type(rnn).__name__}; use NoisyRNN(..., cell="lstm"), say')
        if isinstance(emission, nn.Module) and not isinstance(emission, Emission):
            emission, output_size = ModuleEmission(emission, rnn.hidden_size, output_size), None
        if isinstance(emission, str) and output_size is None:
            raise ValueError(f"output_size must be given for emission={emission!r}: its classes or dimensions")
        for name, size in (("output_size", output_size), ("emission_hidden_size", emission_hidden_size)):
            if not isinstance(emission, str) and size is not None:
                raise ValueError(f"{name}={size} has no effect on an emission instance; drop it")
        self.rnn = rnn
        options = (rnn.hidden_size, output_size or 0, rnn.matmul_precision, emission_hidden_size)
        self.emission = named("emission", emission, EMISSIONS, Emission, *options)
        if self.emission.hidden_size != rnn.hidden_size:
            width = self.emission.hidden_size
            raise ValueError(f"emission reads {width} units, but the layers have {rnn.hidden_size}; make both equal")
        place_priors(rnn, weight_prior)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OF_THE_LAYERS:
            raise ValueError(
                f"{name} belongs to the layers, got {value!r}; set it on model.rnn (γ: model.rnn.set_spread)"
            )
        super().__setattr__(name, value)

    @property
    def dropout(self) -> Dropout:
        """The rates of every mask that the program draws."""
        return self.rnn.dropout

    def embed(self, inputs: Tensor) -> Tensor:
        """The first layer's inputs, ``(..., B, T, input_size)``, without dropout."""
        return inputs

    def drop_words(self, x: Tensor, inputs: Tensor) -> Tensor:
        """The first layer's inputs ``x`` after dropout of the embedding, if there is one."""
        return x

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        put_into_store(self)
        with self.rnn._pyro_context:  # another model's, if that shares the layers: what is sampled is sampled once here
            return super().__call__(*args, **kwargs)

    def forward(
        self,
        inputs: Tensor,
        targets: Tensor | None = None,
        state: State | None = None,
        lengths: Tensor | None = None,
        size: int | None = None,
        mask: Tensor | None = None,
    ) -> Output:
        """Run the program.

        Args:
            inputs: x_{0:T-1}, ``(..., B, T, features)``.
            targets: x_{1:T}, ``(..., B, T)`` for the categorical, ``(..., B, T, D)`` otherwise; sampled if None.
            state: the state at the last window's end, as for :class:`NoisyRNN`.
            lengths: ``(B,)``; steps beyond them are masked in every density. Targets there may be NaN, inputs may not.
            size: number of sequences in the data set, if these B are a subsample: scales the likelihood by size / B.
            mask: ``(..., B, T)`` booleans, False where a target is missing: it has no density, and may be NaN. Its
                state keeps its density.

        Returns:
            the emission and the state to continue from.

        Raises:
            ValueError: for shapes or sizes other than these.
        """
        x = self.embed(inputs)
        if x.dim() < 3:
            raise BatchError(f"inputs must have the axes (..., batch, time, features), got {tuple(x.shape)}")
        targets = self._checked_targets(targets, x, mask)
        self._sample_globals()
        with self.sequences(x.shape[-3], size):
            z, end = self.rnn(self.drop_words(x, inputs), state, lengths)
            emission = self.emission(z)
            scored = scored_steps(lengths, mask, x.shape[-2])
            if targets is not None and scored is not None:
                unchecked_padding = mask is None and not emission._validate_args
                targets = without_missing(targets, scored, self.emission.event_dim, keep_finite=unchecked_padding)
            if targets is not None and emission._validate_args:
                check_support(emission, targets)
            observed = emission if scored is None else emission.mask(scored.to(x.device))
            pyro.sample("x", observed.to_event(1), obs=targets)
        return Output(emission, end)

    def _checked_targets(self, targets: Tensor | None, x: Tensor, mask: Tensor | None = None) -> Tensor | None:
        """The targets; vectors of whole numbers or booleans in the dtype of ``x``, as densities need them."""
        check_targets(self.emission, targets, mask, x.shape[-3], x.shape[-2])
        is_cast = targets is not None and self.emission.event_dim > 0 and not targets.is_floating_point()
        return targets.to(x.dtype) if targets is not None and is_cast else targets

    def _sample_globals(self) -> None:
        """Sample γ and weights that have priors outside the plate, since all sequences share them."""
        for module in self.modules():
            for name in getattr(module, "_pyro_samples", ()):
                getattr(module, name)

    @staticmethod
    def sequences(batch: int, size: int | None = None) -> pyro.plate:
        """The plate of ``batch`` sequences, a subsample of a data set of ``size``.

        Raises:
            ValueError: for an empty batch, or a size that is not an integer, or is below the batch's.
        """
        if batch < 1:
            raise BatchError("inputs must contain at least one sequence, got an empty batch; skip it")
        if size is not None:
            size = integer("size (of the data set)", size, batch)
        if size is None or size == batch:
            return pyro.plate("sequences", batch, dim=-1)
        return pyro.plate("sequences", size, subsample=torch.arange(batch), dim=-1)


class LanguageModel(SequenceModel):
    """A language model: an embedding as wide as the state, noisy layers, a softmax over the vocabulary.

    Embeddings are initialized from N(0, 1), as torch's are; those that are also the softmax's weights from U(±0.1), as
    in the published paper. The softmax's bias starts at 0.

    Args:
        vocabulary_size: V.
        hidden_size: units of the embedding and of every layer.
        num_layers, cell, noise, spread, input_spread, feedback, backend: as for :class:`NoisyRNN`.
        tie_weights: whether the softmax's weights are the embedding's.
        matmul_precision: of the layers, as for :class:`NoisyRNN`, and of the softmax.
        weight_prior, emission_hidden_size: as for :class:`SequenceModel`.
        regularizer: as for :class:`NoisyRNN`, and dropout of the embedding, which drops whole word types with masks
            ``(B, V)`` at the site ``word_mask``.
    """

    def __init__(
        self,
        vocabulary_size: int,
        hidden_size: int,
        num_layers: int = 1,
        cell: str | Cell = "tanh",
        noise: str | Family = "gaussian",
        spread: AnySpread = 0.3,
        input_spread: float | Spread = 0.0,
        feedback: bool = True,
        tie_weights: bool = False,
        matmul_precision: str = "float32",
        weight_prior: str = "dirac",
        regularizer: str | Dropout = "none",
        backend: str = "auto",
        emission_hidden_size: int | None = None,
    ) -> None:
        vocabulary_size = integer("vocabulary_size", vocabulary_size)
        if boolean("tie_weights", tie_weights) and emission_hidden_size not in (None, hidden_size):
            raise ValueError(
                f"tie_weights needs a read-out as wide as the embedding, {hidden_size} units, got "
                f"emission_hidden_size={emission_hidden_size}; make both equal, or do not tie the weights"
            )
        dropout = get_dropout(regularizer)
        rnn = NoisyRNN(
            input_size=hidden_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            cell=cell,
            noise=noise,
            spread=spread,
            input_spread=input_spread,
            feedback=feedback,
            backend=backend,
            matmul_precision=matmul_precision,
            regularizer=dataclasses.replace(dropout, embedding=0.0),  # which the layers don't have
        )
        super().__init__(rnn, "categorical", vocabulary_size, weight_prior, emission_hidden_size)
        self.embedding_dropout = dropout.embedding
        self.embedding = PyroModule[nn.Embedding](vocabulary_size, hidden_size)  # type: ignore[call-arg]
        nn.init.zeros_(self.emission.linear.bias)
        if tie_weights:
            nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
            self.emission.linear.weight = self.embedding.weight

    @property
    def dropout(self) -> Dropout:
        return dataclasses.replace(self.rnn.dropout, embedding=self.embedding_dropout)

    def embed(self, inputs: Tensor) -> Tensor:
        """Tokens ``(..., B, T)`` to ``(..., B, T, H)``."""
        if inputs.is_floating_point() or inputs.dtype == torch.bool or inputs.dim() < 2:
            shape = tuple(inputs.shape)
            raise BatchError(f"inputs must be integer tokens (..., batch, time), got {inputs.dtype} of shape {shape}")
        inputs = inputs if inputs.dtype in (torch.int64, torch.int32) else inputs.long()
        weight = self.embedding.weight
        try:
            # Sampled embeddings have the samples' dimensions in front, then a 1 for the sequences that share them.
            return self.embedding(inputs) if weight.dim() == 2 else weight.squeeze(-3)[..., inputs, :]
        except IndexError as error:  # on a CPU; a comparison before would cost time at every step
            raise BatchError(
                f"inputs must be tokens from 0 to {self.emission.output_size - 1}, got {int(inputs.min())} to "
                f"{int(inputs.max())}; encode the text with the vocabulary of the model"
            ) from error

    def drop_words(self, x: Tensor, inputs: Tensor) -> Tensor:
        mask = draw("word_mask", self.embedding_dropout, x, self.emission.output_size)
        if mask is None:
            return x
        words = inputs.expand(*mask.shape[:-1], inputs.shape[-1])
        return x * mask.gather(-1, words).unsqueeze(-1)


def initialize_as_published(model: SequenceModel) -> None:
    """Redraw the weights of ``model`` as in the published paper: embeddings (tied ones too) from U(±0.1), other weights
    from U(±1/√H), every bias 0.

    Spreads and an emission's scale stay unchanged.

    Source: Dieng et al. (2018), their experiments. The paper only says that initialization matters (section 4).
    """
    bound = 1.0 / math.sqrt(model.rnn.hidden_size)
    for name, parameter in model.named_parameters():
        kind = name.rpartition(".")[2]
        if kind.startswith("bias"):
            nn.init.zeros_(parameter)
        elif kind.startswith("weight"):
            nn.init.uniform_(parameter, -bound, bound)
    if isinstance(model, LanguageModel):
        nn.init.uniform_(model.embedding.weight, -0.1, 0.1)
