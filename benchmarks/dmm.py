"""Pyro's Deep Markov Model with its published settings on this library's data: a baseline for the guides.

It is a contestant of ``python benchmarks/music.py jsb``. The networks, their
sizes and the optimizer are those of Pyro's example ``dmm`` (Krishnan, Shalit, Sontag, *Structured Inference Networks
for Nonlinear State Space Models*, AAAI 2017, variant DKS; its dropout has no effect on an RNN of one layer). What
differs: a trajectory is one sample site instead of one per step, nothing is computed for padding, the guide has the
faster gradient of ``dmm_scan.py``, every scale is at least ``MIN_SCALE``, and the best model in validation is used
instead of the last.

    z_t ~ Normal(gated transition of z_{t-1}),  x_t ~ Bernoulli(emitter of z_t),  q(z_t | z_{t-1}, x_{t:T})
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import dmm_scan
import pyro
import pyro.distributions as dist
import torch
from dmm_scan import Packing
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.infer import Trace_ELBO
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from noisin_pyro._files import exclusive_lock, write_json
from noisin_pyro.data import Sequences, load
from noisin_pyro.models import Output, real_steps
from noisin_pyro.training.loop import AfterEpoch
from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.rundir import checkpointer, metrics_log
from noisin_pyro.training.rundir.layout import BEST, CONFIG, LAST, LOG, RESULT, fingerprint, require_same_data

MIN_SCALE = 1e-5
"""Added to every scale, which could round to 0 early in training, so that the loss would not be finite."""


@dataclass(frozen=True)
class Settings:
    """The defaults of Pyro's example, and the number of epochs between validations."""

    z_units: int = 100
    emission_units: int = 100
    transition_units: int = 200
    rnn_units: int = 600
    batch_size: int = 20
    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.96, 0.999)
    clip: float = 10.0  # maximum absolute value of each entry of the gradient, whose loss is the batch's total nats
    decay: float = 0.99996  # of the learning rate, per step
    weight_decay: int = 2
    epochs: int = 5000
    annealing_epochs: int = 1000
    initial_annealing: float = 0.2
    validate_every: int = 10


class GaussianPath(TorchDistribution):
    """z_{1:T} with z_t ~ Normal(*step(z_{t-1}, context_t)): batch shape ``(..., B)``, event shape ``(T, Z)``.

    Padding is 0, and has no density. The context is packed, ``(N, R)``.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}  # type: ignore[override]
    support: Any = dist.constraints.independent(dist.constraints.real, 2)  # type: ignore[override]
    has_rsample = True

    def __init__(self, step: Any, start: Tensor, packing: Packing, context: Tensor | None = None, batch: Any = None):
        self.step, self.start, self.packing, self.context = step, start, packing, context
        self._last_sample: tuple[Any, Any] = (None, None)
        sequences, steps = packing.real.shape
        super().__init__(torch.Size([sequences]) if batch is None else batch, torch.Size([steps, len(start)]))

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> GaussianPath:
        return GaussianPath(self.step, self.start, self.packing, self.context, torch.Size(batch_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:  # type: ignore[override]
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        noise = self.packing.pack(torch.randn(shape, dtype=self.start.dtype, device=self.start.device))
        # The scan keeps what its gradient needs, which would be too much for the many particles of an evaluation.
        scans = torch.is_grad_enabled() and noise.dim() == 2 and isinstance(self.step, Combiner)
        run = self.step.scan if scans else self._loop
        path, *parameters = run(self.packing.counts, self.start, noise, *self._contexts(noise))
        path = self.packing.unpack(path)
        self._last_sample = path, parameters
        return path

    def _loop(self, counts: list[int], start: Tensor, noise: Tensor, *contexts: Tensor) -> Iterator[Tensor]:
        """z, its mean and its scale, from noise and contexts, all packed."""
        z, steps = start.expand_as(noise[: counts[0]]), []
        for noise_t, *context in zip(*(part.split(counts) for part in (noise, *contexts)), strict=True):
            mean, scale = self.step(z[: len(noise_t)], *context)
            z = mean + scale * noise_t
            steps.append((z, mean, scale))
        return (torch.cat(part) for part in zip(*steps, strict=True))

    def log_prob(self, value: Tensor) -> Tensor:
        """Evaluates all steps in parallel; mean and scale of the last sample are reused."""
        z = self.packing.pack(value)
        if self._last_sample[0] is value:
            mean, scale = self._last_sample[1]
        else:
            before = torch.cat([self.start.expand_as(value[..., :1, :]), value[..., :-1, :]], -2)
            mean, scale = self.step(self.packing.pack(before), *self._contexts(z))
        steps = dist.Normal(mean, scale).log_prob(z).sum(-1, keepdim=True)
        return self.packing.unpack(steps).sum((-2, -1))

    def _contexts(self, steps: Tensor) -> list[Tensor]:
        """The context with as many dimensions as the packed steps, in a list, which is empty without a context."""
        if self.context is None:
            return []
        return [self.context.view(len(self.context), *[1] * (steps.dim() - 2), -1)]


class Transition(nn.Module):
    """p(z_t | z_{t-1}): gates between a linear map, initialized to the identity, and a network's proposal."""

    def __init__(self, units: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(units, hidden), nn.ReLU(), nn.Linear(hidden, units), nn.Sigmoid())
        self.proposal = nn.Sequential(nn.Linear(units, hidden), nn.ReLU(), nn.Linear(hidden, units))
        self.linear, self.scale = nn.Linear(units, units), nn.Linear(units, units)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        gate, proposal = self.gate(z), self.proposal(z)
        return (1 - gate) * self.linear(z) + gate * proposal, MIN_SCALE + softplus(self.scale(proposal.relu()))


