"""Generation: frequencies against exact probabilities, the greedy path, the state that is carried."""

import itertools
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroSample
from pyro.poutine import condition, trace
from scipy.stats import chisquare
from torch import Tensor

from noisin_pyro import LanguageModel, NoisyRNN, SequenceModel, Spread, generate, innovations, noise_off, unroll
from noisin_pyro.models import Dropout

from .programs import likelihood_by_enumeration

FALSE_ALARM = 1e-6  # of each chi-square test
TEXTS = 20_000


def assert_frequencies(tokens: Tensor, probabilities: Tensor) -> None:
    """Texts ``(N, T)`` against the probability of each text, ``(V,) * T``."""
    words = probabilities.shape[0]
    index = (tokens * words ** torch.arange(tokens.shape[1]).flip(0)).sum(1)
    counts = torch.bincount(index, minlength=probabilities.numel())
    expected = probabilities.flatten() / probabilities.sum() * len(tokens)
    assert expected.min() > 5
    assert chisquare(counts.numpy(), expected.numpy()).pvalue > FALSE_ALARM


@torch.no_grad()
def noisy_step(model: LanguageModel, word: Tensor, z: Tensor, spread: float) -> list[tuple[Tensor, Tensor]]:
    """All states after one tanh step with ±1 noise, equally likely, each with p(x | z)."""
    rnn = model.rnn
    clean = torch.tanh(
        rnn.weight_ih_l0 @ model.embedding.weight[word] + rnn.bias_ih_l0 + rnn.weight_hh_l0 @ z + rnn.bias_hh_l0
    )
    states = [clean + spread * torch.tensor(signs).double() for signs in itertools.product((-1, 1), repeat=len(z))]
    return [(state, model.emission.linear(state).softmax(-1)) for state in states]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_frequencies_of_one_step_without_noise(temperature: float) -> None:
    model = LanguageModel(5, 4, spread=0.0).double()
    probabilities = model(torch.tensor([[0, 3, 1]])).emission.probs[0, -1].detach() ** (1 / temperature)
    result = generate(model, 1, prompt=torch.tensor([3, 1]), temperature=temperature, num_samples=TEXTS)
    assert_frequencies(result, probabilities)


def test_frequencies_of_two_steps_with_noise() -> None:
    # ±1 noise on two units: a step has four noisy states, and p(x_1, x_2) is a sum of sixteen terms
    model = LanguageModel(3, 2, noise="bernoulli", spread=1.0).double()
    with torch.no_grad():
        model.emission.linear.weight.mul_(2)
    joint = torch.zeros(3, 3).double()
    for z, first in noisy_step(model, torch.tensor(0), torch.zeros(2).double(), 1.0):
        for word in range(3):
            for _, second in noisy_step(model, torch.tensor(word), z, 1.0):
                joint[word] += first[word] * second / 16
    assert joint.sum().item() == pytest.approx(1.0)
    result = generate(model, 2, num_samples=TEXTS)
    assert_frequencies(result, joint)
    # the test sees whether the state is carried and the noise is on
    clean = generate(noise_off(model), 2, num_samples=TEXTS)
    with pytest.raises(AssertionError):
        assert_frequencies(clean, joint)


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-6])
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_low_temperature_is_greedy(cell: str, temperature: float) -> None:
    model = LanguageModel(9, 4, num_layers=2, cell=cell, spread=0.5).double()
    text = torch.tensor([0, 4, 7])
    for _ in range(12):  # each time from the beginning
        text = torch.cat([text, noise_off(model)(text[None]).emission.logits[0, -1].argmax()[None]])
    result = generate(noise_off(model), 12, prompt=text[1:3], temperature=temperature, num_samples=2)
    assert result.tolist() == [text[3:].tolist()] * 2


