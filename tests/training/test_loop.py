"""The training loop: against the same loop in plain torch, and what it guarantees."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference import Evaluation, PriorAsGuide_ELBO, evaluate
from noisin_pyro.models import LanguageModel, NoisyRNN, SequenceModel, Spread
from noisin_pyro.training import Config, Data, Optimization, fit, loop, validation
from noisin_pyro.training.rundir import checkpointer, metrics_log


def _config(**options: object) -> Config:
    return Config(data=Data(batch_size=4, window=5), optimization=Optimization(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_without_noise_it_is_the_plain_torch_loop(stream: Stream, tmp_path: Path, cell: str) -> None:
    model = LanguageModel(11, 6, num_layers=2, cell=cell, spread=0.0).double()
    embedding, output = copy.deepcopy(model.embedding), copy.deepcopy(model.emission.linear)
    rnn = {"tanh": nn.RNN, "lstm": nn.LSTM}[cell](6, 6, num_layers=2, batch_first=True).double()
    rnn.load_state_dict(model.rnn.state_dict())
    plain = nn.ModuleList([embedding, rnn, output])
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)

    fit(model, stream, stream, _config(epochs=2, learning_rate=0.01, clip=0.05), tmp_path)
    for _ in range(2):
        state = None
        for batch in stream.batches():
            hidden, state = rnn(embedding(batch.inputs), state)
            state = tuple(s.detach() for s in state) if cell == "lstm" else state.detach()
            lengths = torch.full((4,), batch.targets.shape[1]) if batch.lengths is None else batch.lengths
            real = torch.arange(batch.targets.shape[1]) < lengths[:, None]
            loss = nn.functional.cross_entropy(output(hidden)[real], batch.targets[real])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 0.05)
            optimizer.step()

    for actual, expected in ((model.embedding, embedding), (model.emission.linear, output)):
        torch.testing.assert_close(actual.state_dict(), expected.state_dict(), rtol=0, atol=1e-10)
    for name, expected in rnn.state_dict().items():
        torch.testing.assert_close(model.rnn.state_dict()[name], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_loss_is_nats_per_step_of_padded_sequences_too(shuffled: bool) -> None:
    chords = (torch.rand(9, 7, 5, dtype=torch.float64) < 0.3).double()
    data = Sequences(chords, chords.roll(-1, 1), torch.tensor([7, 1, 3, 5, 7, 2, 6, 4, 7]))
    model = SequenceModel(NoisyRNN(5, 4, spread=0.0), "bernoulli", 5).double()
    bound = PriorAsGuide_ELBO()(model)
    still = torch.optim.SGD(bound.parameters(), lr=0.0)
    order = torch.Generator().manual_seed(1) if shuffled else None
    nats = loop.train_epoch(loop.make_train_step(bound, still), data.batches(2, order))
    assert nats == pytest.approx(evaluate(model, data).nats_per_step, abs=1e-12)


def test_log_has_the_spread_of_every_noisy_layer_and_a_learned_one_moves(stream: Stream, tmp_path: Path) -> None:
    model = LanguageModel(11, 6, num_layers=2, spread=Spread(0.5, learn=True), input_spread=0.2)
    rows = fit(model, stream, stream, _config(epochs=2, learning_rate=0.02, num_particles=2), tmp_path)
    assert metrics_log.read(tmp_path / "log.csv") == [pytest.approx(row, rel=1e-5) for row in rows]
    for row in rows:
        assert row["gamma_0"] == pytest.approx(0.2)
        assert row["train_perplexity"] == pytest.approx(math.exp(row["train_nats"]))
        assert row["valid_perplexity"] == pytest.approx(math.exp(row["valid_nats"]))
        assert row["seconds"] > 0 and row["tokens_per_second"] > 0
    for layer in ("gamma_1", "gamma_2"):
        assert 0.1 < rows[1][layer] != rows[0][layer] != 0.5


def test_it_stops_when_validation_no_longer_improves_and_saves_the_best(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([3.0, 2.0, 2.5, 2.25, 1.0])
    seen = []

    def scripted(model: LanguageModel, *_: object, **__: object) -> Evaluation:
        seen.append(model.embedding.weight.detach().clone())
        return Evaluation("mean", "predictor", next(scores), 0.0, 0.0, 103, 0)

    monkeypatch.setattr(validation, "evaluate", scripted)
    rows = fit(LanguageModel(11, 6), stream, stream, _config(epochs=5, patience=2), tmp_path)
    best = checkpointer.load(tmp_path / "best.pt")
    assert [row["valid_nats"] for row in rows] == [3.0, 2.0, 2.5, 2.25]
    assert (best["epoch"], best["valid_nats"]) == (2, 2.0)
    assert torch.equal(best["model"]["embedding.weight"], seen[1])


@pytest.mark.parametrize("cell", ["relu", "lstm"])
@pytest.mark.parametrize(
    ("spoilt", "origin"),
    [
        ("rnn.weight_hh_l0", "states of layer 1"),
        ("rnn.bias_ih_l1", "states of layer 2"),
        ("emission.linear.bias", "emission"),
    ],
)
def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights(
    stream: Stream, tmp_path: Path, cell: str, spoilt: str, origin: str
) -> None:
    model = LanguageModel(11, 6, num_layers=2, cell=cell, spread=[0.25, 0.0])
    with torch.no_grad():
        model.get_parameter(spoilt).data.flatten()[0] = math.nan
    before = copy.deepcopy(model.embedding.weight)
    message = rf"epoch 1/3, step 1: the loss is nan, first in the {origin}.*: gamma_1 = 0\.25, gamma_2 = 0\)"
    with pytest.raises(FloatingPointError, match=message):
        fit(model, stream, stream, _config(epochs=3), tmp_path)
    assert torch.equal(model.embedding.weight, before)
    assert not list(tmp_path.iterdir())


def test_an_infinite_validation_loss_stops_and_leaves_the_best_model(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([2.0, math.inf])
    monkeypatch.setattr(
        validation, "evaluate", lambda *_, **__: Evaluation("mean", "exact", next(scores), 0.0, 0.0, 103, 0)
    )
    with pytest.raises(FloatingPointError, match="epoch 2/3, validation"):
        fit(LanguageModel(11, 6), stream, stream, _config(epochs=3), tmp_path)
    assert checkpointer.load(tmp_path / "best.pt")["epoch"] == 1


@pytest.mark.parametrize("optimizer", ["sgd", "ASGD", "RMSprop", "AdamW"])
def test_any_optimizer_by_name(stream: Stream, tmp_path: Path, optimizer: str) -> None:
    rows = fit(LanguageModel(11, 6), stream, stream, _config(epochs=1, optimizer=optimizer, clip=None), tmp_path)
    assert rows[0]["learning_rate"] == 0.001


def test_averaged_weights_are_validated_and_saved_while_the_others_are_trained(stream: Stream, tmp_path: Path) -> None:
    model = LanguageModel(11, 6, spread=Spread(0.5, learn=True))
    rows = fit(model, stream, stream, _config(epochs=3, optimizer="ASGD", learning_rate=1.0), tmp_path)
    best = checkpointer.load(tmp_path / "best.pt")
    averaged = copy.deepcopy(model)
    averaged.load_state_dict(best["model"])
    assert not torch.equal(averaged.embedding.weight, model.embedding.weight)
    row = rows[best["epoch"] - 1]
    assert evaluate(averaged, stream).nats_per_step == row["valid_nats"] == best["valid_nats"]
    assert averaged.rnn.spreads()["gamma_1"] == row["gamma_1"] != model.rnn.spreads()["gamma_1"]


def test_the_rate_follows_the_schedule(stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([3.0, 3.5, 2.0, 2.5, 1.0])
    monkeypatch.setattr(
        validation, "evaluate", lambda *_, **__: Evaluation("mean", "exact", next(scores), 0.0, 0.0, 103, 0)
    )
    config = _config(epochs=5, schedule="divide", schedule_factor=2.0, learning_rate=0.8)
    rows = fit(LanguageModel(11, 6), stream, stream, config, tmp_path)
    assert [row["learning_rate"] for row in rows] == [0.8, 0.8, 0.4, 0.4, 0.2]
