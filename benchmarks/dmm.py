"""Pyro's Deep Markov Model at its published settings, on this library's data: what the guides are measured against.

``python benchmarks/dmm.py results/chorales/dmm --minutes 60`` trains it and writes the folder. The networks, their
sizes and the optimiser are those of Pyro's example ``dmm`` (Krishnan, Shalit, Sontag, *Structured Inference Networks
for Nonlinear State Space Models*, AAAI 2017, the variant that they call DKS; dropout 0.1 there acts between the layers
of an RNN that has one, so not at all). Two things differ, and neither changes the objective: a trajectory is one sample
site instead of one a step, several times faster, and the best model in validation is kept instead of the last.

    z_t ~ Normal(gated transition of z_{t-1}),  x_t ~ Bernoulli(emitter of z_t),  q(z_t | z_{t-1}, x_{t:T})
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
import tyro
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.infer import Trace_ELBO
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from noisin_pyro.data import Sequences, load
from noisin_pyro.models import Output, real_steps
from noisin_pyro.training import checkpoint, folder, generators, log
from noisin_pyro.training.fingerprint import fingerprint, require_same
from noisin_pyro.training.locks import alone
from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.run import program_settings

Step = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Settings:
    """The defaults of Pyro's example, and how often it is validated."""

    z_units: int = 100
    emission_units: int = 100
    transition_units: int = 200
    rnn_units: int = 600
    batch_size: int = 20
    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.96, 0.999)
    clip: float = 10.0  # of each entry of the gradient, which is of the batch's total nats
    decay: float = 0.99996  # of the learning rate, a step
    weight_decay: int = 2
    epochs: int = 5000
    annealing_epochs: int = 1000
    least_annealing: float = 0.2
    epochs_a_validation: int = 10