@pytest.mark.parametrize("cell", ["tanh", "gru"])
def test_the_prompt_is_read_in_order_and_the_state_is_carried(cell: str) -> None:
    model, calls = LanguageModel(9, 4, cell=cell, spread=0.5).double(), []

    def watched(inputs: Tensor, targets: Tensor, state: object = None) -> object:
        out = noise_off(model)(inputs, targets, state=state)
        calls.append((inputs, state, out.state))
        return out

    prompt = torch.tensor([5, 2, 8])
    result = generate(watched, 4, prompt=prompt, num_samples=3, seed=7)
    calls = calls[1:]  # the first shows what the program samples
    read = torch.cat([inputs for inputs, _, _ in calls], dim=1)
    assert read.tolist() == [[0, 5, 2, 8, *row] for row in result[:, :-1].tolist()]
    for (_, _, left), (_, taken, _) in itertools.pairwise(calls):
        assert taken is left


@torch.no_grad()
def after_prompt(model: LanguageModel, prompt: list[int]) -> Tensor:
    """p(next | prompt) by enumeration of the signs of all noise, and of dropout masks, from joint probabilities."""
    words = model.emission.output_size
    joint = []
    for word in range(words):
        text = torch.tensor([*prompt, word])
        joint.append(likelihood_by_enumeration(model, torch.cat([torch.tensor([0]), text[:-1]]), text))
    return torch.stack(joint).softmax(0)


class TestPrompt:
    """The noise along a prompt is weighted by the prompt: texts are from p(text | prompt)."""

    def model(self, hidden: int = 1, **options: Any) -> LanguageModel:
        torch.manual_seed(10)  # weights for which the prompt says much about the noise
        model = LanguageModel(3, hidden, **{"noise": "bernoulli", "spread": 0.9, **options}).double()
        with torch.no_grad():
            model.emission.linear.weight.copy_(torch.tensor([[4.0], [-4.0], [1.0]]).expand(3, hidden))
            for name, parameter in model.rnn.named_parameters():
                if "weight_hh" in name:
                    parameter.fill_(3.0)
        return model

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"cell": "lstm"},
            {"cell": "gru", "num_layers": 2},
            {"feedback": False},
            {"input_spread": 1.0},
            {"num_layers": 2, "spread": [0.0, 0.9]},
        ],
        ids=str,
    )
    def test_frequencies_of_the_next_word(self, options: dict[str, Any]) -> None:
        model, prompt = self.model(**options), [1, 1, 1] if "num_layers" not in options else [1, 1]
        result = generate(model, 1, prompt=torch.tensor(prompt), num_samples=TEXTS, num_particles=4 * TEXTS)
        # eight particles for each of these texts, so that sharing particles adds little to the variance
        assert_frequencies(result[::2], after_prompt(model, prompt))

    @pytest.mark.parametrize(
        "view", [innovations, unroll, lambda model: lambda *args, **kwargs: model(*args, **kwargs)]
    )
    def test_every_view_and_program(self, view: Any) -> None:
        model = self.model()
        result = generate(view(model), 1, prompt=torch.tensor([1, 1]), num_samples=TEXTS, num_particles=4 * TEXTS)
        assert_frequencies(result[::2], after_prompt(model, [1, 1]))

    def test_dropout_masks_are_weighted_as_well(self) -> None:
        model = self.model(spread=0.0, regularizer=Dropout(recurrent=0.4, output=0.5))
        joint = torch.zeros(3).double()
        for recurrent, output in itertools.product((True, False), repeat=2):
            chance = (0.6 if recurrent else 0.4) * 0.5
            masks = {"z_1_recurrent_mask": recurrent / 0.6, "z_output_mask": output / 0.5}
            given = condition(model, {name: torch.tensor([[value]]).double() for name, value in masks.items()})
            with torch.no_grad():
                p = given(torch.tensor([[0, 1, 1]]), torch.tensor([[1, 1, 0]])).emission.probs[0]
            joint += chance * p[0, 1] * p[1, 1] * p[2]
        result = generate(model, 1, prompt=torch.tensor([1, 1]), num_samples=TEXTS, num_particles=4 * TEXTS)
        assert_frequencies(result[::2], joint)

    def test_the_noise_alone_would_give_other_frequencies(self) -> None:
        model, prompt = self.model(), torch.tensor([1, 1, 1])
        with torch.no_grad():
            inputs = torch.cat([torch.tensor([0]), prompt]).expand(TEXTS, -1)
            unweighted = model(inputs, inputs).emission.probs[:, -1].mean(0)
        result = generate(model, 1, prompt=prompt, num_samples=TEXTS)
        with pytest.raises(AssertionError):
            assert_frequencies(result, unweighted)

    def test_words_outside_the_vocabulary_are_refused(self) -> None:
        for prompt in ([3], [0, 9], [-1, 0]):
            with pytest.raises(ValueError, match=r"prompt must contain tokens from 0 to 2, got"):
                generate(self.model(), 2, prompt=torch.tensor(prompt))
        with pytest.raises(ValueError, match=r"num_particles must be .*, got 0"):
            generate(self.model(), 2, prompt=torch.tensor([1]), num_particles=0)


