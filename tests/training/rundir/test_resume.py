"""An interrupted and resumed run equals an uninterrupted one, bit for bit."""

import itertools
import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyro
import pytest
import torch

from noisin_pyro.data import Sequences, Stream
from noisin_pyro.models import LanguageModel, NoisyRNN, SequenceModel, Spread
from noisin_pyro.training import Config, Data, Model, Noise, Optimization, Run, fit, loop, train
from noisin_pyro.training.rundir import checkpointer, metrics_log
from noisin_pyro.training.signals import Interrupted

from ...hooks import AfterStep

Texts = tuple[Path, Path, Path]
CLOCKS = {"seconds", "tokens_per_second"}


@pytest.fixture
def stop_at(after_step: AfterStep) -> Callable[..., None]:
    """Send a signal in that gradient step, counted from now on over all runs of a test."""
    return lambda step, signum=signal.SIGINT: after_step(step, lambda: signal.raise_signal(signum))


def _same(actual: object, expected: object, at: str = "") -> None:
    if isinstance(expected, torch.Tensor):
        assert isinstance(actual, torch.Tensor) and actual.dtype == expected.dtype, at
        assert torch.equal(actual, expected), at
    elif isinstance(expected, dict):
        assert isinstance(actual, dict) and actual.keys() == expected.keys(), at
        for key in expected.keys() - CLOCKS:
            _same(actual[key], expected[key], f"{at}/{key}")
    elif isinstance(expected, list | tuple):
        assert isinstance(actual, list | tuple) and len(actual) == len(expected), at
        for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
            _same(one, other, f"{at}/{index}")
    else:
        assert actual == expected, at


def _words() -> tuple[LanguageModel, Stream]:
    generator = torch.Generator().manual_seed(4)
    stream = Stream(torch.randint(11, (103,), generator=generator), batch_size=4, window=5)
    spread = Spread(0.5, learn=True)
    options = {"spread": spread, "input_spread": 0.1, "regularizer": "variational-dropout"}
    return LanguageModel(11, 6, num_layers=2, cell="lstm", tie_weights=True, **options), stream


def _chords() -> tuple[SequenceModel, Sequences]:
    generator = torch.Generator().manual_seed(4)
    chords = (torch.rand(13, 7, 5, generator=generator) < 0.3).float()
    lengths = torch.tensor([7, 1, 3, 5, 7, 2, 6, 4, 7, 7, 3, 2, 5])
    data = Sequences(chords, chords.roll(-1, 1), lengths)
    return SequenceModel(NoisyRNN(5, 4, cell="gru", noise="gamma:multiplicative"), "bernoulli", 5), data


@pytest.mark.parametrize("make", [_words, _chords])
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "Adam", "num_particles": 2, "bound": "importance"},
        {"optimizer": "ASGD", "schedule": "divide", "average_after": 4, "learning_rate": 3.0, "clip": 0.25},
        {"optimizer": "SGD", "schedule": "halve", "learning_rate": 0.5, "patience": 2, "weight_decay": 0.01},
    ],
)
def test_a_fit_stopped_anywhere_resumes_to_the_same_bits(
    make: Callable[[], tuple], options: dict, tmp_path: Path, stop_at: Callable[..., None]
) -> None:
    batch_size = 2 if make is _chords else 4
    config = Config(data=Data(batch_size=batch_size), optimization=Optimization(epochs=6, **options))
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    pyro.set_rng_seed(1)
    model, data = make()
    whole = fit(model, data, data, config, tmp_path / "whole")
    steps = len(list(data.batches(batch_size)))

    for step in (1, steps - 1, steps + 2, 2 * steps, 2 * steps + 3):  # at an epoch's last step too
        stop_at(step)
    pyro.set_rng_seed(1)
    breaks = 0
    while True:
        again, data = make()
        if breaks:
            pyro.set_rng_seed(99)
        try:
            rows = fit(again, data, data, config, tmp_path / "broken", resume=breaks > 0)
            break
        except Interrupted:
            breaks += 1
    assert breaks == 5
    _same(rows, whole)
    _same(dict(again.state_dict()), dict(model.state_dict()))
    for file in ("last.pt", "best.pt"):
        _same(*(checkpointer.load(tmp_path / name / file) for name in ("broken", "whole")))
    _same(*(metrics_log.read(tmp_path / name / "log.csv") for name in ("broken", "whole")))


