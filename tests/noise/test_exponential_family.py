"""log p(x) = η·t(x) − A(η) + log ν(x), and ∇A(η) = E[t(x)]."""

import pytest
import torch

from noisin_pyro.noise import get

HELD_FIXED = {"laplace": "location", "gumbel": "scale", "chi2": "rate (1/2)"}


def has_view(family):
    return family.name != "logistic" and family.has_innovations


def law_and_view(family):
    """The raw law of one unit (of three, if they are coupled), and the view of it."""
    spread = 0.6 if getattr(family, "of_spread", False) else None
    like = torch.tensor(spread or 0.0, dtype=torch.float64)
    raw = family.law(like, 3) if family.name != "gaussian" else get("laplace").law(like, 3)
    return raw, family.exponential_family(spread, size=3)


def draws(family, view):
    law, _ = law_and_view(family)
    if family.name == "gaussian":
        return torch.randn(50_000, dtype=torch.float64)
    x = law.raw.sample((50_000,))
    return x if law.joint else x[..., 0]


def test_gradient_of_the_log_normalizer_is_the_mean_statistic(family, assert_mean):
    if not has_view(family):
        with pytest.raises(ValueError, match="no exponential-family view"):
            family.exponential_family()
        return
    _, view = law_and_view(family)
    gradient = torch.func.grad(view.log_normalizer)(view.natural_parameter)
    assert_mean(view.statistic(draws(family, view)), gradient)


def test_canonical_form_is_the_density(family):
    if not has_view(family):
        return
    law, view = law_and_view(family)
    x = draws(family, view)[:20]
    log_prob = view.statistic(x) @ view.natural_parameter - view.log_normalizer(view.natural_parameter)
    log_prob = log_prob + view.log_base_measure(x)
    if family.name == "gaussian":
        expected = torch.distributions.Normal(0.0, 1.0).log_prob(x)
    else:
        expected = law.raw.log_prob(x if law.joint else x.unsqueeze(-1))
        expected = expected if law.joint else expected[..., 0]
    torch.testing.assert_close(log_prob, expected)
    assert view.held_fixed == HELD_FIXED.get(family.name, "")


def test_spread_is_asked_for_where_the_law_depends_on_it():
    with pytest.raises(ValueError, match=r"depends on it: pass exponential_family\(spread="):
        get("gamma:multiplicative").exponential_family()
    with pytest.raises(ValueError, match="does not depend on it, got 0.3; leave it out"):
        get("gamma").exponential_family(spread=0.3)
