"""The configuration: its JSON, and invalid options."""

import json
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisin_pyro.models import CELLS, EMISSIONS, REGULARIZERS
from noisin_pyro.training import Config, Data, Inference, Model, Noise, Optimization, Run, options
from noisin_pyro.training.config import from_json, to_json

paths = st.sampled_from([Path("a"), Path("b/ü")])
configs = st.builds(
    Config,
    data=st.builds(
        Data,
        files=st.none() | st.tuples(paths, paths, paths),
        root=st.none() | paths,
        window=st.integers(1, 99),
    ),
    model=st.builds(
        Model,
        cell=st.sampled_from(list(CELLS)),
        tie_weights=st.booleans(),
        regularizer=st.just("variational-dropout"),
        dropout=st.none() | st.floats(0, 0.99),
    ),
    noise=st.builds(
        Noise,
        noise=st.text(),
        spread=st.floats(0, 9),
        learn_spread=st.just(True),
        spread_floor=st.none() | st.floats(0, 1),
    ),
    optimization=st.builds(
        Optimization,
        clip=st.none() | st.floats(0.1, 9),
        learning_rate=st.floats(1e-9, 9),
        weight_decay=st.none() | st.floats(0, 9),
        patience=st.none() | st.integers(1, 9),
        minutes=st.none() | st.floats(0.01, 99),
    ),
    run=st.builds(Run, folder=st.none() | paths, seed=st.integers(0, 2**32 - 1), ensemble_samples=st.just(0)),
)


@given(configs)
def test_json_round_trip(config: Config) -> None:
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize("text", ["{}", '{"data": 1}', "no JSON", to_json(Config()).replace("spread", "sprad")])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        from_json(text)


def test_cells_and_emissions_are_those_of_the_models() -> None:
    assert list(options.CELLS) == list(CELLS) and list(options.EMISSIONS) == list(EMISSIONS)


def test_strings_are_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    given: dict[str, Any] = {"data": Data(files=("a", "~/b", Path("c"))), "run": Run(folder="~/runs/d", init_from="e")}
    config = Config(**given)
    assert config.data.files == (Path("a"), Path("/home/x/b"), Path("c"))
    assert (config.run.folder, config.run.init_from) == (Path("/home/x/runs/d"), Path("e"))
    assert from_json(to_json(config)) == config


def test_a_single_path_or_name_is_a_tuple_of_one() -> None:
    one: Any = "book.txt"
    config = Config(data=Data(files=one, values=one, covariates=one))
    assert config.data.files == (Path("book.txt"),) == Data(files=cast(Any, Path("book.txt"))).files
    assert config.data.values == config.data.covariates == ("book.txt",)
    groups = json.loads(to_json(config))
    groups["data"]["files"] = "book.txt"
    assert from_json(json.dumps(groups)) == config
    assert Data(cast(Any, Path("book.txt"))).name == "book.txt"


def test_regularizers_are_those_of_the_models() -> None:
    assert get_args(get_type_hints(Model)["regularizer"]) == REGULARIZERS


