"""Options as users give them: numbers of NumPy and torch, and paths in the home folder."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from noisin_pyro.commands.compare import Compare
from noisin_pyro.commands.evaluate import Evaluate
from noisin_pyro.commands.generate import Generate
from noisin_pyro.commands.reproduce import Reproduce
from noisin_pyro.commands.sweep import SearchRun, Sweep
from noisin_pyro.training import Config, Data, Model, Noise, Optimization, Run
from noisin_pyro.training.build import resolved
from noisin_pyro.training.config import from_json, to_json


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("integer", "real", "boolean"),
    [
        (np.int64, np.float64, np.bool_),
        (np.int32, np.float32, bool),
        (np.uint8, np.float16, np.array),
        (torch.tensor, torch.tensor, torch.tensor),
    ],
)
def test_scalars_of_numpy_and_torch_are_numbers(integer, real, boolean) -> None:
    config, plain = (
        Config(
            data=Data(batch_size=to_int(4), window=to_int(7)),
            model=Model(hidden_size=to_int(16), num_layers=to_int(2), tie_weights=to_bool(True)),
            noise=Noise(spread=to_float(0.5), learn_spread=to_bool(True)),
            optimization=Optimization(learning_rate=to_float(0.25), epochs=to_int(3), clip=to_float(2.5)),
            run=Run(seed=to_int(11), checkpoint_seconds=to_float(1.5)),
        )
        for to_int, to_float, to_bool in ((integer, real, boolean), (int, float, bool))
    )
    assert config == plain and to_json(config) == to_json(plain)
    assert from_json(to_json(config)) == plain
    assert {type(value) for value in dataclasses.astuple(config.optimization)} <= {int, float, str, type(None)}


def test_an_array_is_no_number() -> None:
    with pytest.raises(ValueError, match="hidden size must be a valid integer, got array"):
        Config(model=Model(hidden_size=np.array([3, 4])))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"hidden size must be a valid integer, got .*3\.0"):
        Config(model=Model(hidden_size=np.float64(3)))  # type: ignore[arg-type]


def test_a_tilde_is_the_home_folder_in_every_path(home: Path) -> None:
    x, files = home / "x", (Path("~/a"), Path("~/b"), Path("~/c"))
    assert Run(folder=Path("~/x")).folder == Run(resume=Path("~/x")).resume == SearchRun(folder=Path("~/x")).folder == x
    assert Data(root=Path("~/x")).root == x and Data(files=files).files == (home / "a", home / "b", home / "c")
    assert Data(name="~/x").name == resolved(Data(name="~/x")).name == str(x)
    assert Compare(folders=(Path("~/x"), Path("y"))).folders == (x, Path("y"))
    evaluation = Evaluate(Path("~/x"), json=Path("~/j"), per_token=Path("~/p"), data_root=Path("~"))
    assert (evaluation.folder, evaluation.json, evaluation.per_token) == (x, home / "j", home / "p")
    assert evaluation.data_root == home
    assert Reproduce("zaremba", data="~/x", folder=Path("~/x")).folder == x
    assert Reproduce("zaremba", data="~/x").data == str(x)
    assert Sweep(storage="sqlite:///x.db").storage == "sqlite:///x.db"


def test_a_tilde_elsewhere_stays(home: Path) -> None:
    assert Data(name="./~/x").name == "./~/x" and Data(name="a~").name == "a~"
    assert Run(folder=Path("a/~/x")).folder == Path("a/~/x")
    assert Run(folder=Path("~no-such-user/x")).folder == Path("~no-such-user/x")
    assert Generate(Path("~/x"), prompt=("~", "~/y")) == Generate(home / "x", prompt=("~", "~/y"))
