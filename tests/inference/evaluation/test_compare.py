"""Comparison of models, guides and methods in one table."""

import csv
import io
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal

from noisin_pyro import LanguageModel, NoisyRNN, SequenceModel, Spread, compare, evaluate, innovations
from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference.evaluation.compare import COLUMNS

DATA = Stream(torch.randint(5, (41,), generator=torch.Generator().manual_seed(0)), batch_size=4, window=6)
SAMPLES = {"ensemble": 10, "importance": 60, "particle-filter": 200}


@pytest.fixture(scope="module")
def models() -> dict[str, LanguageModel]:
    torch.manual_seed(0)  # a module's fixtures are made before each test is seeded
    return {name: LanguageModel(5, 4, spread=spread).double() for name, spread in {"noisy": 1.0, "clean": 0.0}.items()}


def test_scores_equal_those_of_evaluate_with_the_same_seed(models):
    before = torch.get_rng_state()
    table = compare(models, DATA, num_samples=SAMPLES, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert [(row["model"], row["method"]) for row in table.rows] == [
        ("noisy", "mean"), ("noisy", "ensemble"), ("noisy", "importance"), ("noisy", "particle-filter"),
        ("clean", "mean"),
    ]  # fmt: skip
    for row in table.rows:
        torch.manual_seed(3)
        result = evaluate(models[row["model"]], DATA, row["method"], num_samples=SAMPLES.get(row["method"]))
        for column in ("kind", "nats_per_step", "standard_error", "pareto_k", "effective_samples"):
            expected = getattr(result, column)
            both_nan = isinstance(expected, float) and math.isnan(expected) and math.isnan(row[column])
            assert row[column] == expected or both_nan, column  # a text of one block has no standard error
        assert row["monte_carlo_error"] == result.monte_carlo_error
        assert row["samples"] == (result.num_samples or None)
        assert row["parameters"] == 5 * 4 + 2 * (4 * 4 + 4) + 4 * 5 + 5
        assert row["seconds_per_step"] > 0


def test_gap_is_the_difference_to_the_particle_filter(models):
    rows = {row["method"]: row for row in compare({"noisy": models["noisy"]}, DATA, num_samples=SAMPLES).rows}
    reference = rows["particle-filter"]
    assert reference["gap"] is None
    for method in ("mean", "ensemble", "importance"):
        assert rows[method]["gap"] == rows[method]["nats_per_step"] - reference["nats_per_step"]
    few = compare({"noisy": models["noisy"]}, DATA, methods=["importance", "particle-filter"], num_samples=4).rows[0]
    one = compare({"noisy": models["noisy"]}, DATA, methods=["importance"], num_samples=1).rows[0]
    assert one["nats_per_step"] > reference["nats_per_step"] < few["nats_per_step"] and few["gap"] > 0
    for row in compare(models, DATA, methods=["mean"]).rows:
        assert row["gap"] is None


def test_model_with_dropout_has_no_particle_filter_score() -> None:
    model = LanguageModel(5, 4, regularizer="D")
    rows = compare({"dropped": model}, DATA, num_samples=4).rows
    assert [row["method"] for row in rows] == ["mean", "ensemble", "importance"]
    with pytest.raises(ValueError, match="does not support dropout masks"):
        compare({"dropped": model}, DATA, methods=["particle-filter"], num_samples=4)


def test_importance_is_computed_from_the_prior_and_from_the_guide(linear_gaussian):
    model = linear_gaussian()
    inputs = torch.zeros(3, 4, 1).double()
    with torch.no_grad(), poutine.block():
        data = Sequences(inputs, poutine.trace(model).get_trace(inputs).nodes["x"]["value"])
    view = innovations(model)
    guide = AutoNormal(view)
    guide(data.inputs, data.targets)

    def wide(inputs, targets, state=None, lengths=None):
        law = dist.Normal(torch.zeros(4, 2).double(), 1.5)
        with pyro.plate("sequences", len(targets), dim=-1):
            pyro.sample("z_1_noise", law.to_event(2))

    entries = {"prior": model, "auto": (view, guide), "wide": (view, wide)}
    table = compare(entries, data, methods=["particle-filter", "importance"], num_samples=400)
    assert [row["guide"] for row in table.rows if row["method"] == "importance"] == [
        "prior", "prior", "AutoNormal", "prior", "wide"
    ]  # fmt: skip
    rows = {(row["model"], row["method"]): row for row in table.rows}  # of the two by importance, that of the guide
    assert {rows[name, "particle-filter"]["guide"] for name in entries} == {"prior"}
    own = sum(p.numel() for p in model.parameters())
    assert rows["prior", "importance"]["parameters"] == rows["wide", "importance"]["parameters"] == own
    assert rows["auto", "particle-filter"]["parameters"] == own
    assert rows["auto", "importance"]["parameters"] == own + 2 * 3 * 4 * 2
    one, other = rows["prior", "importance"], rows["wide", "importance"]
    # both near log p(x): within five errors of each other
    assert abs(one["nats_per_step"] - other["nats_per_step"]) < 5 * (
        one["monte_carlo_error"] + other["monte_carlo_error"]
    )


def test_text_and_csv_contain_every_cell(models, tmp_path):
    table = compare(models, DATA, methods=["mean", "importance"], num_samples=30)
    head, *lines = str(table).splitlines()
    assert all(title in head for title, _ in COLUMNS.values()) and len(lines) == 3
    assert lines[1].split()[:5] == ["noisy", "importance", "prior", "30", "bound"]
    assert f"{table.rows[1]['nats_per_step']:.4f}" in lines[1]
    table.to_csv(tmp_path / "table.csv")
    written = (tmp_path / "table.csv").read_bytes().decode()
    assert written == table.csv()
    for cells, row in zip(csv.DictReader(io.StringIO(written)), table.rows, strict=True):
        assert list(cells) == list(COLUMNS)
        for column, cell in cells.items():
            value = row[column]
            assert cell == ("" if value is None else str(value))


def test_custom_program_has_no_parameter_count(models):
    model = models["noisy"]
    (row,) = compare({"mine": lambda *args, **kwargs: model(*args, **kwargs)}, DATA, methods=["ensemble"]).rows
    assert row["parameters"] is None and row["samples"] == 50 and math.isfinite(row["nats_per_step"])


def test_models_that_mask_different_steps_are_refused(models):
    model = models["clean"]

    def masked(inputs, targets, state=None, lengths=None):
        return model(inputs, targets, state, lengths, mask=targets != 0)

    assert len({row["nats_per_step"] for row in compare({"one": masked, "two": masked}, DATA, ["mean"]).rows}) == 1
    with pytest.raises(ValueError, match="'some' masks other steps of the data than 'all'"):
        compare({"all": model, "some": masked}, DATA, ["mean"])


def test_refusals(models):
    with pytest.raises(ValueError, match="models must contain at least one"):
        compare({}, DATA)
    with pytest.raises(ValueError, match="methods must contain at least one of mean, "):
        compare(models, DATA, methods=[])
    with pytest.raises(ValueError, match=r"methods must be one of .*, got 'means'; did you mean 'mean'"):
        compare(models, DATA, methods=["means"])
    with pytest.raises(ValueError, match="num_samples=3 has no effect on methods mean"):
        compare(models, DATA, methods=["mean"], num_samples=3)
    with pytest.raises(ValueError, match="num_samples by method must be one of ensemble, got 'importance'"):
        compare(models, DATA, methods=["mean", "ensemble"], num_samples={"importance": 3})
    random = LanguageModel(5, 4, spread=Spread(prior=dist.LogNormal(0.0, 1.0))).double()
    with pytest.raises(ValueError, match="is sampled outside") as refused:
        compare({"random": random}, DATA, methods=["mean", "importance"])
    assert refused.value.__notes__ == ["while scoring 'random' by 'importance'"]


def test_by_default_a_program_gets_the_methods_that_apply():
    model = SequenceModel(NoisyRNN(2, 3), "gaussian", 2)
    data = Sequences(torch.randn(2, 4, 2), torch.randn(2, 4, 2))
    masked = poutine.mask(model, mask=torch.tensor(True))
    table = compare({"own": masked}, data, num_samples=4)
    assert [row["method"] for row in table.rows] == ["mean", "ensemble", "importance"]
