"""The contestants in plain PyTorch: deterministic, with Gaussian noise in a loop, with variational dropout."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noisin_pyro.data import Batch
from timing.shapes import Shape

GAMMA, DROPPED, RATE, CLIP = 0.3, 0.3, 1e-3, 5.0
State = Any  # z of all layers (L, B, H); for the LSTM a pair with c


class Plain(nn.Module):
    """The deterministic network as a careful PyTorch user writes it: torch's own layers and losses."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        layers = {"tanh": nn.RNN, "lstm": nn.LSTM}[shape.cell]
        self.embedding = None if shape.is_music else nn.Embedding(shape.outputs, shape.units)
        self.rnn = layers(shape.outputs if shape.is_music else shape.units, shape.units, shape.layers, batch_first=True)
        self.linear = nn.Linear(shape.units, shape.outputs)
        self.to(shape.dtype)

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, State]:
        """Nats per step, and the state to carry."""
        z, state = self.layers(self.embed(batch.inputs), state)
        if self.embedding is None:
            loss = F.binary_cross_entropy_with_logits(self.linear(z), batch.targets, reduction="sum")
            return loss / batch.num_steps, state
        return F.cross_entropy(self.linear(z).flatten(0, 1), batch.targets.flatten()), state

    def embed(self, inputs: Tensor) -> Tensor:
        return inputs if self.embedding is None else self.embedding(inputs)

    def layers(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x ``(B, T, I)`` and the state before it, to the last layer's ``(B, T, H)`` and the state after."""
        return self.rnn(x, state)


class Loop(Plain):
    """The same layers step by step, with what PyTorch's own cannot have: Gaussian noise added to the hidden state.

    The inputs' products are made for all steps at once. Subclasses change what enters a layer, what recurs, and z.
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
            fixed = self.recurrent_mask(z)
            path = []
            for t, a in enumerate(F.linear(self.into_layer(x), w_ih, b_ih + b_hh).unbind(1), start=1):
                a = torch.addmm(a, z if fixed is None else z * fixed, w_hh.T)
                if has_memory:
                    i, f, g, o = a.chunk(4, 1)
                    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                    h = torch.sigmoid(o) * torch.tanh(c)
                else:
                    h = torch.tanh(a)
                z = self.draw(h, layer, t)
                path.append(z)
            x = torch.stack(path, 1)
            ends.append((z, c))
        z_L, c_L = zip(*ends, strict=True)
        return self.out_of_layers(x), (torch.stack(z_L), torch.stack(c_L)) if has_memory else torch.stack(z_L)

    def draw(self, h: Tensor, layer: int, t: int) -> Tensor:
        """z ``(B, H)`` of a step from its mean."""
        return h + GAMMA * torch.randn_like(h)

    def into_layer(self, x: Tensor) -> Tensor:
        return x

    def out_of_layers(self, x: Tensor) -> Tensor:
        return x

    def recurrent_mask(self, z: Tensor) -> Tensor | None:
        """What multiplies z ``(B, H)`` on its way to the next step, the same at all steps."""
        return None


class VariationalDropout(Loop):
    """Gal and Ghahramani (2016): word types, and units of every connection, dropped for a whole window at a time.

    One mask a layer for its inputs, one for its recurrence (all gates have the same), one for what leaves the layers.
    """

    def embed(self, inputs: Tensor) -> Tensor:
        if self.embedding is None:
            return inputs
        kept = mask(self.embedding.weight, self.embedding.num_embeddings, 1)
        return self.embedding(inputs) * F.embedding(inputs, kept)

    def draw(self, h: Tensor, layer: int, t: int) -> Tensor:
        return h

    def into_layer(self, x: Tensor) -> Tensor:
        return x * mask(x, x.shape[0], 1, x.shape[2])

    def out_of_layers(self, x: Tensor) -> Tensor:
        return x * mask(x, x.shape[0], 1, x.shape[2])

    def recurrent_mask(self, z: Tensor) -> Tensor:
        return mask(z, *z.shape)


def mask(like: Tensor, *shape: int) -> Tensor:
    """Dropout's: 0, or 1 / (1 - p), with mean 1."""
    return like.new_empty(shape).bernoulli_(1 - DROPPED).div_(1 - DROPPED)


class TorchTraining:
    """A network and its optimiser, a training step at a time over a stream."""

    def __init__(self, network: Plain, batches: Iterable[Batch]) -> None:
        self.network, self.batches, self.state = network, itertools.cycle(batches), None
        self.parameters = list(network.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=RATE, fused=True)

    def step(self) -> Tensor:
        """Forward, loss, backward, clip, update; the loss in nats per step."""
        batch = next(self.batches)
        loss, state = self.network.loss(batch, self.state if batch.carried else None)
        self.state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimizer.step()
        return loss.detach()


class CapturedTraining(TorchTraining):
    """The same as one CUDA graph, replayed for each window: what a user does for whom launches cost too much."""

    def __init__(self, network: Plain, batches: Iterable[Batch]) -> None:
        super().__init__(network, batches)
        self.optimizer = torch.optim.Adam(self.parameters, lr=RATE, fused=True, capturable=True)
        self.held: Batch | None = None
        self.graph: Any = None

    def step(self) -> Tensor:
        batch = next(self.batches)
        if self.held is None:
            self._begin(batch)
        assert self.held is not None
        self.held.inputs.copy_(batch.inputs)
        self.held.targets.copy_(batch.targets)
        self.graph.replay()
        return self.loss

    def _begin(self, batch: Batch) -> None:
        self.held = replace(batch, inputs=batch.inputs.clone(), targets=batch.targets.clone(), carried=True)
        _, state = self.network.loss(batch, None)
        self.state = tuple(s.detach().clone() for s in state) if isinstance(state, tuple) else state.detach().clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._captured()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._captured()

    def _captured(self) -> None:
        loss, state = self.network.loss(self.held, self.state)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimizer.step()
        kept, new = (self.state, state) if isinstance(state, tuple) else ((self.state,), (state,))
        for buffer, value in zip(kept, new, strict=True):
            buffer.copy_(value.detach())
        self.loss = loss.detach()
