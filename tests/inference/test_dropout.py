"""Inference with dropout masks, against sums over all masks. Each z-test has a false-alarm rate of 1e-6."""

import itertools
import math

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.inference.traces import latent_sites
from noisin_pyro.models import Mask

Z = 4.89
RATES = nz.Dropout(recurrent=0.4, output=0.3)


def chords(spread: float = 0.0, dropout: nz.Dropout = RATES) -> nz.SequenceModel:
    """Two units, so that there are 2 × 2 masks of each kind."""
    pyro.set_rng_seed(2)
    rnn = nz.NoisyRNN(1, 2, spread=spread, regularizer=dropout)
    model = nz.SequenceModel(rnn, "bernoulli", 1).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6.0)
    return model


def data(length: int = 3) -> nz.data.Sequences:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, length, 1, generator=generator).round().double()
    return nz.data.Sequences(x, 1 - x.roll(1, 1))


def every_mask(sites: dict[str, float], batch: int) -> list[tuple[float, dict[str, Tensor]]]:
    """All values of these sites, the same for each sequence, with their probabilities."""
    result = []
    for bits in itertools.product([0.0, 1.0], repeat=2 * len(sites)):
        probability, values = 1.0, {}
        for pair, (name, rate) in zip(zip(bits[::2], bits[1::2], strict=True), sites.items(), strict=True):
            values[name] = torch.tensor(pair).double().div(1 - rate).expand(batch, 2)
            probability *= math.prod(1 - rate if bit else rate for bit in pair)
        result.append((probability, values))
    return result


SITES = {"z_1_recurrent_mask": 0.4, "z_output_mask": 0.3}


def given_masks(model: nz.SequenceModel, sequences: nz.data.Sequences) -> tuple[Tensor, Tensor]:
    """p(m) ``(M,)`` and log p(x_t | m) ``(M, B, T)`` of every pair of masks."""
    probabilities, log_probs = [], []
    for probability, values in every_mask(SITES, len(sequences)):
        with torch.no_grad():
            out = pyro.condition(model, values)(sequences.inputs, sequences.targets)
        probabilities.append(probability)
        log_probs.append(out.emission.log_prob(sequences.targets))
    return torch.tensor(probabilities).double(), torch.stack(log_probs)


def test_the_bound_is_the_mean_over_all_masks() -> None:
    model, sequences = chords(), data()
    p, log_p = given_masks(model, sequences)
    assert p.sum() == pytest.approx(1)
    bound = nz.PriorAsGuide_ELBO(num_particles=4000)(model)
    with torch.no_grad():
        draws = torch.stack([-bound(sequences.inputs, sequences.targets) for _ in range(20)])
    error = float(draws.std()) / len(draws) ** 0.5
    # of 20 draws: the 1e-6 quantile of Student's t of 19 degrees
    assert abs(float(draws.mean() - (p[:, None, None] * log_p).sum())) < 7.0 * error


@pytest.mark.slow
def test_ensemble_averages_over_all_masks_step_by_step_and_importance_whole_sequences() -> None:
    model, sequences = chords(), data()
    p, log_p = given_masks(model, sequences)
    steps = (p[:, None, None] * log_p.exp()).sum(0).log().sum()
    whole = (p[:, None] * log_p.sum(-1).exp()).sum(0).log().sum()
    for method, expected, count in (("ensemble", steps, 4000), ("importance", whole, 40_000)):
        result = nz.evaluate(model, sequences, method, num_samples=count)
        error = Z * result.monte_carlo_error
        assert abs(result.nats_per_step + float(expected) / 6) < error < abs(float(steps - whole)) / 6, (
            "else they cannot be distinguished"
        )
        assert result.kind == ("predictor" if method == "ensemble" else "bound")


def test_a_stream_has_new_masks_in_each_window_and_carries_the_state() -> None:
    pyro.set_rng_seed(1)
    model = nz.LanguageModel(3, 2, spread=0.0, regularizer=nz.Dropout(recurrent=0.4)).double()
    with torch.no_grad():
        for parameter in model.rnn.parameters():
            parameter.mul_(6.0)
    stream = nz.data.Stream(torch.tensor([2, 1, 0, 1, 2, 2]), batch_size=1, window=3)
    masks, total, total_if_kept = every_mask({"z_1_recurrent_mask": 0.4}, 1), 0.0, 0.0
    for (first, one), (second, other) in itertools.product(masks, masks):
        state, log_p = None, 0.0
        for batch, values in zip(stream.batches(), (one, other), strict=True):
            with torch.no_grad():
                out = pyro.condition(model, values)(batch.inputs, batch.targets, state=state)
                state, log_p = out.state, log_p + float(out.emission.log_prob(batch.targets).sum())
        total += first * second * math.exp(log_p)
        total_if_kept += first * math.exp(log_p) * (one is other)
    result = nz.evaluate(model, stream, "importance", num_samples=40_000)
    error = Z * result.monte_carlo_error
    assert abs(result.nats_per_step + math.log(total) / 6) < error < abs(math.log(total / total_if_kept)) / 6


