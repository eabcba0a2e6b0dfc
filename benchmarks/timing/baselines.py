"""Training steps in plain PyTorch and plain Pyro, as users write them without this library."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn
from torch.nn import functional as F

from noisin_pyro.data import Batch
from timing.shapes import Shape

GAMMA, DROPOUT_RATE, LEARNING_RATE, CLIP = 0.3, 0.3, 1e-3, 5.0
State = Any  # z of all layers (L, B, H); for the LSTM a pair with c


class DeterministicRNN(nn.Module):
    """The deterministic network as a careful PyTorch user writes it, with ``torch.nn``'s layers and losses."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        layers = {"tanh": nn.RNN, "lstm": nn.LSTM}[shape.cell]
        self.embedding = None if shape.is_music else nn.Embedding(shape.outputs, shape.units)
        self.rnn = layers(shape.outputs if shape.is_music else shape.units, shape.units, shape.layers, batch_first=True)
        self.linear = nn.Linear(shape.units, shape.outputs)
        self.to(shape.dtype)

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, State]:
        """The loss in nats per time step, and the state for the next batch."""
        z, state = self.layers(self.embed(batch.inputs), state)
        if self.embedding is None:
            loss = F.binary_cross_entropy_with_logits(self.linear(z), batch.targets, reduction="sum")
            return loss / batch.num_steps, state
        return F.cross_entropy(self.linear(z).flatten(0, 1), batch.targets.flatten()), state

    def embed(self, inputs: Tensor) -> Tensor:
        return inputs if self.embedding is None else self.embedding(inputs)

    def layers(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map x ``(B, T, I)`` and the initial state to the last layer's output ``(B, T, H)`` and the final state."""
        return self.rnn(x, state)


class NoisyLoop(DeterministicRNN):
    """The same layers as a loop over time steps that adds Gaussian noise to the hidden state.

    The input projections of all time steps are one product. Subclasses override what masks or samples a state.
    """

    def layers(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        has_memory = isinstance(self.rnn, nn.LSTM)
        if state is None:
            zeros = x.new_zeros(self.rnn.num_layers, x.shape[0], self.rnn.hidden_size)
            state = (zeros, zeros) if has_memory else zeros
        starts = zip(*state, strict=True) if has_memory else ((z, None) for z in state)
        ends = []
        for layer, ((z, c), weights) in enumerate(zip(starts, self.rnn.all_weights, strict=True), start=1):
            w_ih, w_hh, b_ih, b_hh = weights
            mask = self.recurrent_mask(z)
            path = []
            for t, a in enumerate(F.linear(self.mask_inputs(x), w_ih, b_ih + b_hh).unbind(1), start=1):
                a = torch.addmm(a, z if mask is None else z * mask, w_hh.T)
                if has_memory:
                    i, f, g, o = a.chunk(4, 1)
                    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                    h = torch.sigmoid(o) * torch.tanh(c)
                else:
                    h = torch.tanh(a)
                z = self.sample(h, layer, t)
                path.append(z)
            x = torch.stack(path, 1)
            ends.append((z, c))
        z_L, c_L = zip(*ends, strict=True)
        return self.mask_outputs(x), (torch.stack(z_L), torch.stack(c_L)) if has_memory else torch.stack(z_L)

    def sample(self, h: Tensor, layer: int, t: int) -> Tensor:
        """Sample z_t ``(B, H)`` given its mean h."""
        return h + GAMMA * torch.randn_like(h)

    def mask_inputs(self, x: Tensor) -> Tensor:
        return x

    def mask_outputs(self, x: Tensor) -> Tensor:
        return x

    def recurrent_mask(self, z: Tensor) -> Tensor | None:
        """The mask ``(B, H)`` of the recurrent connections, shared by all time steps."""
        return None


class VariationalDropout(NoisyLoop):
    """Variational dropout (Gal and Ghahramani, 2016): masks of word types and of units, fixed for a window.

    Each layer has one mask for its inputs and one for its recurrent connections, which all gates share; the last
    layer's outputs have one more.
    """

    def embed(self, inputs: Tensor) -> Tensor:
        if self.embedding is None:
            return inputs
        word_mask = dropout_mask(self.embedding.weight, self.embedding.num_embeddings, 1)
        return self.embedding(inputs) * F.embedding(inputs, word_mask)

    def sample(self, h: Tensor, layer: int, t: int) -> Tensor:
        return h

    def mask_inputs(self, x: Tensor) -> Tensor:
        return x * dropout_mask(x, x.shape[0], 1, x.shape[2])

    mask_outputs = mask_inputs

    def recurrent_mask(self, z: Tensor) -> Tensor:
        return dropout_mask(z, *z.shape)


def dropout_mask(like: Tensor, *shape: int) -> Tensor:
    """A dropout mask with mean 1: 0 with probability p, else 1 / (1 - p)."""
    return like.new_empty(shape).bernoulli_(1 - DROPOUT_RATE).div_(1 - DROPOUT_RATE)


class PyroLoop(NoisyLoop):
    """The noisy network in plain Pyro: one sample site per time step, ``Trace_ELBO``, and the prior as guide.

    The emission observes all time steps at once and the guide omits it. Both are faster than one site per step.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.elbo = Trace_ELBO(max_plate_nesting=1)

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, State]:
        loss = self.elbo.differentiable_loss(self.model, self.guide, batch, state)
        return loss / batch.num_steps, self.final_state

    def model(self, batch: Batch, state: State) -> None:
        """p(x | z) p(z)."""
        with pyro.plate("sequences", len(batch.inputs), dim=-1):
            z, self.final_state = self.layers(self.embed(batch.inputs), state)
            logits = self.linear(z)
            if self.embedding is None:
                emission = dist.Bernoulli(logits=logits).to_event(2)
            else:
                emission = dist.Categorical(logits=logits).to_event(1)
            pyro.sample("x", emission, obs=batch.targets)

    def guide(self, batch: Batch, state: State) -> None:
        """q(z) = p(z)."""
        with pyro.plate("sequences", len(batch.inputs), dim=-1):
            self.layers(self.embed(batch.inputs), state)

    def sample(self, h: Tensor, layer: int, t: int) -> Tensor:
        return pyro.sample(f"z_{layer}_{t}", dist.Normal(h, GAMMA).to_event(1))


class TorchTraining:
    """Trains a network of this module with Adam on a stream of batches, one step per call of :meth:`step`."""

    def __init__(self, network: DeterministicRNN, batches: Iterable[Batch]) -> None:
        self.network, self.batches = network, itertools.cycle(batches)
        self.state: State = None
        self.parameters = list(network.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=LEARNING_RATE, fused=True)

    def step(self) -> Tensor:
        """Forward, backward, clipping and update; returns the loss in nats per time step."""
        batch = next(self.batches)
        loss, state = self.network.loss(batch, self.state if batch.carried else None)
        self.state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        self._update(loss)
        return loss.detach()

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimizer.step()


class CUDAGraphTorchTraining(TorchTraining):
    """The same, captured as one CUDA graph that is replayed for each window."""

    def __init__(self, network: DeterministicRNN, batches: Iterable[Batch]) -> None:
        super().__init__(network, batches)
        self.optimizer = torch.optim.Adam(self.parameters, lr=LEARNING_RATE, fused=True, capturable=True)
        self.static_batch: Batch | None = None
        self.graph: Any = None

    def step(self) -> Tensor:
        batch = next(self.batches)
        if self.static_batch is None:
            self._capture(batch)
        assert self.static_batch is not None
        self.static_batch.inputs.copy_(batch.inputs)
        self.static_batch.targets.copy_(batch.targets)
        self.graph.replay()
        return self.loss

    def _capture(self, batch: Batch) -> None:
        self.static_batch = replace(batch, inputs=batch.inputs.clone(), targets=batch.targets.clone(), carried=True)
        _, state = self.network.loss(batch, None)
        self.state = tuple(s.detach().clone() for s in state) if isinstance(state, tuple) else state.detach().clone()
        # CUDA graphs need a few steps on a side stream before the capture.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._static_step()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._static_step()

    def _static_step(self) -> None:
        """A step that reads and writes buffers with fixed addresses."""
        assert self.static_batch is not None
        loss, state = self.network.loss(self.static_batch, self.state)
        self._update(loss)
        buffers, values = (self.state, state) if isinstance(state, tuple) else ((self.state,), (state,))
        for buffer, value in zip(buffers, values, strict=True):
            buffer.copy_(value.detach())
        self.loss = loss.detach()
