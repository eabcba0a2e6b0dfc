"""Dropout by name: masks against the papers' definitions, and layers against the textbook loop with given masks."""

import math
from collections.abc import Callable
from dataclasses import replace

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.inference.traces import all_sites
from noisin_pyro.models import CELLS, Dropout, Mask
from noisin_pyro.models.dropout import get

from .. import textbook
from ..small_layers import (
    BATCH,
    LENGTHS,
    STEPS,
    UNITS,
    close,
    in_plates,
    make_inputs,
    make_rnn,
    make_state,
    parts,
    returned,
    traced,
)

ALL = Dropout(0.25, 0.4, 0.3, 0.5)
WORDS = 11


def masks(model: Callable, *given: object, **more: object) -> dict[str, Tensor]:
    """Every mask of one run."""
    trace = poutine.trace(model).get_trace(*given, **more)
    return {site["name"]: site["value"] for site in all_sites(trace) if isinstance(site["fn"], Mask)}


def make_model(regularizer: str | Dropout = ALL, **options: object) -> nz.LanguageModel:
    pyro.set_rng_seed(1)
    return nz.LanguageModel(WORDS, UNITS, regularizer=regularizer, **options).double()  # type: ignore[arg-type]


def make_words(batch: int = BATCH) -> Tensor:
    return torch.randint(WORDS, (batch, STEPS))


def test_default_rates_are_those_of_the_papers() -> None:
    assert get("D") == Dropout(embedding=0.0, input=0.5, recurrent=0.4, output=0.5)
    assert get("variational-dropout") == Dropout(0.3, 0.5, 0.3, 0.5)
    assert get("variational-dropout", 0.2) == Dropout(0.2, 0.2, 0.2, 0.2)
    assert not get("none").drops and not get("variational-dropout", 0.0).drops


@pytest.mark.parametrize(
    ("name", "rate", "named"),
    [
        ("dropout", None, "regularizer must be one of none, variational-dropout, D"),
        ("D", 0.5, "rates are the published paper's"),
        ("none", 0.5, "rate of regularizer 'variational-dropout'"),
        (ALL, 0.5, "rate of regularizer 'variational-dropout'"),
        ("variational-dropout", 1.0, "less than 1, got 1.0"),
        ("variational-dropout", float("nan"), "got nan"),
        ("variational-dropout", True, "got True"),
    ],
)
def test_invalid_rates_are_refused(name: str, rate: float | None, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        get(name, rate)


def test_embedding_dropout_of_a_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="give it to a LanguageModel"):
        nz.NoisyRNN(3, 4, regularizer=Dropout(embedding=0.1))
    assert nz.NoisyRNN(3, 4, regularizer="variational-dropout").dropout == Dropout(0.0, 0.5, 0.3, 0.5)


def test_mask_is_multiplicative_bernoulli_noise_with_mean_one() -> None:
    rate, ones = 0.3, torch.ones(5, 4, dtype=torch.float64)
    law = Mask(rate, ones)
    noise = nz.noise.get("bernoulli:multiplicative")(ones, math.sqrt(rate / (1 - rate)))
    drawn = law.sample(torch.Size([7]))
    assert drawn.unique().tolist() == [0.0, 1 / 0.7]
    close(law.log_prob(drawn), noise.log_prob(drawn))
    dropped = (drawn == 0).double().sum(-1)
    close(law.log_prob(drawn), dropped * math.log(0.3) + (4 - dropped) * math.log(0.7))
    close(law.mean, noise.mean, 0.0)
    close(law.variance, noise.variance)
    assert torch.equal(law.clean(), ones) and law.has_rsample and law.support.is_discrete


@pytest.mark.parametrize("name", ["variational-dropout", "D"])
def test_masks_have_their_rates_and_scale(name: str) -> None:
    # at each of the sites a two-sided z-test, false alarm rate 1e-4: |z| < 3.89 of the number of zeros
    pyro.set_rng_seed(0)
    model = nz.LanguageModel(200, 100, num_layers=2, regularizer=name)
    rates = get(name)
    result = masks(model, torch.randint(200, (64, 3)))
    where = {"input": rates.input, "recurrent": rates.recurrent}
    expected = {f"z_{layer}_{what}_mask": rate for layer in (1, 2) for what, rate in where.items()}
    expected |= {"z_output_mask": rates.output} | ({"word_mask": rates.embedding} if rates.embedding else {})
    assert result.keys() == expected.keys()
    for site, mask in result.items():
        rate = expected[site]
        assert mask.shape == (64, 200 if site == "word_mask" else 100)
        assert mask.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])
        zeros = float((mask == 0).sum())
        assert abs(zeros - rate * mask.numel()) < 3.89 * math.sqrt(rate * (1 - rate) * mask.numel())
        assert len(mask.unique(dim=0)) == 64  # each sequence has its own