def test_minutes_count_training_and_validation_but_not_the_time_between_runs(
    tmp_path: Path, stop_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()  # each look at the clock takes a second, and so does each step and validation
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    _, data = _words()
    epoch = len(list(data.batches())) + 1
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()

    def run(name: str, seconds: float, resume: bool = False) -> list[metrics_log.Row]:
        again, _ = _words()
        config = Config(
            data=Data(batch_size=4), optimization=Optimization(epochs=9, patience=None, minutes=seconds / 60)
        )
        return fit(again, data, data, config, tmp_path / name, resume=resume)

    pyro.set_rng_seed(1)
    whole = run("whole", 3 * epoch - 0.5)
    assert [row["seconds"] for row in whole] == [epoch] * 3

    stop_at(2)
    stop_at(2 * (epoch - 1))
    pyro.set_rng_seed(1)
    for resume in (False, True):
        with pytest.raises(Interrupted):
            run("broken", 3 * epoch - 0.5, resume)
        next(clock)  # the interruption
    rows = run("broken", 3 * epoch - 0.5, resume=True)
    assert rows == [row | {"tokens_per_second": pytest.approx(row["tokens_per_second"])} for row in whole]
    _same(*(checkpointer.load(tmp_path / name / "last.pt") for name in ("broken", "whole")))

    assert run("broken", 3 * epoch - 0.5, resume=True) == rows, "stopped by the clock: nothing is left to do"
    _same(*(checkpointer.load(tmp_path / name / "last.pt") for name in ("broken", "whole")))


def test_every_generator_is_restored_from_a_file(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [torch.rand(()).item(), torch.randn(3)[2].item(), np.random.normal(), random.gauss(0.0, 1.0)]

    draw()  # leaves the second of a pair behind, in numpy and in Python
    checkpointer.save(tmp_path / "last.pt", checkpointer.rng_state())
    expected = draw()
    pyro.set_rng_seed(7)
    checkpointer.set_rng_state(checkpointer.load(tmp_path / "last.pt"))
    assert draw() == expected


def _config(texts: Texts, folder: Path) -> Config:
    return Config(
        data=Data(files=texts, batch_size=4, window=10),
        model=Model(hidden_size=8),
        noise=Noise(spread=0.2),
        optimization=Optimization(learning_rate=0.01, epochs=3),
        run=Run(folder=folder, ensemble_samples=3),
    )


def _numbers(folder: Path) -> list[object]:
    results = [json.loads((part / "result.json").read_text()) for part in (folder, folder / "deterministic")]
    logs = [metrics_log.read(part / "log.csv") for part in (folder, folder / "deterministic")]
    for each in results:
        del each["seconds"], each["run"]
    return [
        results,
        logs,
        checkpointer.load(folder / "best.pt"),
        checkpointer.load(folder / "deterministic" / "best.pt"),
    ]


def _steps(texts: Texts) -> int:
    words = sum(len(line.split()) + 1 for line in texts[0].read_text().splitlines())
    return -(-words // 40)


@pytest.mark.parametrize("where", ["noisy", "twin"])
def test_a_run_resumes_with_the_network_it_was_training(
    texts: Texts, tmp_path: Path, stop_at: Callable[..., None], where: str
) -> None:
    whole = train(_config(texts, tmp_path / "whole"))
    epoch = _steps(texts)
    stop_at(2 if where == "noisy" else 3 * epoch + 2, signal.SIGTERM)
    with pytest.raises(Interrupted) as stop:
        train(_config(texts, tmp_path / "broken"))
    assert stop.value.signum == signal.SIGTERM
    assert stop.value.__notes__ == [f"resume with: noisin train --resume {tmp_path / 'broken'}"]
    assert (tmp_path / "broken" / "result.json").exists() == (where == "twin")
    resumed = train(Config(run=Run(resume=tmp_path / "broken")))
    _same(_numbers(tmp_path / "broken"), _numbers(tmp_path / "whole"))
    assert resumed.table() == whole.table()
    names = [{path.name for path in (tmp_path / name).rglob("*")} for name in ("whole", "broken")]
    assert names[1] - names[0] <= {"curves.png"}

    finished = train(Config(run=Run(resume=tmp_path / "broken")))
    assert finished.table() == whole.table() and finished.test == resumed.test


def test_other_options_than_the_folders_are_refused(texts: Texts, tmp_path: Path, stop_at: Callable[..., None]) -> None:
    stop_at(2)
    with pytest.raises(Interrupted):
        train(_config(texts, tmp_path / "run"))
    resume = Run(resume=tmp_path / "run")
    with pytest.raises(ValueError, match=r"hidden size 9 \(there: 8\), epochs 5 \(there: 3\); leave them out"):
        train(Config(model=Model(hidden_size=9), optimization=Optimization(epochs=5), run=resume))
    with pytest.raises(ValueError, match="no run to resume"):
        train(Config(run=Run(resume=tmp_path / "nowhere")))
    assert train(Config(model=Model(hidden_size=8), run=resume)).twin is not None
