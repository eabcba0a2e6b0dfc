"""log p(x) = η·t(x) − A(η) + log ν(x), and ∇A(η) = E[t(x)]."""

import pytest
import torch

from noisin_pyro.noise import get

HELD_FIXED = {"laplace": "location", "gumbel": "scale", "chi2": "rate (1/2)"}


def has_view(family):
    return family.name != "logistic" and family.has_innovations


def law_and_view(family):
    """The raw law of one unit (of three, if they are coupled), and its exponential-family view."""
    if family.name == "gaussian":
        return torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0), family.exponential_family()
    spread = 0.6 if family.depends_on_spread else None
    law = family.law(torch.tensor(spread or 0.0, dtype=torch.float64), 3)
    unit = law.raw if law.joint else family.law(torch.tensor([spread or 0.0], dtype=torch.float64), 1).raw
    return unit, family.exponential_family(spread, size=3)


def draw(law, count):
    x = law.sample((count,))
    return x if law.event_shape or not law.batch_shape else x[:, 0]


def test_gradient_of_the_log_normalizer_is_the_mean_statistic(family, assert_mean):
    if not has_view(family):
        with pytest.raises(ValueError, match="no exponential-family view"):
            family.exponential_family()
        return
    law, view = law_and_view(family)
    gradient = torch.func.grad(view.log_normalizer)(view.natural_parameter)
    assert_mean(view.statistic(draw(law, 50_000)), gradient)


def test_canonical_form_is_the_density(family):
    if not has_view(family):
        return
    law, view = law_and_view(family)
    x = draw(law, 20)
    log_prob = view.statistic(x) @ view.natural_parameter - view.log_normalizer(view.natural_parameter)
    expected = law.log_prob(x if law.event_shape or not law.batch_shape else x.unsqueeze(-1)).reshape(20)
    torch.testing.assert_close(log_prob + view.log_base_measure(x), expected)
    assert view.held_fixed == HELD_FIXED.get(family.name, "")


def test_spread_is_required_where_the_law_depends_on_it():
    with pytest.raises(ValueError, match=r"depends on it; pass a value, for example exponential_family\(spread="):
        get("gamma:multiplicative").exponential_family()
    with pytest.raises(ValueError, match=r"does not depend on it, got 0\.3; leave it out"):
        get("gamma").exponential_family(spread=0.3)