def test_mean_is_the_network_without_masks_and_ensemble_at_rate_zero_is_the_mean() -> None:
    model, sequences = chords(), data()
    plain = nz.evaluate(chords(dropout=nz.Dropout()), sequences)
    assert nz.evaluate(model, sequences).nats_per_step == pytest.approx(plain.nats_per_step, abs=1e-12)
    assert (nz.evaluate(model, sequences).kind, plain.kind) == ("predictor", "exact")
    ensemble = nz.evaluate(chords(dropout=nz.Dropout()), sequences, "ensemble", num_samples=3)
    assert (ensemble.nats_per_step, ensemble.kind) == (plain.nats_per_step, "exact")


def test_posterior_of_the_masks() -> None:
    model, sequences = chords(), data()
    p, log_p = given_masks(model, sequences)
    weights = p[:, None] * log_p.sum(-1).exp()
    weights = weights / weights.sum(0)
    kept = torch.stack([values["z_1_recurrent_mask"] > 0 for _, values in every_mask(SITES, 2)])  # (M, B, H)
    expected = (weights[..., None] * kept).sum(0)
    with pytest.warns(UserWarning, match="k̂"):  # weights of a few values have no tail that could be fitted
        result = nz.posterior(model, sequences, num_samples=4000, num_proposals=40_000, progress=False)
    share = torch.from_numpy(result.posterior["z_1_recurrent_mask"].values > 0).double().mean((0, 1))
    # of 4,000 draws resampled from proposals, which are worth a tenth of them or more
    assert ((share - expected).abs() < Z * (expected * (1 - expected) * (1 / 4000 + 1 / 20_000)).sqrt()).all()


def test_an_automatic_guide_leaves_the_masks_to_the_prior() -> None:
    model, sequences = chords(spread=0.5), data()
    guide = nz.guides.get("AutoNormal", model, init_scale=0.9)
    view = nz.innovations(model)
    nz.PriorAsGuide_ELBO()(view, guide)(sequences.inputs, sequences.targets).backward()
    drawn = [site["name"] for site in latent_sites(poutine.trace(guide).get_trace(sequences.inputs, sequences.targets))]
    assert "z_1_noise" in drawn and not [name for name in drawn if name.endswith("mask")]
    prior = nz.evaluate(view, sequences, "importance", num_samples=40_000)
    other = nz.evaluate(view, sequences, "importance", num_samples=40_000, guide=guide)
    error = math.hypot(prior.monte_carlo_error, other.monte_carlo_error)
    assert abs(prior.nats_per_step - other.nats_per_step) < Z * error < 0.1


def test_marginals_with_dropout_are_refused() -> None:
    pyro.set_rng_seed(2)
    rnn = nz.NoisyRNN(1, 2, spread=0.3, regularizer=RATES)
    model = nz.SequenceModel(rnn, "bernoulli", 1, weight_prior="normal").double()
    options: dict = {"num_samples": 10, "num_proposals": 20, "progress": False}
    with pytest.raises(ValueError, match="use regularizer 'none', or num_particles=0"):
        nz.posterior(model, data(), **options)
    with pytest.warns(UserWarning, match="k̂"):
        result = nz.posterior(model, data(), num_particles=0, **options)
    assert list(result.log_likelihood) == ["x"]


def test_nuts_with_dropout_is_refused() -> None:
    with pytest.raises(ValueError, match="_mask' is discrete; use method='prior'"):
        nz.posterior(chords(spread=0.5), data(), method="nuts", num_samples=2, progress=False)


def test_masks_are_drawn_once_for_each_generated_text(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nz.LanguageModel(5, 4, spread=0.2, regularizer="variational-dropout")
    drawn: list[tuple[int, ...]] = []
    sample = Mask.rsample

    def counted(law: Mask, *shape: torch.Size) -> Tensor:
        drawn.append(tuple(law.batch_shape))
        return sample(law, *shape)

    monkeypatch.setattr(Mask, "rsample", counted)
    assert nz.generate(model, 6, num_samples=3).shape == (3, 6)
    assert drawn == [(3,)] * 4  # once each