@pytest.mark.parametrize(
    ("groups", "named"),
    [
        ({"data": Data(batch_size=0)}, "batch size"),
        ({"data": Data(window=-3)}, "window"),
        ({"data": Data(name="ptb", files=(Path("a"), Path("b"), Path("c")))}, "files"),
        ({"model": Model(hidden_size=0)}, "hidden size"),
        ({"model": Model(num_layers=0)}, "layers"),
        ({"optimization": Optimization(epochs=0)}, "epochs"),
        ({"optimization": Optimization(patience=0)}, "patience"),
        ({"optimization": Optimization(minutes=0.0)}, "minutes must be greater than 0, got 0.0"),
        ({"optimization": Optimization(minutes=float("inf"))}, "minutes"),
        ({"optimization": Optimization(minutes=float("nan"))}, "minutes"),
        ({"optimization": Optimization(num_particles=0)}, "particles"),
        ({"optimization": Optimization(learning_rate=float("nan"))}, "learning rate"),
        ({"optimization": Optimization(clip=-1.0)}, "clip"),
        ({"optimization": Optimization(optimizer="Adm")}, "did you mean 'Adam'"),
        ({"optimization": Optimization(optimizer="LBFGS")}, "LBFGS"),
        ({"optimization": Optimization(schedule="step")}, "schedule must be one of"),  # type: ignore[arg-type]
        ({"optimization": Optimization(schedule="divide", schedule_factor=1.0)}, "schedule factor"),
        ({"optimization": Optimization(schedule_factor=1.2)}, "schedule 'divide'"),
        ({"optimization": Optimization(schedule="halve", optimizer="Rprop")}, "Rprop"),
        ({"optimization": Optimization(average_after=10)}, "ASGD"),
        ({"optimization": Optimization(weight_decay=-0.1)}, "weight decay"),
        ({"optimization": Optimization(optimizer="rprop", weight_decay=0.1)}, "weight decay: rprop has none"),
        ({"model": Model(regularizer="D", dropout=0.5)}, "rates are the published paper's"),
        ({"model": Model(dropout=0.5)}, "rate of regularizer 'variational-dropout'"),
        ({"model": Model(regularizer="variational-dropout", dropout=1.0)}, "less than 1"),
        ({"model": Model(regularizer="dropout")}, "regularizer must be one of"),  # type: ignore[arg-type]
        (
            {"model": Model(regularizer="D"), "inference": Inference("smoothing")},
            "not support dropout.*or guide 'prior'",
        ),
        ({"optimization": Optimization(optimizer="ASGD", average_after=-1)}, "average after"),
        ({"run": Run(ensemble_samples=1)}, "ensemble samples"),
        ({"run": Run(seed=2**32)}, "seed must be less than 4294967296"),
        ({"run": Run(checkpoint_seconds=float("nan"))}, "checkpoint seconds must be"),
        (
            {"model": Model(matmul_precision="bfloat16"), "run": Run(precision="float64")},
            "needs precision float32",
        ),
    ],
)
def test_an_invalid_option_is_refused_by_name(groups: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Config(**groups)


def test_numbers_of_numpy_are_written_as_pythons() -> None:
    given = Config(model=Model(hidden_size=np.int64(8)), noise=Noise(spread=np.float32(0.5)))
    assert to_json(given) == to_json(Config(model=Model(hidden_size=8), noise=Noise(spread=0.5)))
    with pytest.raises(ValueError, match="hidden size must be at least 1, got 0"):
        Config(model=Model(hidden_size=np.int64(0)))


def test_twin_differs_in_the_noise_alone() -> None:
    noisy = Config(
        model=Model(cell="lstm", regularizer="variational-dropout", dropout=0.2),
        noise=Noise("gamma", spread=0.5, learn_spread=True, spread_floor=0.2, input_spread=0.1, feedback=False),
        optimization=Optimization(num_particles=3, bound="importance", epochs=2),
    )
    twin = noisy.deterministic_twin(Path("there"))
    assert noisy.noisy and not twin.noisy and not twin.run.twin
    assert twin.run.folder == Path("there")
    assert (twin.data, twin.model, twin.run.seed) == (noisy.data, Model(cell="lstm"), noisy.run.seed)
    assert twin.optimization.epochs == 2


@pytest.mark.parametrize(("regularizer", "dropout", "noisy"), [("D", None, True), ("variational-dropout", 0.0, False)])
def test_dropout_alone_makes_a_run_noisy_if_it_drops(regularizer: Any, dropout: float | None, noisy: bool) -> None:
    config = Config(model=Model(regularizer=regularizer, dropout=dropout), noise=Noise(spread=0.0))
    assert config.noisy == noisy


def test_the_configuration_of_a_run_from_before_there_was_dropout_is_read() -> None:
    groups = json.loads(to_json(Config()))
    for group, new in (("model", "regularizer"), ("model", "dropout"), ("optimization", "weight_decay")):
        del groups[group][new]
    del groups["model"]["matmul_precision"]
    assert from_json(json.dumps(groups)) == Config()
    groups["model"]["softmax_products"] = "bfloat16"  # a removed option; tools/migrate_results.py drops it
    with pytest.raises(ValueError, match="'softmax_products'"):
        from_json(json.dumps(groups))
