"""Runs on tables of series: from a file to a folder that scores new data alone."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import noisin_pyro as nz
from noisin_pyro.cli import main
from noisin_pyro.data import Series, from_frame
from noisin_pyro.models import Scaled
from noisin_pyro.training import Data, Inference, Model, Noise, Optimization, Run
from noisin_pyro.training.build import build_model, dataset, load_corpus
from noisin_pyro.training.config import from_json, to_json
from noisin_pyro.training.description import DataDescription

COVARIATES = ("promo", "temperature")


def sales(rows: int = 40) -> pd.DataFrame:
    """Two shops, with missing values and missing rows."""
    rng, parts = np.random.default_rng(0), []
    for shop in ("north", "south"):
        columns = {
            "sales": rng.normal(200, 30, rows),
            "promo": rng.integers(2, size=rows),
            "temperature": rng.normal(size=rows),
        }
        part = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=rows), "shop": shop, **columns})
        part.loc[[3, 7], "sales"] = np.nan
        parts.append(part.drop(index=[5, 20]))
    return pd.concat(parts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    sales().to_csv(tmp_path / "sales.csv", index=False)
    return tmp_path / "sales.csv"


def config(path: Path, **groups: Any) -> nz.Config:
    run = Run(folder=path.parent / "run", twin=False, ensemble_samples=0)
    return nz.Config(
        **{
            "data": Data(name=str(path), values=("sales",), covariates=COVARIATES),
            "model": Model(hidden_size=4),
            "optimization": Optimization(epochs=2),
            "run": run,
        }
        | groups
    )


def options(path: Path, *more: str) -> list[str]:
    return [
        "train", "--data", str(path), "--values", "sales", "--covariates", *COVARIATES, "--hidden-size", "4",
        "--epochs", "1", "--no-twin", "--ensemble-samples", "0", "--folder", str(path.parent / "run"), *more,
    ]  # fmt: skip


SCORE = """
import sys, noisin_pyro as nz
run = nz.load(sys.argv[1])
data = nz.data.from_frame(nz.data.read_table(sys.argv[2]), format=run.series)
print(nz.evaluate(run.model, data).nats_per_step.hex())
"""


@pytest.mark.slow
def test_a_copy_of_the_folder_scores_new_data_in_another_process(path: Path) -> None:
    result = nz.train(config(path, inference=Inference(guide="filtering")))
    new = path.parent / "new.csv"
    sales(25).to_csv(new, index=False)
    run = nz.load(result.folder)
    here = nz.evaluate(run.model, from_frame(pd.read_csv(new), format=run.series)).nats_per_step
    elsewhere = path.parent / "elsewhere"
    shutil.copytree(result.folder, elsewhere)
    path.unlink()
    shutil.rmtree(result.folder)
    command = [sys.executable, "-c", SCORE, str(elsewhere), str(new)]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float.fromhex(there) == here
    assert run.guide is not None


def test_results_are_in_the_units_of_the_data(path: Path) -> None:
    """A table in other units has another scale, and the same model: scores differ by its logarithm."""
    table = sales()
    other = path.with_name("cents.csv")
    table.assign(sales=100 * table.sales).to_csv(other, index=False)
    corpora = [load_corpus(config(each).data) for each in (path, other)]
    models = []
    for corpus in corpora:
        torch.manual_seed(0)
        models.append(build_model(config(path), corpus).double())
    one, hundred = (nz.evaluate(model, corpus.test) for model, corpus in zip(models, corpora, strict=True))
    assert hundred.nats_per_step - one.nats_per_step == pytest.approx(np.log(100), abs=1e-6)


def test_what_a_run_has_in_its_folder(path: Path) -> None:
    result = nz.train(config(path))
    corpus, run = load_corpus(config(path).data), nz.load(result.folder)
    assert isinstance(corpus.train, Series) and run.series == corpus.train.format
    assert isinstance(run.model.emission, Scaled) and run.series.columns.frequency == "D"
    assert run.corpus.test.num_steps == result.test.num_steps
    assert nz.evaluate(run.model, run.corpus.test).nats_per_step == pytest.approx(result.test.nats_per_step, abs=1e-12)
    assert run.corpus.test.inputs.dtype == torch.float32 and corpus.test.inputs.dtype == torch.float64
    content = json.loads((result.folder / "config.json").read_text())
    assert content["data"]["values"] == ["sales"] and from_json(to_json(run.config)) == run.config
    resumed = nz.train(dataclasses.replace(nz.Config(), run=Run(resume=result.folder)), epochs=3)
    assert len(resumed.log) == 3


def test_descriptions_of_earlier_versions_and_damaged_ones(tmp_path: Path) -> None:
    old = {"name": "jsb", "features": 88, "vocabulary": None}
    (tmp_path / "data.json").write_text(json.dumps(old))
    assert DataDescription.read(tmp_path) == DataDescription("jsb", None, 88)
    for series in ({}, {"columns": 1}, {"columns": {}, "layout": {}, "emission": "gaussian"}):
        (tmp_path / "data.json").write_text(json.dumps(old | {"series": series}))
        with pytest.raises(ValueError, match=r"data\.json is damaged"):
            DataDescription.read(tmp_path)


@pytest.mark.parametrize(
    ("emission", "scaling", "kind"),
    [
        (None, "standard", True),
        ("gaussian", "standard", True),
        ("poisson", "mean", False),
        ("bernoulli", "none", False),
    ],
)
def test_scaling_follows_from_the_emission(path: Path, emission: str | None, scaling: str, kind: bool) -> None:
    data = config(path).data
    corpus = load_corpus(data, emission)
    layout = corpus.train.format.layout.value_scaling
    assert {
        "standard": layout.loc[0] > 0,
        "mean": layout.loc[0] == 0 != layout.scale[0] - 1,
        "none": layout.scale == (1.0,),
    }[scaling]
    model = build_model(config(path, model=Model(hidden_size=4, emission=emission)), corpus)
    assert (model.emission.scale is not None) is kind
    unscaled = load_corpus(dataclasses.replace(data, scaling="none"), emission)
    assert unscaled.train.format.layout.value_scaling.scale == (1.0,)


def test_windows_are_of_training_alone(path: Path) -> None:
    data = dataclasses.replace(config(path).data, window=7)
    corpus = load_corpus(data)
    train, test = dataset(corpus.train, data, "cpu"), dataset(corpus.test, data, "cpu", held_out=True)
    assert train.inputs.shape[1] == 7 and test.inputs.shape[1] == 40
    assert train.num_steps == corpus.train.num_steps and train.inputs.dtype == torch.float32


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--time", "day"), "there is no column 'day'; the columns are"),
        (("--id", "stor"), "there is no column 'stor'; the columns are"),
        (("--split", "series"), "split by series needs at least 3 series, got 2"),
        (("--emission", "categorical"), "emission must be of vectors, got Categorical"),
        (("--tie-weights",), "tied weights are for texts"),
        (("--test-fraction", "1.5"), "--test-fraction must be"),
        (("--min-count", "2"), "--min-count: only for your own texts"),
    ],
)
def test_the_command_refuses_in_one_line(path: Path, more: tuple[str, ...], message: str, capsys: Any) -> None:
    assert main(options(path, *more)) == 2
    assert message in capsys.readouterr().err.splitlines()[-1] and not (path.parent / "run").exists()


def test_options_of_tables_are_refused_elsewhere() -> None:
    for name, value in (("id", "a"), ("covariates", ("a",)), ("time_difference", True), ("split", "series")):
        with pytest.raises(ValueError, match=rf"{name}: only for tables \(\.csv, \.tsv, \.parquet\)"):
            load_corpus(Data(**{name: value}))


def test_the_commands_train_evaluate_and_compare(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = path.parent / "run"
    assert main(options(path, "--window", "10", "--precision", "float64")) == 0
    assert "nats per step of the values in their own units" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--data", str(path), "--per-token", str(path.with_name("t.csv"))]) == 0
    assert "by densities in the units of the data" in capsys.readouterr().out
    tokens = pd.read_csv(path.with_name("t.csv"))
    assert len(tokens) == sales().sales.notna().sum() and set(tokens["sequence"]) == {"north", "south"}
    assert main(["compare", str(run), "--methods", "mean"]) == 0
    for wrong in (("--split", "valid"), ("--text", str(path)), ("--window", "3")):
        assert main(["evaluate", str(run), "--data", str(path), *wrong]) == 2
    assert main(["generate", str(run)]) == 2


def test_learned_spreads_and_sweeps_take_tables(path: Path) -> None:
    from noisin_pyro.search import search

    base = config(path, optimization=Optimization(epochs=1), noise=Noise(learn_spread=True, spread=0.2))
    result = search(base, {"optimization.learning_rate": (0.01,)}, path.parent / "s", trials=1, trial_epochs=1)
    assert len(result.trials) == 1 and result.measure == "nats"


def test_impossible_values_are_refused_where_new_data_are_scored(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = sales().assign(sales=lambda table: table.sales.round())
    counts.to_csv(path, index=False)
    assert main(options(path)) == 0
    assert (
        "the values suggest the emission negative-binomial: counts with a variance of more" in capsys.readouterr().err
    )
    new = path.with_name("new.csv")
    counts.assign(sales=-counts.sales).to_csv(new, index=False)
    assert main(["evaluate", str(path.parent / "run"), "--data", str(new)]) == 2
    assert "targets must be in the support of the emission" in capsys.readouterr().err


@pytest.mark.parametrize("emission", ["poisson", "negative-binomial"])
def test_the_first_rates_of_counts_are_near_their_mean(emission: str, path: Path) -> None:
    sales().assign(sales=lambda table: (4 * table.sales).round()).to_csv(path, index=False)
    own = config(path, model=Model(hidden_size=4, emission=emission))
    corpus = load_corpus(own.data, emission)
    mean = float(corpus.train.values.nanmean())
    with torch.no_grad():
        rates = build_model(own, corpus).double()(corpus.train.inputs).emission.mean
    assert mean > 700 and 0.2 < float(rates.log().mean().exp()) / mean < 5


def test_exported_means_are_in_the_units_of_the_data(path: Path) -> None:
    corpus = load_corpus(config(path).data)
    model = build_model(config(path), corpus).double()
    means, _ = nz.export(model)(corpus.test.inputs)
    expected = nz.noise_off(model)(corpus.test.inputs).emission.mean
    torch.testing.assert_close(means, expected, rtol=0, atol=1e-9)
