"""A finished run with more epochs ends like a run that had them from the start."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from noisin_pyro._files import write_json
from noisin_pyro.cli import main
from noisin_pyro.training import Config, Data, Model, Noise, Optimization, Result, Run, train
from noisin_pyro.training.rundir import checkpointer, resume

Texts = tuple[Path, Path, Path]


def _run(texts: Texts, folder: Path, epochs: int, **options: object) -> Result:
    optimization = {"learning_rate": 0.01, "schedule": "halve", "epochs": epochs, "patience": None, **options}
    return train(
        Config(
            data=Data(files=texts, batch_size=4, window=5),
            model=Model(hidden_size=6),
            noise=Noise(spread=0.3, learn_spread=True),
            optimization=Optimization(**optimization),  # type: ignore[arg-type]
            run=Run(folder=folder, ensemble_samples=2),
        )
    )


def _lengthen(folder: Path, epochs: int) -> Result:
    return train(Config(run=Run(resume=folder)), epochs=epochs)


def _numbers(folder: Path) -> tuple[object, ...]:
    content = json.loads((folder / "result.json").read_text())
    weights = checkpointer.load(folder / "best.pt")["model"]
    return content["valid"], content["test"], content["test_ensemble"], {k: v.tolist() for k, v in weights.items()}


@pytest.mark.slow
def test_more_epochs_give_the_numbers_of_one_longer_run_twin_included(texts: Texts, tmp_path: Path) -> None:
    _run(texts, tmp_path / "whole", 7)
    _run(texts, tmp_path / "parts", 3)
    result = _lengthen(tmp_path / "parts", 7)
    assert len(result.log) == 7 and result.twin is not None and len(result.twin.log) == 7
    for part in ("", "deterministic"):
        whole, parts = (tmp_path / name / part for name in ("whole", "parts"))
        assert _numbers(parts) == _numbers(whole)
        assert json.loads((parts / "config.json").read_text())["optimization"]["epochs"] == 7


@pytest.mark.parametrize("network", ["", "deterministic"])
def test_interrupted_before_a_network_is_longer_both_get_there(
    network: str, texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same command or, where the run itself is longer already, by a plain resume."""
    folder = tmp_path / "run"
    _run(texts, folder, 2)

    def stop(path: Path, content: object) -> None:
        if path.parent == folder / network:
            raise KeyboardInterrupt
        write_json(path, content)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(resume, "write_json", stop)
        _lengthen(folder, 3)
    result = train(Config(run=Run(resume=folder)))
    if not network:
        assert result.twin is not None and (len(result.log), len(result.twin.log)) == (2, 2)
        result = _lengthen(folder, 3)
    assert result.twin is not None and (len(result.log), len(result.twin.log)) == (3, 3)
    for part in ("", "deterministic"):
        for name in ("config.json", "result.json"):
            assert json.loads((folder / part / name).read_text())["optimization"]["epochs"] == 3


@pytest.mark.slow
def test_the_command_lengthens_to_its_own_default_too(texts: Texts, tmp_path: Path) -> None:
    _run(texts, tmp_path / "run", 3)
    assert main(["train", "--resume", str(tmp_path / "run"), "--epochs", "14"]) == 0
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 15


def test_a_run_that_its_patience_has_ended_keeps_its_numbers(texts: Texts, tmp_path: Path) -> None:
    before = _run(texts, tmp_path / "run", 40, learning_rate=5.0, schedule="fixed", patience=1)
    assert len(before.log) < 40
    after = _lengthen(tmp_path / "run", 50)
    assert after.test == before.test and len(after.log) == len(before.log)


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_what_cannot_be_lengthened_is_left_as_it_was(texts: Texts, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _run(texts, folder, 3)

    def refused(epochs: int, match: str) -> None:
        before = _contents(tmp_path)
        with pytest.raises(ValueError, match=match):
            _lengthen(folder, epochs)
        assert _contents(tmp_path) == before

    refused(2, r"epochs must be at least 3, the maximum of the run in .*run', got 2")
    checkpoints = [folder / part / name for part in ("", "deterministic") for name in ("last.pt", "best.pt")]
    for path in (texts[0], *checkpoints):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        refused(4, "they have changed since" if path == texts[0] else rf"{path.name}' cannot be read")
        if path != texts[0]:
            path.unlink()
            refused(4, rf"is finished, and its checkpoint {path.name} has been removed")
        path.write_bytes(whole)
    content = checkpointer.load(folder / "last.pt")
    checkpointer.save(folder / "last.pt", content | {"model": {}})
    refused(4, r"is not of the model in its config\.json")
    with pytest.raises(ValueError, match="epochs=4 is for a run to resume"):
        train(Config(), epochs=4)


def test_other_options_are_refused_before_anything_is_changed(texts: Texts, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _run(texts, folder, 3)
    config = dataclasses.replace(Config(run=Run(resume=folder)), model=Model(hidden_size=7))
    with pytest.raises(ValueError, match=r"hidden size 7 \(there: 6\)"):
        train(config, epochs=4)
    assert (folder / "result.json").exists()
    assert torch.is_tensor(checkpointer.load(folder / "last.pt")["model"]["embedding.weight"])
