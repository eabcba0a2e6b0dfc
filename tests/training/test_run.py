"""Whole runs on a tiny text: their numbers and their files."""

import json
from dataclasses import replace
from pathlib import Path

import pyro
import pytest
import torch
from matplotlib.image import imread

from noisin_pyro.data import Stream
from noisin_pyro.inference import evaluate
from noisin_pyro.training import Config, Data, Model, Noise, Optimization, Run, train
from noisin_pyro.training.build import build_model, dataset, load_corpus, resolved
from noisin_pyro.training.config import from_json
from noisin_pyro.training.rundir import checkpointer

Texts = tuple[Path, Path, Path]


def _config(
    texts: Texts, folder: Path | None, epochs: int = 2, twin: bool = True, noise: Noise | None = None
) -> Config:
    return Config(
        data=Data(files=texts, batch_size=4, window=10),
        model=Model(hidden_size=16),
        noise=noise or Noise(spread=0.2),
        optimization=Optimization(learning_rate=0.01, epochs=epochs),
        run=Run(folder=folder, ensemble_samples=3, twin=twin),
    )


@pytest.mark.slow
def test_a_predictable_text_is_learned(texts: Texts, tmp_path: Path) -> None:
    result = train(_config(texts, tmp_path / "run", epochs=15))
    assert result.log[0]["valid_perplexity"] > 1.5
    for run in (result, result.twin):
        assert run is not None and run.test.perplexity < 1.2
    assert result.ensemble is not None and result.ensemble.perplexity < 1.3


@pytest.mark.usefixtures("drawn_pictures")
def test_a_run_writes_its_configuration_log_model_result_and_pictures(texts: Texts, tmp_path: Path) -> None:
    config = _config(texts, tmp_path / "run", noise=Noise(spread=0.4, learn_spread=True))
    result = train(config)
    names = {path.name for path in result.folder.iterdir()}
    files = {"config.json", "data.json", "log.csv", "best.pt", "last.pt", "result.json"}
    assert names == files | {"curves.png", "spreads.png", "deterministic"}
    assert {path.name for path in (result.folder / "deterministic").iterdir()} == files
    for picture in ("curves.png", "spreads.png"):
        assert imread(result.folder / picture).std() > 0.01
    assert from_json((result.folder / "config.json").read_text()) == replace(config, data=resolved(config.data))

    content = json.loads((result.folder / "result.json").read_text())
    assert content["versions"]["torch"] == torch.__version__
    assert content["device"] == "cpu" and content["threads"] == torch.get_num_threads()
    assert content["run"]["seed"] == 0 and content["seconds"] > 0
    assert content["spreads"]["gamma_1"] == result.log[result.best_epoch - 1]["gamma_1"]
    assert content["test"]["perplexity"] == result.test.perplexity
    assert (content["test"]["kind"], content["test_ensemble"]["method"]) == ("predictor", "ensemble")
    twin = json.loads((result.folder / "deterministic" / "result.json").read_text())
    assert twin["test"]["kind"] == "exact" and twin["test_ensemble"] is None and twin["spreads"] == {}

    before = {path: path.read_bytes() for path in result.folder.rglob("*") if path.is_file()}
    train(Config(run=Run(resume=result.folder)))
    assert {path: path.read_bytes() for path in result.folder.rglob("*") if path.is_file()} == before


def test_the_numbers_are_those_of_the_best_model_on_disk(texts: Texts, tmp_path: Path) -> None:
    config = _config(texts, tmp_path / "run", twin=False)
    result = train(config)
    corpus = load_corpus(config.data)
    model = build_model(config, corpus)
    model.load_state_dict(checkpointer.load(result.folder / "best.pt")["model"])
    for part, expected in ((corpus.valid, result.valid), (corpus.test, result.test)):
        held_out = dataset(part, config.data, "cpu", held_out=True)
        assert evaluate(model, held_out).nats_per_step == pytest.approx(expected.nats_per_step)
    assert result.valid.nats_per_step == pytest.approx(min(row["valid_nats"] for row in result.log))


def test_a_seed_makes_a_run_and_the_twin_starts_from_the_same_weights(texts: Texts, tmp_path: Path) -> None:
    first, second = (train(_config(texts, tmp_path / name, twin=twin)) for name, twin in (("a", True), ("b", False)))
    assert [row["train_nats"] for row in first.log] == [row["train_nats"] for row in second.log]
    assert first.ensemble == second.ensemble

    config = _config(texts, None)
    models = []
    for each in (config, config.deterministic_twin(tmp_path)):
        pyro.set_rng_seed(3)
        models.append(build_model(each, load_corpus(each.data)).state_dict())
    torch.testing.assert_close(models[0], models[1], rtol=0, atol=0)


def test_without_a_name_each_run_has_a_folder_of_its_own(
    texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = _config(texts, None, epochs=1, twin=False)
    assert [train(config).folder for _ in range(2)] == [Path("runs/train-1"), Path("runs/train-2")]


def test_a_run_is_never_overwritten(texts: Texts, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not empty.*choose another"):
        train(_config(texts, tmp_path))
    with pytest.raises(ValueError, match="file"):
        train(_config(texts, texts[0] / "run"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.txt", "train.txt", "valid.txt"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"noise": Noise("gamma:native")}, "mean"),
        ({"noise": Noise("bernoulli:multiplicative", learn_spread=True)}, "discrete"),
        ({"noise": Noise(spread_floor=0.2)}, "floor"),
        ({"noise": Noise(spread=0.05, learn_spread=True)}, "floor"),
        ({"noise": Noise("gausian")}, "gaussian"),
        ({"data": Data(name="ptb", root=Path("nowhere"))}, "nowhere"),
        ({"data": Data(name="pydocs", min_count=3)}, "min_count"),
        ({"data": Data(name="no-such-thing")}, "no-such-thing"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path, change: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        train(Config(run=Run(folder=tmp_path / "run"), **change))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="cuda"):
        train(Config(run=Run(device="cuda")))


def test_a_folder_is_a_text_too_and_options_of_other_data_are_refused(texts: Texts) -> None:
    folder = texts[0].parent
    by_folder, by_files = load_corpus(Data(name=str(folder))), load_corpus(Data(files=texts))
    assert isinstance(by_files.train, torch.Tensor) and isinstance(by_folder.train, torch.Tensor)
    assert torch.equal(by_folder.train, by_files.train)
    assert isinstance(dataset(by_files.train, Data(files=texts), "cpu"), Stream)
    small = load_corpus(Data(files=texts, max_vocabulary=4)).vocabulary
    assert small is not None and len(small) == 4
    with pytest.raises(ValueError, match="root"):
        load_corpus(Data(name=str(folder), root=folder))
