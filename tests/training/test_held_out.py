"""Held-out texts: one perplexity for one model, whatever the batch size in training."""

import json
import shutil
from pathlib import Path

import pytest

from noisin_pyro.cli import main
from noisin_pyro.data import Stream
from noisin_pyro.training import Config, Data, Model, Optimization, Run, train
from noisin_pyro.training.build import dataset, load_corpus, resolved
from noisin_pyro.training.rundir.layout import read_config

Texts = tuple[Path, Path, Path]


@pytest.fixture
def run(texts: Texts, tmp_path: Path) -> Path:
    data = Data(files=texts, batch_size=4, window=5)
    optimization = Optimization(epochs=1, learning_rate=0.05)
    train(Config(data, Model(hidden_size=6), optimization=optimization, run=Run(folder=tmp_path / "run", twin=False)))
    return tmp_path / "run"


def _evaluated(folder: Path, *options: str) -> dict[str, float]:
    path = folder.parent / f"{folder.name}-{len(list(folder.parent.glob('*.json')))}.json"
    assert main(["evaluate", str(folder), "--json", str(path), *options]) == 0
    return json.loads(path.read_text())


def _changed(folder: Path, name: str, **data: object) -> Path:
    """A copy of the run with other data options in its configuration."""
    copy = folder.with_name(name)
    shutil.copytree(folder, copy)
    content = json.loads((copy / "config.json").read_text())
    content["data"].update(data)
    (copy / "config.json").write_text(json.dumps(content))
    return copy


@pytest.mark.parametrize("split", ["valid", "test"])
def test_perplexity_does_not_depend_on_the_batch_size_in_training(run: Path, split: str) -> None:
    number = _evaluated(run, "--split", split)
    assert number["nats_per_step"] == json.loads((run / "result.json").read_text())[split]["nats_per_step"]
    other = _evaluated(_changed(run, "other", batch_size=20), "--split", split)
    assert {**other, "folder": ""} == {**number, "folder": ""}


def test_train_reports_the_same_numbers_of_one_checkpoint_at_two_batch_sizes(run: Path) -> None:
    """Its epochs are done; validation and test of best.pt are left."""
    results = []
    for size in (4, 20):
        copy = _changed(run, f"batches-of-{size}", batch_size=size)
        (copy / "result.json").unlink()
        results.append(train(Config(run=Run(resume=copy))))
    assert results[0].valid == results[1].valid and results[0].test == results[1].test


def test_columns_can_be_chosen_and_matter_a_little(run: Path) -> None:
    one, ten = (_evaluated(run, "--eval-batch-size", size)["nats_per_step"] for size in ("1", "10"))
    assert one != ten and one == pytest.approx(ten, rel=0.2)
    assert ten == _evaluated(run)["nats_per_step"]


def test_a_configuration_says_its_columns_and_one_of_version_0_1_keeps_its_reading(run: Path) -> None:
    path = run / "config.json"
    content = json.loads(path.read_text())
    assert content["data"]["eval_batch_size"] == 10
    del content["data"]["eval_batch_size"]
    path.write_text(json.dumps(content))
    assert read_config(run).data.eval_batch_size == 4


def test_training_and_held_out_texts_have_their_own_columns(texts: Texts) -> None:
    data = Data(files=texts, batch_size=4)
    corpus = load_corpus(data)
    parts = [dataset(corpus.valid, data, "cpu", held_out=held_out) for held_out in (False, True)]
    assert [part.batch_size for part in parts if isinstance(part, Stream)] == [4, 10]


@pytest.mark.parametrize(("name", "size"), [("ptb", 10), ("pydocs", 10), ("jsb", 20), ("mine.mat", 20), ("mine", 10)])
def test_the_default_is_ten_for_a_text_and_the_batch_size_for_music(name: str, size: int) -> None:
    assert resolved(Data(name=name)).eval_batch_size == size
    assert resolved(Data(name=name, eval_batch_size=7)).eval_batch_size == 7


def test_a_text_shorter_than_its_columns_is_refused(texts: Texts, tmp_path: Path) -> None:
    texts[1].write_text("one two\n")
    with pytest.raises(ValueError, match=r"eval batch size must be at most 3, .* got 10"):
        train(Config(Data(files=texts, batch_size=2), run=Run(folder=tmp_path / "run")))
    assert not (tmp_path / "run").exists()