class GaussianPath(TorchDistribution):
    """z_{1:T} with z_t ~ Normal(*step(z_{t-1}, context_t)): batch ``(..., B)``, event ``(T, Z)``."""

    arg_constraints: ClassVar[dict[str, Any]] = {}  # type: ignore[override]
    support: Any = dist.constraints.independent(dist.constraints.real, 2)  # type: ignore[override]
    has_rsample = True

    def __init__(self, step: Step, start: Tensor, real: Tensor, context: Tensor | None = None, batch: Any = None):
        self.step, self.start, self.real, self.context = step, start, real, context
        self._drawn: tuple[Any, Any] = (None, None)
        super().__init__(real.shape[:-1] if batch is None else batch, torch.Size([real.shape[-1], start.shape[-1]]))

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> GaussianPath:
        return GaussianPath(self.step, self.start, self.real, self.context, torch.Size(batch_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:  # type: ignore[override]
        noise = torch.randn(*sample_shape, *self.batch_shape, *self.event_shape, device=self.start.device)
        z, drawn, laws = self.start.expand_as(noise[..., 0, :]), [], []
        contexts = [()] * noise.shape[-2] if self.context is None else [(c,) for c in self.context.unbind(-2)]
        for each, context in zip(noise.unbind(-2), contexts, strict=True):
            mean, scale = self.step(z, *context)
            z = mean + scale * each
            drawn.append(z)
            laws.append((mean, scale))
        path = torch.stack(drawn, -2)
        self._drawn = path, [torch.stack(part, -2) for part in zip(*laws, strict=True)]
        return path

    def log_prob(self, value: Tensor) -> Tensor:
        """Parallel in time: given z_{1:T} the law of every step is known (and of one's own draw it is kept)."""
        if self._drawn[0] is value:
            mean, scale = self._drawn[1]
        else:
            before = torch.cat([self.start.expand_as(value[..., :1, :]), value[..., :-1, :]], -2)
            mean, scale = self.step(before) if self.context is None else self.step(before, self.context)
        steps = dist.Normal(mean, scale).log_prob(value).sum(-1)
        return torch.where(self.real, steps, 0.0).sum(-1)


class Transition(nn.Module):
    """p(z_t | z_{t-1}): a gate between a linear map, the identity at first, and a network's proposal."""

    def __init__(self, units: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(units, hidden), nn.ReLU(), nn.Linear(hidden, units), nn.Sigmoid())
        self.proposal = nn.Sequential(nn.Linear(units, hidden), nn.ReLU(), nn.Linear(hidden, units))
        self.linear, self.scale = nn.Linear(units, units), nn.Linear(units, units)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        gate, proposal = self.gate(z), self.proposal(z)
        return (1 - gate) * self.linear(z) + gate * proposal, softplus(self.scale(proposal.relu()))


class Combiner(nn.Module):
    """q(z_t | z_{t-1}, x_{t:T}), where the RNN's state at t stands for x_{t:T}."""

    def __init__(self, units: int, rnn_units: int) -> None:
        super().__init__()
        self.read = nn.Linear(units, rnn_units)
        self.mean, self.scale = nn.Linear(rnn_units, units), nn.Linear(rnn_units, units)

    def forward(self, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        both = 0.5 * (self.read(z).tanh() + state)
        return self.mean(both), softplus(self.scale(both))


class DeepMarkovModel(nn.Module):
    """Model and guide as Pyro programs with the arguments of :class:`SequenceModel`, of which inputs have no effect:
    x_t is predicted from z_t alone. ``annealing`` scales the KL of both."""

    def __init__(self, keys: int, settings: Settings) -> None:
        super().__init__()
        z, hidden, rnn = settings.z_units, settings.emission_units, settings.rnn_units
        self.emitter = nn.Sequential(
            nn.Linear(z, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, keys)
        )
        self.transition, self.combiner = Transition(z, settings.transition_units), Combiner(z, rnn)
        self.rnn = nn.RNN(keys, rnn, nonlinearity="relu", batch_first=True)
        self.z_0, self.z_q_0 = nn.Parameter(torch.zeros(z)), nn.Parameter(torch.zeros(z))
        self.h_0 = nn.Parameter(torch.zeros(1, 1, rnn))
        self.annealing = 1.0

    def model(self, inputs: Tensor, targets: Tensor, state: None = None, lengths: Tensor | None = None) -> Output:
        real = _real(targets, lengths)
        with pyro.plate("sequences", len(targets), dim=-1):
            with poutine.scale(scale=self.annealing):
                z = pyro.sample("z", GaussianPath(self.transition, self.z_0, real))
            emission = dist.Bernoulli(logits=self.emitter(z)).to_event(1)
            pyro.sample("x", emission.mask(real).to_event(1), obs=targets)
        return Output(emission, z[..., -1, :])

    def guide(self, inputs: Tensor, targets: Tensor, state: None = None, lengths: Tensor | None = None) -> None:
        real = _real(targets, lengths)
        law = GaussianPath(self.combiner, self.z_q_0, real, self._future(targets, real))
        with pyro.plate("sequences", len(targets), dim=-1), poutine.scale(scale=self.annealing):
            pyro.sample("z", law)

    def _future(self, targets: Tensor, real: Tensor) -> Tensor:
        """The state at t of an RNN that reads x_T, …, x_t: ``(B, T, R)``."""
        lengths, steps = real.sum(-1), torch.arange(real.shape[-1], device=real.device)
        turned = torch.where(real, lengths[:, None] - 1 - steps, steps)[..., None]  # and turned again it is as before
        packed = pack_padded_sequence(
            targets.gather(1, turned.expand_as(targets)), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        start = self.h_0.expand(-1, len(targets), -1).contiguous()
        states, _ = pad_packed_sequence(self.rnn(packed, start)[0], batch_first=True, total_length=real.shape[-1])
        return states.gather(1, turned.expand_as(states))


def _real(targets: Tensor, lengths: Tensor | None) -> Tensor:
    if lengths is None:
        return torch.ones(targets.shape[:2], dtype=torch.bool, device=targets.device)
    return real_steps(lengths, targets.shape[1])


class Training:
    """Where a run is: everything that its next step depends on."""

    def __init__(self, data: Sequences, settings: Settings, seed: int) -> None:
        pyro.set_rng_seed(seed)
        self.data, self.settings = data, settings
        self.dmm = DeepMarkovModel(data.targets.shape[-1], settings)
        self.optimizer = ClippedAdam(
            self.dmm.parameters(), settings.learning_rate, settings.betas, weight_decay=settings.weight_decay,
            clip_norm=settings.clip, lrd=settings.decay,
        )  # fmt: skip
        self.order = torch.Generator().manual_seed(seed)
        self.steps, self.rows = 0, []

    def epoch(self) -> float:
        """One pass; the annealed bound in nats per step."""
        how, nats = self.settings, 0.0
        total = how.annealing_epochs * math.ceil(len(self.data) / how.batch_size)
        for batch in self.data.batches(how.batch_size, self.order):
            self.steps += 1
            self.dmm.annealing = min(1.0, how.least_annealing + (1 - how.least_annealing) * self.steps / total)
            loss: Any = Trace_ELBO().differentiable_loss(
                self.dmm.model, self.dmm.guide, batch.inputs, batch.targets, lengths=batch.lengths
            )
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            nats += loss.item()
        return nats / self.data.num_steps

    def save(self, where: Path) -> None:
        content = {"steps": self.steps, "rows": self.rows, "order": self.order.get_state()}
        parts = {"model": self.dmm.state_dict(), "optimizer": self.optimizer.state_dict()}
        checkpoint.save(where, content | parts | {"generators": generators.states()})

    def restore(self, where: Path) -> None:
        kept = checkpoint.load(where)
        self.steps, self.rows = kept["steps"], kept["rows"]
        self.order.set_state(kept["order"])
        self.dmm.load_state_dict(kept["model"])
        self.optimizer.load_state_dict(kept["optimizer"])
        generators.restore(kept["generators"])


@torch.no_grad()
def negative_bound(dmm: DeepMarkovModel, data: Sequences) -> float:
    """The negative ELBO, one sample a sequence, in nats per step."""
    dmm.annealing = 1.0
    batches = data.batches(20)
    losses = [Trace_ELBO().loss(dmm.model, dmm.guide, b.inputs, b.targets, lengths=b.lengths) for b in batches]
    return sum(losses) / data.num_steps


def best(where: Path, keys: int = 88) -> DeepMarkovModel:
    """The best model in validation of the run in that folder."""
    told = json.loads((where / folder.CONFIG).read_text())["settings"]
    dmm = DeepMarkovModel(keys, Settings(**told | {"betas": tuple(told["betas"])}))
    dmm.load_state_dict(checkpoint.load(where / folder.BEST)["model"])
    return dmm


def train(where: Path, minutes: float, seed: int = 0, settings: Settings | None = None) -> None:
    """Train by the clock, going on with what is in the folder."""
    settings = Settings() if settings is None else settings
    corpus = load("jsb")
    assert isinstance(corpus.train, Sequences) and isinstance(corpus.valid, Sequences)
    where.mkdir(parents=True, exist_ok=True)
    with program_settings(), alone(where):
        run = Training(corpus.train, settings, seed)
        last = where / folder.LAST
        if last.exists():
            require_same(where, corpus)
            run.restore(last)
        else:
            began = provenance(torch.device("cpu")) | fingerprint(corpus)
            told = {"minutes": minutes, "seed": seed, "settings": asdict(settings)}
            folder.write_json(where / folder.CONFIG, told | began)
        log.rewrite(where / folder.LOG, run.rows)
        while (epoch := len(run.rows) * settings.epochs_a_validation) < settings.epochs:
            if sum(row["seconds"] for row in run.rows) >= 60 * minutes:
                break
            start = time.perf_counter()
            nats = [run.epoch() for _ in range(settings.epochs_a_validation)][-1]
            row = {"epoch": epoch + settings.epochs_a_validation, "train_nats": nats, "annealing": run.dmm.annealing}
            row["valid_nats"] = negative_bound(run.dmm, corpus.valid)
            row["learning_rate"] = run.optimizer.param_groups[0]["lr"]
            row["seconds"] = time.perf_counter() - start
            if not math.isfinite(row["valid_nats"]):
                raise FloatingPointError(f"epoch {row['epoch']}: the loss is {row['valid_nats']}")
            if all(row["valid_nats"] < other["valid_nats"] for other in run.rows):
                checkpoint.save(where / folder.BEST, {"model": run.dmm.state_dict(), "epoch": row["epoch"]})
            run.rows.append(row)
            log.append(where / folder.LOG, row)
            run.save(last)
            print("dmm  " + "  ".join(f"{name} {value:.5g}" for name, value in row.items()), file=sys.stderr)
        chosen = min(run.rows, key=lambda row: row["valid_nats"])
        epochs = {"epochs": run.rows[-1]["epoch"], "best_epoch": chosen["epoch"], "valid_nats": chosen["valid_nats"]}
        seconds = sum(row["seconds"] for row in run.rows)
        folder.write_json(where / folder.RESULT, {"name": "dmm", "seconds": seconds, "spreads": {}} | epochs)


def main(where: tyro.conf.Positional[Path], minutes: float = 60.0, seed: int = 0) -> None:
    """Train the Deep Markov Model on the chorales, or go on with it.

    Args:
        where: the folder.
        minutes: of training and validation, by the clock.
        seed: of weights, noise and order.
    """
    torch.set_num_threads(1)
    train(where, minutes, seed)


if __name__ == "__main__":
    tyro.cli(main)