def test_seed_determines_the_text_and_leaves_the_generators_unchanged() -> None:
    model = LanguageModel(9, 4, spread=0.5)
    before = torch.get_rng_state()
    first, second = (generate(model, 20, seed=3, num_samples=2) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second) and first.shape == (2, 20)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(generate(model, 20), generate(model, 20))


def test_normal_weights_are_drawn_once() -> None:
    model = LanguageModel(9, 4, spread=0.0, weight_prior="normal").double()
    with torch.no_grad():
        model.emission.linear.weight.mul_(9)
    texts = [generate(model, 30, temperature=0, seed=seed)[0] for seed in range(20)]
    assert len({tuple(text.tolist()) for text in texts}) > 1
    for seed, text in enumerate(texts):
        torch.manual_seed(seed)
        first = torch.zeros(1, 1).long()
        sites = trace(model).get_trace(first, targets=first).nodes
        network = condition(model, {name: sites[name]["value"] for name in ("rnn.weight_ih_l0", "rnn.weight_hh_l0")})
        inputs = torch.cat([torch.zeros(1).long(), text[:-1]])[None]
        assert torch.equal(network(inputs, targets=inputs).emission.logits[0].argmax(-1), text)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"num_steps": 0}, "num_steps must be a positive integer, got 0"),
            ({"num_samples": 0}, "num_samples"),
            ({"temperature": -1.0}, "temperature must be"),
            ({"temperature": float("nan")}, "temperature must be"),
            ({"start": 5}, "start must be a token from 0 to 4, got 5"),
            ({"start": -1}, "start must be an integer of at least 0, got -1"),
            ({"prompt": torch.zeros(1, 2).long()}, "prompt must be a one-dimensional"),
            ({"prompt": [1, 2]}, "prompt must be a one-dimensional tensor of integer tokens, got list"),
        ],
    )
    def test_options(self, options: dict, named: str) -> None:
        with pytest.raises(ValueError, match=named):
            generate(LanguageModel(5, 4), **{"num_steps": 3, **options})

    def test_sampled_weights_and_spreads(self) -> None:
        model = LanguageModel(5, 4, spread=Spread(prior=dist.LogNormal(0.0, 1.0)))
        with pytest.raises(ValueError, match=r"'rnn.spread_1.gamma' is sampled"):
            generate(model, 3)
        model = LanguageModel(5, 4)
        model.rnn.weight_hh_l0 = PyroSample(dist.Normal(0.0, 1.0).expand([4, 4]).to_event(2))
        with pytest.raises(ValueError, match=r"'rnn.weight_hh_l0' is sampled"):
            generate(model, 3)

    def test_emission_that_is_not_categorical(self) -> None:
        music = SequenceModel(NoisyRNN(2, 4), "bernoulli", 2)
        with pytest.raises(ValueError, match="needs a model with a categorical emission"):
            generate(lambda inputs, targets=None, state=None: music(inputs[..., None].expand(-1, -1, 2).float()), 3)


def test_other_emissions_are_for_forecasts() -> None:
    model = SequenceModel(NoisyRNN(2, 3), "bernoulli", 2)
    for program in (model, unroll(model), innovations(model)):
        with pytest.raises(ValueError, match="categorical emission, got Bernoulli; use forecast"):
            generate(program, 3)
