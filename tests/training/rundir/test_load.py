"""Loading a run: errors and their messages."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noisin_pyro.training import Config, Data, Model, Optimization, Run, train
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.rundir import checkpointer
from noisin_pyro.training.rundir.load import load_run

from ..texts import write_texts

Texts = tuple[Path, Path, Path]
FUZZ = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _train(texts: Texts, folder: Path) -> Path:
    config = Config(
        data=Data(files=texts, batch_size=4, window=10),
        model=Model(hidden_size=4),
        optimization=Optimization(epochs=1),
        run=Run(folder=folder, twin=False, ensemble_samples=0),
    )
    return train(config).folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    with program_settings():
        return _train(write_texts(tmp_path_factory.mktemp("texts")), tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run's folder, to be damaged."""
    return shutil.copytree(trained, tmp_path / "run")


def test_the_model_is_the_best_one(run: Path) -> None:
    loaded = load_run(run)
    saved = checkpointer.load(run / "best.pt")["model"]
    torch.testing.assert_close(loaded.model.state_dict(), saved, rtol=0, atol=0)
    assert loaded.config.model.hidden_size == 4 and loaded.corpus.vocabulary is not None


def test_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(ValueError, match=r"is not a run's folder: it has no config\.json"):
            load_run(folder)


def test_no_best_model(run: Path) -> None:
    (run / "best.pt").unlink()
    with pytest.raises(ValueError, match=r"has no best\.pt"):
        load_run(run)


def test_weights_that_are_not_finite(run: Path) -> None:
    best = checkpointer.load(run / "best.pt")
    best["model"]["embedding.weight"][0, 0] = torch.nan
    checkpointer.save(run / "best.pt", best)
    with pytest.raises(ValueError, match="not finite"):
        load_run(run)


def test_another_text_than_it_was_trained_on(texts: Texts, tmp_path: Path) -> None:
    run = _train(texts, tmp_path / "run")
    for text in texts:
        text.write_text("other words than before, and more of them\n" * 9)
    with pytest.raises(ValueError, match="have changed since"):
        _ = load_run(run).corpus
    (run / "data.json").unlink()
    with pytest.raises(ValueError, match="have changed since"):
        load_run(run)


@pytest.mark.parametrize("content", [{"model": {}}, {"epoch": 1}, [1, 2], {"model": None}, {"model": {"rnn": 3}}])
def test_another_model(run: Path, content: dict) -> None:
    checkpointer.save(run / "best.pt", content)
    with pytest.raises(ValueError, match=r"does not fit|it holds a list"):
        load_run(run)


@FUZZ
@given(st.data())
def test_a_best_model_with_damaged_bytes(run: Path, data: st.DataObject) -> None:
    whole = (run / "best.pt").read_bytes()
    try:
        cut = data.draw(st.integers(0, len(whole) - 100))
        (run / "best.pt").write_bytes(whole[:cut] + data.draw(st.binary(max_size=20)))
        with pytest.raises(ValueError, match=r"best\.pt.* (cannot be read|does not fit)"):
            load_run(run)
    finally:
        (run / "best.pt").write_bytes(whole)


@FUZZ
@given(st.data())
def test_a_configuration_with_a_value_that_is_none_of_its_field_s(run: Path, data: st.DataObject) -> None:
    whole = (run / "config.json").read_text()
    content = json.loads(whole)
    group = data.draw(st.sampled_from(["data", "model", "noise", "optimization", "run"]))
    field = data.draw(st.sampled_from(sorted(content[group])))
    content[group][field] = data.draw(
        st.none() | st.booleans() | st.integers(-3, 9) | st.text(max_size=5) | st.lists(st.integers(), max_size=3)
    )
    try:
        (run / "config.json").write_text(json.dumps(content))
        try:
            load_run(run)  # some values are also valid
        except ValueError as error:
            assert str(error)
    finally:
        (run / "config.json").write_text(whole)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"text"', "{}", '{"data": 1, "run": 2}', "\xff"])
def test_a_damaged_configuration(run: Path, text: str) -> None:
    (run / "config.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        load_run(run)


def test_a_run_can_move(run: Path, tmp_path: Path) -> None:
    shutil.move(run, tmp_path / "elsewhere")
    assert load_run(tmp_path / "elsewhere", device="cpu").config.model.hidden_size == 4
