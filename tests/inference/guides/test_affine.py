"""Affine maps of noise: parameters, Jacobian and initial values."""

import pytest
import torch
from torch.autograd.functional import jacobian

from noisin_pyro import noise
from noisin_pyro.inference.guides.affine import Affine, Head, push

UNITS = 3


def random_affine(coordinates: int, covariance: str) -> Affine:
    below = torch.randn(coordinates * (coordinates - 1) // 2).double() if covariance == "full" else None
    return Affine(torch.randn(coordinates).double(), 0.5 * torch.randn(coordinates).double(), below)


def test_full_is_a_lower_triangular_factor():
    affine = Affine(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 0.1, 0.2]), torch.tensor([4.0, 5.0, 6.0]))
    factor = torch.tensor([[1.0, 0, 0], [4.0, 0, 0], [5.0, 6.0, 0]])
    factor = factor.tril(-1) + torch.diag(affine.log_diagonal.exp())
    u = torch.randn(7, 3)
    torch.testing.assert_close(affine(u), affine.shift + u @ factor.T)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("name", ["gaussian", "gumbel", "gamma", "beta", "dirichlet", "gamma:multiplicative"])
def test_log_determinant_matches_autograd(name, covariance):
    law = noise.get(name).law(torch.tensor(0.4).double(), UNITS)
    space, d = noise.biject_to_support(law), UNITS - (name == "dirichlet")
    affine, before = random_affine(d, covariance), law.rsample()

    def first(free):  # of the simplex, the last coordinate is what the others leave
        whole = torch.cat([free, -free.sum(-1, keepdim=True)]) if d < UNITS else free
        return push(whole, space, affine)[0][:d]

    _, stretch = push(before, space, affine)
    torch.testing.assert_close(stretch, torch.linalg.slogdet(jacobian(first, before[:d]))[1])


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_new_head_is_the_identity_and_every_weight_gets_a_gradient(covariance, linear):
    head = Head(4, 5, 6, UNITS, linear, covariance)
    context, states = torch.randn(2, 4), torch.randn(2, 5)
    affine = head(head.of_context(context), states, None)
    u = torch.randn(2, UNITS)
    assert torch.equal(affine(u), u)
    optimizer = torch.optim.SGD(head.parameters(), 0.1)
    for _ in range(2):  # the second step reaches what stands before weights that were 0
        optimizer.zero_grad()
        head(head.of_context(context), states, None)(u).square().sum().backward()
        optimizer.step()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_padding_keeps_the_prior():
    head = Head(4, 5, 6, UNITS, True, "full")
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
    real = torch.tensor([True, False])
    u = torch.randn(2, UNITS)
    moved = head(head.of_context(torch.randn(2, 4)), torch.randn(2, 5), real)(u)
    assert not torch.equal(moved[0], u[0])
    assert torch.equal(moved[1], u[1])