def test_mask_is_the_same_at_every_step() -> None:
    model = make_model(Dropout(embedding=0.4, input=0.4, output=0.4), noise="gaussian", spread=0.3)
    words = make_words()
    read: list[Tensor] = []
    hook = model.rnn.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    emitted: list[Tensor] = []
    model.emission.register_forward_pre_hook(lambda _, given: emitted.append(given[0]))
    trace = poutine.trace(model).get_trace(words)
    hook.remove()
    word_mask, output = (trace.nodes[name]["value"] for name in ("word_mask", "z_output_mask"))
    for b in range(BATCH):
        for t in range(STEPS):
            word = words[b, t]
            close(read[0][b, t], model.embedding.weight[word] * word_mask[b, word])
            close(emitted[0][b, t], trace.nodes["z_1"]["value"][b, t] * output[b], 0.0)


def textbook_run(
    rnn: nz.NoisyRNN, x: Tensor, given: dict[str, Tensor], noises: list[Tensor], state: object
) -> tuple[Tensor, list[textbook.Layer]]:
    """The definition, one step at a time: what each layer reads is masked, and of z_{t-1} what W_hh multiplies."""
    layers = []
    for layer in range(1, rnn.num_layers + 1):
        z, c = textbook.start(rnn, layer, x, state)  # type: ignore[arg-type]
        inside, recurrent = given[f"z_{layer}_input_mask"], given[f"z_{layer}_recurrent_mask"]
        w_ih, w_hh, b_ih, b_hh = textbook.weights(rnn, layer)
        means, path, memories = [], [], []
        for t in range(x.shape[-2]):
            # W (m ⊙ z) is (W diag m) z, a matrix for each sequence; z itself goes in unmasked, for what carries it over
            rows = []
            for b in range(x.shape[-3]):
                own = [w_ih * inside[b], w_hh * recurrent[b], b_ih, b_hh]
                memory = None if c is None else c[b]
                rows.append(textbook.step(rnn.cell.name, own, x[b, t], z[b], memory))
            mean = torch.stack([row for row, _ in rows])
            c = None if c is None else torch.stack([row for _, row in rows if row is not None])
            z = mean + textbook.scale(str(rnn.noise), mean, 0.3) * noises[layer - 1][:, t]
            means.append(mean)
            path.append(z)
            memories.append(c)
        x = textbook.stack(path)
        layers.append(textbook.Layer(textbook.stack(means), x, None if c is None else textbook.stack(memories)))  # type: ignore[arg-type]
    return x * given["z_output_mask"].unsqueeze(-2), layers


@pytest.mark.parametrize("backend", ["scan", "loop"])
@pytest.mark.parametrize("noise", ["gaussian", "gaussian:multiplicative", "bernoulli:multiplicative"])
@pytest.mark.parametrize("cell", CELLS)
def test_layers_with_noise_and_masks_agree_with_the_textbook_loop(cell: str, noise: str, backend: str) -> None:
    rates = replace(ALL, embedding=0.0)
    rnn = make_rnn(cell, noise, spread=0.3, num_layers=2, regularizer=rates, backend=backend)
    x, state = make_inputs().requires_grad_(), make_state(rnn)
    carried = [part.requires_grad_() for part in parts(state)]
    program = nz.innovations(rnn)
    with pyro.plate("sequences", BATCH, dim=-1):
        trace = poutine.trace(program).get_trace(x, state)
    result, end = returned(trace)
    given = {name: site["value"] for name, site in trace.nodes.items() if name.endswith("_mask")}
    assert len(given) == 5 and not any(mask.requires_grad for mask in given.values())
    noises = [trace.nodes[f"z_{layer}_noise"]["value"] for layer in (1, 2)]
    expected, layers = textbook_run(rnn, x, given, noises, state)
    close(result, expected)
    for which, layer in enumerate(layers):
        close(parts(end)[0][which], layer.z[:, -1])  # the state that is carried on has no mask
        if layer.memory is not None:
            close(parts(end)[1][which], layer.memory[:, -1])
    leaves = [*(p for p in rnn.parameters() if p.requires_grad), x, *carried]
    weight = torch.randn(result.shape, dtype=torch.float64)
    results = [torch.autograd.grad((weight * z.sin()).sum(), leaves, allow_unused=True) for z in (result, expected)]
    for gradient, other in zip(*results, strict=True):
        assert (gradient is None) == (other is None)
        if gradient is not None and other is not None:
            close(gradient, other)