class Combiner(nn.Module):
    """q(z_t | z_{t-1}, x_{t:T}), where the RNN's state at t summarizes x_{t:T}."""

    def __init__(self, units: int, rnn_units: int) -> None:
        super().__init__()
        self.project = nn.Linear(units, rnn_units)
        self.mean, self.scale = nn.Linear(rnn_units, units), nn.Linear(rnn_units, units)

    def forward(self, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        combined = 0.5 * (self.project(z).tanh() + state)
        return self.mean(combined), MIN_SCALE + softplus(self.scale(combined))

    def scan(self, counts: list[int], start: Tensor, noise: Tensor, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z, its mean and its scale, as by the loop over steps, with a faster gradient."""
        output = [torch.cat([self.mean.weight, self.scale.weight]), torch.cat([self.mean.bias, self.scale.bias])]
        weights = dmm_scan.Weights(self.project.weight, self.project.bias, *output)
        return dmm_scan.sample(counts, start, noise, states, weights, MIN_SCALE)


class DeepMarkovModel(nn.Module):
    """Model and guide with the arguments of :class:`SequenceModel`.

    ``inputs`` have no effect, since x_t depends on z_t alone. ``annealing`` is the weight of the KL term.
    """

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
        packing = _packing(targets, lengths)
        with pyro.plate("sequences", len(targets), dim=-1):
            with poutine.scale(scale=self.annealing):
                z = pyro.sample("z", GaussianPath(self.transition, self.z_0, packing))
            emission = dist.Bernoulli(logits=packing.unpack(self.emitter(packing.pack(z)))).to_event(1)
            pyro.sample("x", emission.mask(packing.real).to_event(1), obs=targets)
        return Output(emission, z[..., -1, :])

    def guide(self, inputs: Tensor, targets: Tensor, state: None = None, lengths: Tensor | None = None) -> None:
        packing = _packing(targets, lengths)
        posterior = GaussianPath(self.combiner, self.z_q_0, packing, self._future(targets, packing))
        with pyro.plate("sequences", len(targets), dim=-1), poutine.scale(scale=self.annealing):
            pyro.sample("z", posterior)

    def _future(self, targets: Tensor, packing: Packing) -> Tensor:
        """States of an RNN that reads each sequence backwards, packed: that at t has read x_T, …, x_t."""
        rnn, backwards = self.rnn, targets.flatten(0, 1)[packing.reverse_index]
        inputs = linear(backwards, rnn.weight_ih_l0, rnn.bias_ih_l0 + rnn.bias_hh_l0)
        states = dmm_scan.relu_rnn(packing.counts, self.h_0.flatten(), inputs, rnn.weight_hh_l0)
        padded = states.new_zeros(packing.real.numel(), states.shape[-1]).index_copy(0, packing.reverse_index, states)
        return padded.index_select(0, packing.index)


def _packing(targets: Tensor, lengths: Tensor | None) -> Packing:
    if lengths is None:
        return Packing(torch.ones(targets.shape[:2], dtype=torch.bool, device=targets.device))
    return Packing(real_steps(lengths, targets.shape[1]))


class Training:
    """A run with its state: everything that the next step depends on."""

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
        """Train for an epoch; returns the annealed bound in nats per step."""
        settings, nats = self.settings, 0.0
        total = settings.annealing_epochs * math.ceil(len(self.data) / settings.batch_size)
        for batch in self.data.batches(settings.batch_size, self.order):
            self.steps += 1
            self.dmm.annealing = min(
                1.0, settings.initial_annealing + (1 - settings.initial_annealing) * self.steps / total
            )
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
        checkpointer.save(where, content | parts | {"generators": checkpointer.rng_state()})

    def restore(self, where: Path) -> None:
        content = checkpointer.load(where)
        self.steps, self.rows = content["steps"], content["rows"]
        self.order.set_state(content["order"])
        self.dmm.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        checkpointer.set_rng_state(content["generators"])


@torch.no_grad()
def negative_bound(dmm: DeepMarkovModel, data: Sequences) -> float:
    """The negative ELBO by one sample per sequence, in nats per step."""
    dmm.annealing = 1.0
    batches = data.batches(20)
    losses = [Trace_ELBO().loss(dmm.model, dmm.guide, b.inputs, b.targets, lengths=b.lengths) for b in batches]
    return sum(losses) / data.num_steps


def best(where: Path, keys: int = 88) -> DeepMarkovModel:
    """Load the best model in validation of the run in a folder."""
    settings = json.loads((where / CONFIG).read_text())["settings"]
    dmm = DeepMarkovModel(keys, Settings(**settings | {"betas": tuple(settings["betas"])}))
    dmm.load_state_dict(checkpointer.load(where / BEST)["model"])
    return dmm


def train(where: Path, data: str, seed: int, settings: Settings, after_epoch: AfterEpoch = lambda rows: None) -> None:
    """Train, resuming the run in the folder if there is one; ``after_epoch`` is called after each validation."""
    corpus = load(data)
    assert isinstance(corpus.train, Sequences) and isinstance(corpus.valid, Sequences)
    where.mkdir(parents=True, exist_ok=True)
    with program_settings(), exclusive_lock(where):
        run = Training(corpus.train, settings, seed)
        last = where / LAST
        if last.exists():
            require_same_data(where, corpus)
            run.restore(last)
        else:
            config = {"seed": seed, "settings": asdict(settings)}
            config |= provenance(torch.device("cpu")) | fingerprint(corpus)
            write_json(where / CONFIG, config)
        metrics_log.rewrite(where / LOG, run.rows)
        while (epoch := len(run.rows) * settings.validate_every) < settings.epochs:
            start = time.perf_counter()
            nats = [run.epoch() for _ in range(settings.validate_every)][-1]
            row = {"epoch": epoch + settings.validate_every, "train_nats": nats, "annealing": run.dmm.annealing}
            row["valid_nats"] = negative_bound(run.dmm, corpus.valid)
            row["learning_rate"] = run.optimizer.param_groups[0]["lr"]
            row["seconds"] = time.perf_counter() - start
            if not math.isfinite(row["valid_nats"]):
                raise FloatingPointError(f"epoch {row['epoch']}: the loss is {row['valid_nats']}")
            if all(row["valid_nats"] < other["valid_nats"] for other in run.rows):
                checkpointer.save(where / BEST, {"model": run.dmm.state_dict(), "epoch": row["epoch"]})
            run.rows.append(row)
            metrics_log.append(where / LOG, row)
            run.save(last)
            print("dmm  " + "  ".join(f"{name} {value:.5g}" for name, value in row.items()), file=sys.stderr)
            after_epoch(run.rows)
        chosen = min(run.rows, key=lambda row: row["valid_nats"])
        epochs = {"epochs": run.rows[-1]["epoch"], "best_epoch": chosen["epoch"], "valid_nats": chosen["valid_nats"]}
        seconds = sum(row["seconds"] for row in run.rows)
        write_json(where / RESULT, {"name": "dmm", "seconds": seconds, "spreads": {}} | epochs)
