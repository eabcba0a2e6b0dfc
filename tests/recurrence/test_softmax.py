"""The softmax without stored scores against Pyro's categorical, for several block sizes."""

from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from noisin_pyro.recurrence import softmax
from noisin_pyro.recurrence.softmax import Softmax

from ..small_layers import BATCH, PARTICLES, close

OUTPUTS = 4


def by_scores(scores: Tensor) -> Softmax:
    return Softmax(scores, torch.eye(scores.shape[-1]).to(scores), torch.zeros(scores.shape[-1]).to(scores))


@pytest.fixture
def scores() -> Tensor:
    return torch.randn(PARTICLES, BATCH, OUTPUTS, dtype=torch.float64)


def test_softmax_is_a_categorical(scores: Tensor) -> None:
    law, expected = by_scores(scores), dist.Categorical(logits=scores)
    close(law.logits, expected.logits)
    close(law.probs, expected.probs)
    close(law.entropy(), expected.entropy())
    assert law.shape() == expected.shape()
    assert law.param_shape == expected.param_shape
    close(law.enumerate_support(), expected.enumerate_support())
    close(law.log_prob(law.enumerate_support()).exp().sum(0), torch.ones(PARTICLES, BATCH, dtype=torch.float64))


def test_softmax_broadcasts_and_expands(scores: Tensor) -> None:
    law, expected = by_scores(scores), dist.Categorical(logits=scores)
    for value in (torch.randint(OUTPUTS, (BATCH,)), torch.randint(OUTPUTS, (5, PARTICLES, BATCH))):
        close(law.log_prob(value), expected.log_prob(value))
    wide = law.expand(torch.Size([3, PARTICLES, BATCH]))
    value = wide.sample((6,))
    assert value.shape == (6, 3, PARTICLES, BATCH)
    close(wide.log_prob(value), expected.log_prob(value))
    mask = torch.rand(PARTICLES, BATCH) < 0.5
    value = law.sample()
    close(law.mask(mask).log_prob(value), torch.where(mask, expected.log_prob(value), 0.0))


def test_softmax_draws_with_its_probabilities() -> None:
    """Each of 4 frequencies beyond 5.5 standard errors with probability 4e-8: false alarm below 2e-7."""
    law = by_scores(torch.tensor([0.0, 1.0, -1.0, 2.0]))
    draws = torch.nn.functional.one_hot(law.sample((20000,)), 4).float()
    assert ((draws.mean(0) - law.probs).abs() < 5.5 * (law.probs * (1 - law.probs) / 20000).sqrt()).all()


@pytest.mark.parametrize("expanded", [False, True])
def test_classes_out_of_range_are_refused(scores: Tensor, expanded: bool) -> None:
    law = by_scores(scores)
    if expanded:
        law = law.expand(torch.Size([3, PARTICLES, BATCH]))
    with pytest.raises(ValueError, match="support"):
        law.log_prob(torch.full((BATCH,), OUTPUTS))


ROWS, UNITS, CLASSES = 23, 5, 11


@pytest.fixture
def parts() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    z, weight, bias = (torch.randn(*shape).double() for shape in ((ROWS, UNITS), (CLASSES, UNITS), (CLASSES,)))
    return z.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), torch.randint(CLASSES, (ROWS,))


def plainly(z: Tensor, weight: Tensor, bias: Tensor, y: Tensor) -> Tensor:
    return -F.cross_entropy(F.linear(z, weight, bias), y, reduction="none")


WEIGHTS: dict[str, Callable[[], Tensor]] = {
    "alike": lambda: torch.full((ROWS,), -0.7).double(),
    "each its own": lambda: torch.randn(ROWS).double(),
    "masked": lambda: (torch.arange(ROWS) % 3 > 0).double(),
}


@pytest.mark.parametrize("block", [10**6, 5 * CLASSES, 1])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_values_and_gradients_by_blocks_equal_those_of_cross_entropy(
    monkeypatch: pytest.MonkeyPatch, parts: tuple[Tensor, Tensor, Tensor, Tensor], weights: str, block: int
) -> None:
    monkeypatch.setattr(softmax, "BLOCK_NUMEL", block)
    monkeypatch.setattr(softmax, "CACHE_NUMEL", 3 * CLASSES)
    z, weight, bias, y = parts
    up = WEIGHTS[weights]()
    expected, result = plainly(z, weight, bias, y), Softmax(z, weight, bias).log_prob(y)
    close(result, expected)
    with torch.no_grad():
        close(Softmax(z, weight, bias).log_prob(y), expected)
    expected_grads = torch.autograd.grad(expected, parts[:3], up)
    for _ in range(2):  # what the first pass uses up, a second one finds again
        for gradient, other in zip(
            torch.autograd.grad(result, parts[:3], up, retain_graph=True), expected_grads, strict=True
        ):
            close(gradient, other)
    for source, other in zip(parts[:3], expected_grads, strict=True):  # alone, the others being no parameters
        given = [p if p is source else p.detach() for p in parts[:3]]
        close(torch.autograd.grad(Softmax(*given).log_prob(y), source, up)[0], other)


@pytest.mark.parametrize("block", [10**6, 5 * CLASSES])
def test_gradients_of_gradients(monkeypatch: pytest.MonkeyPatch, parts, block: int) -> None:
    monkeypatch.setattr(softmax, "BLOCK_NUMEL", block)
    *sources, y = parts

    def log_prob(*sources: Tensor) -> Tensor:
        return Softmax(*sources).log_prob(y)

    assert torch.autograd.gradcheck(log_prob, sources)
    assert torch.autograd.gradgradcheck(log_prob, sources)


@pytest.mark.parametrize("rows", [30, 2])
def test_in_float32_it_is_as_close_as_cross_entropy(rows: int) -> None:
    """Scores of up to 60 at a large vocabulary: no probability may be rounded to 0 before its logarithm."""
    torch.manual_seed(0)
    z, weight, bias, y = (
        4 * torch.randn(rows, 32),
        torch.randn(5000, 32),
        torch.randn(5000),
        torch.randint(5000, (rows,)),
    )
    exact = plainly(z.double(), weight.double(), bias.double(), y)
    torch.testing.assert_close(Softmax(z, weight, bias).log_prob(y).double(), exact, rtol=1e-6, atol=2e-5)
    assert exact.min() < -88  # where exp underflows


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="constraint"):
        by_scores(torch.tensor([0.0, float("nan")]))


def test_a_large_vocabulary_passes_validation() -> None:
    """Rounded probabilities sum to 1 within 2e-6, where torch's check of them asks for 1e-6; they are not looked at."""
    z = 3 * torch.randn(700, 8)
    law = Softmax(z, torch.randn(10_000, 8), torch.randn(10_000), validate_args=True)
    assert ((law.probs.sum(-1) - 1).abs() > 1e-6).any()
    assert law.log_prob(torch.zeros(700)).isfinite().all()


def test_no_gradient_is_computed_without_requires_grad(monkeypatch: pytest.MonkeyPatch, parts) -> None:
    monkeypatch.setattr(softmax, "BLOCK_NUMEL", 5 * CLASSES)
    made: list[int] = []
    monkeypatch.setattr(softmax, "_gradients", lambda *given: made.append(1))
    *given, y = parts
    with torch.no_grad():
        close(Softmax(*given).log_prob(y), plainly(*parts))
    assert not made


def test_empty_input() -> None:
    law = Softmax(torch.zeros(0, 3, UNITS), torch.zeros(CLASSES, UNITS), torch.zeros(CLASSES), validate_args=False)
    assert law.log_prob(torch.zeros(0, 3, dtype=torch.long)).shape == (0, 3)