@pytest.mark.parametrize("particles", [None, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_every_view_sees_the_masked_transition(cell: str, particles: int | None) -> None:
    rnn = make_rnn(cell, "gaussian", spread=0.3, regularizer=Dropout(input=0.4, recurrent=0.4))
    x = make_inputs()
    trace = traced(in_plates(rnn, particles), x)
    values = {site["name"]: site["value"] for site in all_sites(trace) if site["name"].startswith("z")}
    unrolled = traced(in_plates(nz.unroll(poutine.condition(rnn, values)), particles), x)
    close(unrolled.log_prob_sum(), trace.log_prob_sum())
    path = values.pop("z_1")
    noise = {"z_1_noise": trace.nodes["z_1"]["fn"].innovate(path)}
    innovated = traced(in_plates(poutine.condition(nz.innovations(rnn), values | noise), particles), x)
    close(innovated.nodes["z_1"]["value"], path)


@pytest.mark.parametrize("cell", CELLS)
def test_noise_off_is_the_network_without_masks(cell: str) -> None:
    model, plain = make_model(cell=cell, spread=0.3), make_model("none", cell=cell, spread=0.0)
    words = make_words()
    for lengths in (None, LENGTHS):
        with torch.no_grad():
            result, expected = nz.noise_off(model)(words, words, lengths=lengths), plain(words, words, lengths=lengths)
        close(result.emission.logits, expected.emission.logits, 0.0)
        for part, other in zip(parts(result.state), parts(expected.state), strict=True):
            close(part, other, 0.0)


def test_rate_zero_equals_no_dropout_bit_for_bit() -> None:
    words, results = make_words(), []
    for regularizer in ("none", get("variational-dropout", 0.0)):
        model = make_model(regularizer, noise="laplace", spread=0.4, num_layers=2)
        pyro.set_rng_seed(3)
        loss = nz.PriorAsGuide_ELBO(num_particles=2)(model)(words, words)
        loss.backward()
        results.append([loss, *(p.grad for p in model.parameters())])
    for result, expected in zip(*results, strict=True):
        assert torch.equal(result, expected)


@pytest.mark.slow
def test_each_particle_has_its_own_masks() -> None:
    # E[loss] is the same by particles one by one and in a plate: z-test of the difference, false alarm rate 1e-4
    model, words = make_model(spread=0.2), make_words()

    def runs(vectorized: bool) -> Tensor:
        bound = nz.PriorAsGuide_ELBO(num_particles=50, vectorize_particles=vectorized, max_plate_nesting=1)(model)
        with torch.no_grad():
            return torch.stack([bound(words, words) for _ in range(30)])

    pyro.set_rng_seed(0)
    together, alone = runs(True), runs(False)
    error = ((together.var() + alone.var()) / 30).sqrt()
    assert abs(float(together.mean() - alone.mean())) < 3.89 * float(error)
    with pyro.plate("num_particles_vectorized", 6, dim=-2):
        result = masks(model, words)
    assert result["z_1_recurrent_mask"].shape == (6, BATCH, UNITS) and result["word_mask"].shape == (6, BATCH, WORDS)
    assert len(result["word_mask"].flatten(0, 1).unique(dim=0)) > BATCH


def test_unsupported_uses_are_refused() -> None:
    model, words = make_model(spread=0.2), make_words()
    data = nz.data.Sequences(words, words)
    with pytest.raises(ValueError, match="have no masks"):
        model.rnn.stepwise(model.embed(words))
    for name in ("mean-field", "filtering", "smoothing"):
        with pytest.raises(ValueError, match=r"does not support dropout masks, got Dropout.* or an automatic guide"):
            nz.guides.get(name, model)
    given = masks(model, words)
    for program in (model, pyro.condition(model, given), nz.innovations(model)):
        with pytest.raises(ValueError, match=r"does not support dropout masks, got Dropout.* or method 'importance'"):
            nz.evaluate(program, data, "particle-filter", num_samples=8)
    fused = make_model(spread=0.2, backend="fused")
    for run in (lambda: fused(words), lambda: fused.rnn.backends(BATCH)):
        with pytest.raises(ValueError, match="dropout of its recurrence"):
            run()
