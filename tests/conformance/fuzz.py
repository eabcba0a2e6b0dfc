"""Random combinations of every option of a model: each agrees with the loop and the unrolled view, or is refused.

Bounds and scores are computed in several ways, with masks and missing targets, whose values must not matter.

``python -m tests.conformance.fuzz --combinations 5000`` runs many; ``test_fuzz.py`` a fixed sample.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import math
import random
import re
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.models import CELLS, Dropout, NoisyRNN, SequenceModel, Spread
from noisin_pyro.recurrence.dispatch import BACKENDS

BATCH, STEPS, FEATURES, UNITS, OUTPUTS = 3, 4, 2, 3, 2
ROWS = torch.tensor([True, False, True])  # of sequences that a mask leaves
FAMILIES = [str(nz.noise.get(name, entry.form)) for name in nz.noise.families() for entry in nz.noise.describe(name)]
SPREADS: dict[str, Callable[[], float | Spread]] = {
    "zero": lambda: 0.0,
    "fixed": lambda: 0.3,
    "small": lambda: 0.01,
    "learned": lambda: Spread(0.4, learn=True),
    "prior": lambda: Spread(prior=dist.Beta(2.0, 3.0)),
}
REMEDY = re.compile(
    r"; (use|give|pass|drop|leave|omit|fix|condition|open|make|mask|convert)\b|Try one of the following fixes: -"
)  # a clause that begins with what to do
TOLERANCE = {torch.float64: 1e-7, torch.float32: 2e-3}
UNROLLED = 5  # times the tolerance: of densities of ε = (z - h) / γ at small γ
ROUNDED = 0.25  # of products in bfloat16, relative to a scale of at least 1


@dataclass(frozen=True)
class Combination:
    """One value of each option."""

    seed: int
    cell: str
    noise: str
    num_layers: int
    spreads: tuple[str, ...]
    input_spread: str
    feedback: bool
    backend: str
    dtype: torch.dtype
    matmul_precision: str
    regularizer: str
    weight_prior: str
    emission: str
    lengths: bool
    mask: bool
    state: str
    particles: int
    guide: str
    method: str
    log_probs: bool
    bound: str
    missing: bool

    @staticmethod
    def draw(seed: int) -> Combination:
        draw = random.Random(seed)
        layers, feedback, noise = draw.choice((1, 1, 2, 3)), draw.random() < 0.8, draw.choice(["gaussian", *FAMILIES])
        spreads = tuple(draw.choices(list(SPREADS), (1, 3, 1, 2, 1), k=layers))
        if not feedback and draw.random() < 0.8:  # otherwise it is refused: noise on the output alone
            spreads = (*("zero",) * (layers - 1), spreads[-1])
        native_cell = ("sigmoid",) if noise.endswith("native") and draw.random() < 0.8 else tuple(CELLS)
        return Combination(
            seed=seed,
            cell=draw.choice(native_cell),
            noise=noise,
            num_layers=layers,
            spreads=spreads,
            input_spread=draw.choice(("zero", *SPREADS)) if feedback and draw.random() < 0.3 else "zero",
            feedback=feedback,
            backend=draw.choice((*BACKENDS, "scan")),
            dtype=draw.choice((torch.float64, torch.float64, torch.float32)),
            matmul_precision="bfloat16" if draw.random() < 0.1 else "float32",
            regularizer=draw.choice(("none",) * 5 + ("variational-dropout", "D", "recurrent")),
            weight_prior=draw.choice(("dirac", "dirac", "dirac", "normal")),
            emission=draw.choice(("categorical", "bernoulli", "gaussian", "poisson")),
            lengths=draw.random() < 0.4,
            mask=draw.random() < 0.3,
            state=draw.choice(("none", "none", "given", "of particles")),
            particles=draw.choice((0, 0, 1, 2)),
            guide=draw.choice(("none",) * 5 + ("mean-field", "filtering", "smoothing", "AutoNormal")),
            method=draw.choice(("mean", "ensemble", "importance", "particle-filter")),
            log_probs=draw.random() < 0.3,
            bound=draw.choice(("elbo", "elbo", "importance", "filtering")),
            missing=draw.random() < 0.4,
        )

    def reference(self) -> Combination:
        """The same on the loop, without rounding."""
        return dataclasses.replace(self, backend="loop", matmul_precision="float32")

    @property
    def tolerance(self) -> float:
        """Of numbers, relative to a scale of at least 1."""
        return ROUNDED if self.matmul_precision == "bfloat16" else TOLERANCE[self.dtype]

    def model(self) -> SequenceModel:
        torch.default_generator.manual_seed(self.seed)
        dropout = Dropout(recurrent=0.4) if self.regularizer == "recurrent" else self.regularizer
        rnn = NoisyRNN(
            FEATURES,
            UNITS,
            self.num_layers,
            self.cell,
            self.noise,
            [SPREADS[spread]() for spread in self.spreads],
            SPREADS[self.input_spread](),
            self.feedback,
            backend=self.backend,
            matmul_precision=self.matmul_precision,
            regularizer=dropout,
        )
        if self.cell == "relu" and ":" in self.noise:  # as a rule: a mean of 0 has no density
            for layer in range(self.num_layers):
                torch.nn.init.constant_(getattr(rnn, f"bias_ih_l{layer}"), 3.0)
        return SequenceModel(rnn, self.emission, OUTPUTS, self.weight_prior).to(self.dtype)

    @functools.cached_property
    def data(self) -> dict[str, Any]:
        """The arguments of the model. Missing targets are NaN, or not a class."""
        torch.default_generator.manual_seed(self.seed + 1)
        inputs = torch.randn(BATCH, STEPS, FEATURES, dtype=self.dtype)
        counts = torch.randint(2, (BATCH, STEPS) + (OUTPUTS,) * (self.emission != "categorical"))
        lengths = torch.randint(STEPS + 1, (BATCH,)) if self.lengths else None
        particles = (self.particles,) if self.state == "of particles" and self.particles else ()
        parts = tuple(
            torch.rand(self.num_layers, *particles, BATCH, UNITS, dtype=self.dtype)
            for _ in range(1 + CELLS[self.cell].has_memory)
        )
        targets = counts if self.emission == "categorical" else counts.to(self.dtype)
        missing = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0], [1, 1, 1, 1]]) == 0
        if self.missing:
            is_class = self.emission == "categorical"
            targets = targets.masked_fill(missing if is_class else missing[..., None], 99 if is_class else math.nan)
        return {
            "inputs": inputs,
            "targets": targets,
            "state": None if self.state == "none" else parts if len(parts) == 2 else parts[0],
            "lengths": lengths,
        } | ({"mask": ~missing} if self.missing else {})

    @property
    def other_data(self) -> dict[str, Any]:
        """The same with other values of the missing targets."""
        if not self.missing:
            return self.data
        mask, targets = self.data["mask"], self.data["targets"]
        return self.data | {"targets": targets.where(mask.reshape(*mask.shape, *[1] * (targets.dim() - 2)), 1)}


def program(combination: Combination, model: Any, values: dict[str, Tensor] | None = None) -> Callable[[], Any]:
    """The model in its particles and under its mask, given values of its sites."""
    particles = combination.particles

    def run() -> Any:
        with (
            pyro.plate("particles", particles, dim=-2) if particles else nullcontext(),
            poutine.mask(mask=ROWS) if combination.mask else nullcontext(),
        ):
            return model(**combination.data)

    return run if values is None else poutine.condition(run, values)


def log_density(trace: poutine.Trace) -> Tensor:
    trace.compute_log_prob()
    return sum(
        (site["log_prob_sum"].double() for site in trace.nodes.values() if "log_prob_sum" in site), torch.zeros(())
    )


def own_view(model: SequenceModel) -> Any:
    """The view with the noise as sites, where the family has innovations."""
    return nz.innovations(model) if model.rnn.noise.has_innovations else model


def sample(combination: Combination, model: SequenceModel) -> dict[str, Tensor]:
    """Values of the latent sites of the view."""
    torch.default_generator.manual_seed(combination.seed + 2)
    sites = poutine.trace(program(combination, own_view(model))).get_trace()
    return {
        name: sites.nodes[name]["value"].detach()
        for name in sites.stochastic_nodes
        if name not in ("sequences", "particles")
    }


def gradients(combination: Combination, value: Tensor, model: SequenceModel) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    if combination.matmul_precision == "bfloat16" or not value.requires_grad:
        return {}
    grads = torch.autograd.grad(value, parameters, allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for name, p, g in zip(names, parameters, grads, strict=True)}


def run(
    combination: Combination, model: SequenceModel, values: dict[str, Tensor]
) -> tuple[poutine.Trace, dict[str, Tensor]]:
    """A trace given the noise, and its trajectories."""
    trace: Any = poutine.trace(program(combination, own_view(model), values)).get_trace()
    return trace, {name: site["value"] for name, site in trace.nodes.items() if re.fullmatch(r"z_\d+", name)}


def states(combination: Combination, model: SequenceModel, values: dict[str, Tensor]) -> dict[str, Any]:
    """Trajectories, final states, the log-density and gradients, all given the noise."""
    trace, paths = run(combination, model, values)
    ends = trace.nodes["_RETURN"]["value"].state
    ends = ends if isinstance(ends, tuple) else (ends,)
    density = log_density(trace)
    total = density + sum(part.double().sin().sum() for part in ends)
    return {"z": paths, "end": ends, "log p": density, "gradient": gradients(combination, total, model)}


def unrolled(combination: Combination, model: SequenceModel, values: dict[str, Tensor]) -> dict[str, Any]:
    """The log-density of given trajectories, in one site a layer and in one a step."""
    rest = {name: value for name, value in values.items() if not re.fullmatch(r"z_\d+(_noise)?", name)}
    with torch.no_grad():
        _, paths = run(combination, model, values)
        fixed = poutine.condition(model, paths)
        one, many = (
            log_density(poutine.trace(program(combination, view, rest)).get_trace())
            for view in (fixed, nz.unroll(fixed))
        )
    faults = differences(many, one, UNROLLED * combination.tolerance, "unrolled")
    assert combination.matmul_precision == "bfloat16" or not faults, faults
    return {}


def make_guide(combination: Combination, model: SequenceModel) -> Any:
    """The guide, away from the prior at which it starts."""
    if combination.guide == "none":
        return None
    torch.default_generator.manual_seed(combination.seed + 3)
    guide = nz.guides.get(combination.guide, model)
    for parameter in guide.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return guide.to(combination.dtype)


def bound(combination: Combination, model: SequenceModel, values: dict[str, Tensor]) -> dict[str, Any]:
    """The bound and its gradient, with the same random numbers."""
    guide, samples = make_guide(combination, model), max(1, combination.particles)
    elbo = nz.PriorAsGuide_ELBO(samples, bound=combination.bound, max_plate_nesting=1)
    state = {"state": None} if combination.state == "of particles" else {}

    def seeded(compute: Callable[..., Any], data: dict[str, Any]) -> Any:
        torch.default_generator.manual_seed(combination.seed + 4)
        # handlers around the call are not seen by the filter
        is_masked = combination.mask and combination.bound != "filtering"
        with poutine.mask(mask=ROWS) if is_masked else nullcontext():
            return compute(**data | state)

    if combination.guide == "AutoNormal":  # its first run makes its parameters
        seeded(elbo(model, guide), combination.data)
    loss = seeded(elbo(model, guide), combination.data)
    own = loss.detach()
    assert torch.equal(seeded(elbo(model, guide), combination.other_data).detach(), own), "missing targets matter"
    if combination.bound == "elbo":  # in another way: from the weights of each sample and sequence
        weighed = attempt(lambda: seeded(functools.partial(elbo.log_weights, model, guide), combination.data))
        if not isinstance(weighed, ValueError):
            faults = differences(-weighed[0].sum() / samples, own, combination.tolerance, "the weights' mean")
            assert not faults, faults
    return {"loss": loss, "gradient": gradients(combination, loss, model)}


def score(combination: Combination, model: SequenceModel, values: dict[str, Tensor]) -> dict[str, Any]:
    """What ``evaluate`` returns, with the same random numbers."""
    lengths = combination.data["lengths"]
    lengths = None if lengths is None else lengths.clamp(min=1)
    longest = STEPS if lengths is None else int(lengths.max())
    scored = torch.arange(longest) < (torch.full((BATCH,), STEPS) if lengths is None else lengths)[:, None]
    if combination.missing:
        scored = scored & combination.data["mask"][:, :longest]
    if combination.mask:
        scored = scored & ROWS[:, None]
    program = poutine.mask(model, mask=ROWS) if combination.mask else model

    def evaluated(method: str, data: dict[str, Any]) -> nz.inference.Evaluation:
        options: dict[str, Any] = {} if method == "mean" else {"num_samples": 4}
        if method in ("importance", "particle-filter") and method == combination.method:
            options["guide"] = make_guide(combination, model)
        torch.default_generator.manual_seed(combination.seed + 5)
        sequences = nz.data.Sequences(data["inputs"], data["targets"], lengths, data.get("mask"))
        return nz.evaluate(program, sequences, method, log_probs=combination.log_probs, **options)

    result = evaluated(combination.method, combination.data)
    consistent(result, scored)
    same = evaluated(combination.method, combination.other_data)
    assert same == result and same.fingerprint == result.fingerprint, "missing targets matter"
    for method in ("mean", "ensemble", "importance", "particle-filter"):
        other = attempt(evaluated, method, combination.data)
        if isinstance(other, ValueError):
            continue
        consistent(other, scored)
        assert other.fingerprint == result.fingerprint, f"{method} scores other targets"
        if {result.kind, other.kind} == {"exact"}:
            faults = differences(other.totals, result.totals, combination.tolerance, method)
            assert not faults, faults
    return {"nats": torch.tensor(result.nats_per_step, dtype=torch.double), "totals": result.totals}


def consistent(result: nz.inference.Evaluation, scored: Tensor) -> None:
    """Counts are those of the scored steps, and sums are equal however they are taken."""
    assert result.totals is not None and result.lengths is not None
    assert torch.equal(result.lengths, scored.sum(1)) and result.num_steps == int(scored.sum()), result
    faults = differences(
        torch.tensor(-result.nats_per_step * result.num_steps, dtype=torch.double), result.totals.sum(), 1e-6
    )
    if result.log_probs is not None:
        assert not result.log_probs[~scored].any(), "steps that are not scored have log-probabilities"
        faults += differences(result.log_probs.sum(1), result.totals, 1e-6, "log_probs")
    assert not faults, faults


STAGES = (states, unrolled, bound, score)


def differences(actual: Any, expected: Any, tolerance: float, where: str = "") -> list[str]:
    """Where two nested results differ."""
    if isinstance(expected, dict):
        if actual.keys() != expected.keys():
            return [f"{where}: {sorted(actual)} instead of {sorted(expected)}"]
        return [
            each for key in expected for each in differences(actual[key], expected[key], tolerance, f"{where} {key}")
        ]
    if isinstance(expected, tuple):
        pairs = enumerate(zip(actual, expected, strict=True))
        return [each for i, pair in pairs for each in differences(*pair, tolerance, f"{where} {i}")]
    if actual.shape != expected.shape:
        return [f"{where}: shape {tuple(actual.shape)} instead of {tuple(expected.shape)}"]
    scale = expected.detach().double().abs().clamp(min=1.0)
    error = ((actual.detach().double() - expected.detach().double()) / scale).abs()
    if actual.isnan().any() or not bool((error.nan_to_num(posinf=0.0) <= tolerance).all()):
        return [f"{where}: {float(error.max()):.2g}"]
    return []


def attempt(run: Callable[..., Any], *args: Any) -> Any:
    """The result, or the ValueError; any other error is a fault."""
    try:
        return run(*args)
    except ValueError as error:
        return error


def check(combination: Combination) -> list[str]:
    """For each stage ``"agrees"``, or ``"refused"`` with the message.

    Raises:
        AssertionError: for numbers that differ from the loop's, a refusal without a remedy, or one that the loop does
            not share although it names neither backend nor precision.
    """
    first, loop = combination, combination.reference()
    models = [attempt(each.model) for each in (first, loop)]
    if any(isinstance(model, ValueError) for model in models):
        return [refused(combination, *models)]
    models[1].load_state_dict(models[0].state_dict())
    values = attempt(sample, first, models[0])
    if isinstance(values, ValueError):
        return [refused(combination, values, attempt(sample, loop, models[1]))]
    verdicts = []
    for stage in STAGES:
        # A view is compared with another view of the same model, everything else with the loop.
        pairs = [(first, models[0])] if stage is unrolled else [(first, models[0]), (loop, models[1])]
        results = [attempt(stage, *pair, values) for pair in pairs]
        if any(isinstance(result, ValueError) for result in results):
            verdicts.append(f"{stage.__name__} {refused(combination, results[0], results[-1])}")
            continue
        if results[0].get("gradient") == {}:  # rounded, or without a gradient
            results[-1]["gradient"] = {}
        faults = differences(results[0], results[-1], combination.tolerance, stage.__name__)
        assert not faults, faults
        verdicts.append(f"{stage.__name__} agrees")
    return verdicts


def refused(combination: Combination, first: Any, second: Any) -> str:
    """The message of a refusal, after a check that both refuse or that the first one names its reason."""
    if not isinstance(first, ValueError):
        raise AssertionError(f"only the loop refuses this: {second}")
    message = " ".join(str(first).partition("Trace Shapes")[0].split())  # Pyro adds the trace, and where it happened
    assert REMEDY.search(message), f"no remedy: {message}"
    named = combination.backend in message or combination.matmul_precision in message
    assert isinstance(second, ValueError) or named, f"the loop accepts this: {message}"
    return f"refused: {message}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--combinations", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pyro.settings.set(module_local_params=True)
    verdicts: collections.Counter[str] = collections.Counter()
    for seed in range(options.first, options.first + options.combinations):
        combination = Combination.draw(seed)
        try:
            verdicts.update(re.sub(r"\d+(\.\d+)?", "N", verdict)[:400] for verdict in check(combination))
        except Exception as error:
            verdicts["FAULT"] += 1
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
            print(f"{combination}\n  {type(error).__name__} in {where}: {str(error)[:600]}", flush=True)
    for verdict, count in verdicts.most_common():
        print(f"{count:6} {verdict}")
    return int(verdicts["FAULT"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
