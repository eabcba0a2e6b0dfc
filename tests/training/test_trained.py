"""Trained models from a run's folder alone: in another process, from a stranger, and as the start of another run."""

import json
import math
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch

import noisin_pyro as nz
from noisin_pyro.cli import main
from noisin_pyro.data import Sequences, Stream
from noisin_pyro.training import Config, Data, Inference, Model, Noise, Optimization, Run, train
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.rundir import checkpointer

from ..commands.conftest import chorales
from ..processes import run_or_fail
from .texts import write_texts

Texts = tuple[Path, Path, Path]


def _config(texts: Texts, folder: Path, **groups: Any) -> Config:
    defaults: dict[str, Any] = {
        "data": Data(files=texts, batch_size=4, window=10),
        "model": Model(hidden_size=4),
        "noise": Noise(spread=0.4, learn_spread=True),
        "optimization": Optimization(epochs=1, learning_rate=0.01),
        "run": Run(folder=folder, twin=False, ensemble_samples=0),
    }
    return Config(**defaults | groups)


# Scores the data in steps.pt by each run's copy, with the noise off and, if there is a guide, by its bound.
PROGRAM = """
import json, sys, pyro, torch
import noisin_pyro as nz
data, scores = torch.load(sys.argv[1] + "/steps.pt", weights_only=True), {}
for name in sys.argv[2:]:
    run = nz.load(sys.argv[1] + "/copies/" + name)
    if name.startswith("text"):
        steps = nz.data.Stream(run.vocabulary.encode(data["text"]), 10, 10)
    else:
        steps = nz.data.Sequences(data["inputs"], data["targets"], data["lengths"])
    values = [nz.evaluate(run.model, steps).perplexity, run.result.test.perplexity]
    if run.guide is not None:
        pyro.set_rng_seed(3)
        values.append(nz.evaluate(run.model, steps, guide=run.guide, num_samples=1).perplexity)
    scores[name] = values
print(json.dumps(scores))
"""


@pytest.mark.slow
def test_a_copy_of_the_folder_gives_the_same_numbers_in_another_process(texts: Texts, tmp_path: Path) -> None:
    music = Data(name=str(chorales(tmp_path)), batch_size=2)
    smoothing = {"inference": Inference("smoothing"), "model": Model(hidden_size=4, cell="lstm")}
    runs = {"text": {}, "text-guide": smoothing, "music": {"data": music}, "music-guide": {"data": music, **smoothing}}
    results = {name: train(_config(texts, tmp_path / name, **groups)) for name, groups in runs.items()}
    words, pieces = texts[2].read_text().replace("\n", " <eos> "), nz.data.load_music(music.name).test
    assert isinstance(pieces, Sequences)
    expected = {}
    for name, result in results.items():
        steps = pieces
        if name.startswith("text"):
            steps = Stream(nz.data.load_text(train=texts[0], valid=texts[1], test=texts[2]).test, 10, 10)
        expected[name] = [nz.evaluate(result.model, steps).perplexity, result.test.perplexity]
        if result.guide is not None:
            pyro.set_rng_seed(3)
            score = nz.evaluate(result.model, steps, guide=result.guide, num_samples=1)
            expected[name].append(score.perplexity)
    arrays = {"inputs": pieces.inputs, "targets": pieces.targets, "lengths": pieces.lengths}
    torch.save({"text": words, **arrays}, tmp_path / "steps.pt")
    for name in runs:
        shutil.move(tmp_path / name, tmp_path / "copies" / name)
    for file in (*texts, Path(music.name)):
        file.unlink()
    done = run_or_fail([sys.executable, "-c", PROGRAM, str(tmp_path), *runs])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected
    assert all(math.isclose(values[0], values[1], rel_tol=1e-12) for values in expected.values())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose text is gone."""
    texts, folder = write_texts(tmp_path_factory.mktemp("texts")), tmp_path_factory.mktemp("trained") / "run"
    run = Run(folder=folder, twin=True, ensemble_samples=2)
    with program_settings():
        train(_config(texts, folder, run=run))
    for text in texts:
        text.unlink()
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def test_it_has_all_that_was_trained(run: Path) -> None:
    loaded = nz.load(str(run))
    assert loaded.config.model.hidden_size == 4 and loaded.guide is None
    assert loaded.vocabulary is not None and len(loaded.vocabulary) == 7
    assert loaded.result is not None and loaded.result.twin is not None and loaded.result.twin.name == "deterministic"
    best = checkpointer.load(run / "best.pt")["model"]
    for model in (loaded.model, loaded.result.model):
        torch.testing.assert_close(model.state_dict(), best, rtol=0, atol=0)
    assert not loaded.result.twin.model.rnn.noisy_layers
    (run / "result.json").unlink()
    assert nz.load(run).result is None
    with pytest.raises(ValueError, match=r"train.txt"):
        _ = loaded.corpus


def test_generators_are_left_alone(run: Path) -> None:
    before = torch.get_rng_state()
    nz.load(run)
    assert torch.equal(torch.get_rng_state(), before)


def test_models_keep_their_own_parameters_in_the_global_store(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    best = checkpointer.load(other / "best.pt")
    best["model"]["rnn.spread_1.excess_unconstrained"] += 1
    checkpointer.save(other / "best.pt", best)
    words = torch.randint(7, (2, 5))
    with pyro.settings.context(module_local_params=False):
        models = [nz.load(folder).model for folder in (run, other)]
        scales = []
        for model in (*models, *models):
            trace = pyro.poutine.trace(model).get_trace(words)
            scales.append(float(trace.nodes["z_1"]["fn"].spread.detach()))
    assert scales[:2] == scales[2:] and scales[0] < scales[1]


def test_commands_need_the_folder_alone(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "new.txt"
    text.write_text("one two three four five six\n" * 10)  # as the test text was
    assert main(["generate", str(run), "one", "--steps", "3"]) == 0
    columns = ["--eval-batch-size", str(nz.load(run).config.data.eval_batch_size)]  # as the test part is read
    assert main(["evaluate", str(run), "--text", str(text), *columns, "--json", str(tmp_path / "score.json")]) == 0
    score, result = (json.loads(path.read_text()) for path in (tmp_path / "score.json", run / "result.json"))
    assert score["nats_per_step"] == result["test"]["nats_per_step"] and score["text"] == str(text)
    capsys.readouterr()
    for options in (["--split", "train"], ["--data-root", "."]):
        assert main(["evaluate", str(run), "--text", str(text), *options]) == 2
        assert "cannot be scored with" in capsys.readouterr().err
    assert main(["evaluate", str(run)]) == 2


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"name": 1, "features": 3, "vocabulary": null}', '{"name": "a", "features": null}',
     '{"name": "a", "features": 0, "vocabulary": null}', '{"name": "a", "features": 3, "vocabulary": ["<eos>"]}',
     '{"name": "a", "features": null, "vocabulary": ["b"]}', '{"name": "a", "features": null, "vocabulary": [1]}'],
)  # fmt: skip
def test_a_damaged_description_of_the_data(run: Path, content: str) -> None:
    (run / "data.json").write_text(content)
    with pytest.raises(ValueError, match=r"data\.json is damaged"):
        nz.load(run)


def test_a_run_without_a_description_needs_its_data(texts: Texts, tmp_path: Path) -> None:
    folder = train(_config(texts, tmp_path / "run")).folder
    (folder / "data.json").unlink()
    assert nz.load(folder).vocabulary == nz.data.load_text(train=texts[0], valid=texts[1], test=texts[2]).vocabulary
    texts[0].unlink()
    with pytest.raises(ValueError, match=r"train\.txt") as refused:
        nz.load(folder)
    assert refused.value.__notes__ == ["a run without data.json, of version 0.1, needs the data that it was trained on"]


OWN = """
from pathlib import Path
import torch
from noisin_pyro import noise
from noisin_pyro.models import Cell, Emission
import pyro.distributions as dist

Path("imported").touch()

class Leaky(Cell):
    range = (-1.0, 1.0)
    def step(self, a, p, z, c):
        return 0.5 * torch.tanh(z) + 0.5 * torch.tanh(a + p), None

class Pairs(Emission):
    def forward(self, z):
        return dist.Bernoulli(logits=2 * self.read_out(z)).to_event(1)

def wide():
    return noise.get("beta", concentration=1.0)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the current folder that leaves a file when it is imported."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield name
    sys.modules.pop(name, None)


def _forget(name: str) -> None:
    sys.modules.pop(name)
    Path("imported").unlink()


SMALL = ["--hidden-size", "4", "--epochs", "1", "--no-twin", "--ensemble-samples", "0", "--batch-size", "2"]


def test_code_of_one_s_own_by_its_import_path(own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--cell", f"{own}:Leaky", "--noise", f"{own}:wide", "--emission", f"{own}:Pairs"]
    assert main(["train", "--data", str(chorales(tmp_path)), *options, *SMALL, "--folder", "run"]) == 0
    _forget(own)
    for command in (["evaluate", "run"], ["compare", "run"], ["train", "--resume", "run"]):
        assert main(command) == 2
        assert "if you trust it, name it again: by the argument imports in Python, --imports" in capsys.readouterr().err
    with pytest.raises(ValueError, match=rf"{own}:Leaky, {own}:Pairs, {own}:wide; if you trust it, name it again"):
        nz.load("run", imports=[f"{own}:Leake"])
    assert not Path("imported").exists()
    paths = [f"{own}:Leaky", f"{own}:Pairs", f"{own}:wide"]
    loaded = nz.load("run", imports=paths)
    assert (loaded.model.rnn.cell.name, type(loaded.model.emission).__name__) == ("leaky", "Pairs")
    assert loaded.model.rnn.noise.name == "beta" and loaded.result is not None and loaded.result.model is not None
    assert main(["evaluate", "run", "--imports", *paths]) == 0
    assert main(["train", "--resume", "run", *options]) == 0


@pytest.mark.parametrize(("group", "option"), [("model", "cell"), ("model", "emission"), ("noise", "noise")])
def test_a_stranger_s_import_path_is_not_followed(own: str, run: Path, group: str, option: str) -> None:
    for folder in (run, run / "deterministic"):
        content = json.loads((folder / "config.json").read_text())
        content[group][option] = f"{own}:wide"
        (folder / "config.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"names, {own}:wide; if you trust it"):
            nz.load(folder)
        (folder / "last.pt").unlink()
    for command in (["evaluate"], ["generate"], ["compare"], ["train", "--resume"]):
        assert main([*command, str(run)]) == 2
    with pytest.raises(ValueError, match="if you trust it"):
        train(Config(run=Run(resume=run)))
    assert not Path("imported").exists()


def test_a_stranger_s_twin_is_not_trusted_with_the_run(own: str, run: Path) -> None:
    content = json.loads((run / "deterministic" / "config.json").read_text())
    content["model"]["cell"] = f"{own}:Leaky"
    (run / "deterministic" / "config.json").write_text(json.dumps(content))
    result = nz.load(run).result
    assert result is not None and result.twin is not None
    with pytest.raises(ValueError, match="if you trust it"):
        _ = result.twin.model
    assert not Path("imported").exists()


class Code:
    """Leaves a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("imported"),)


@pytest.mark.parametrize("content", [Code(), {"model": Code(), "epoch": 1}])
def test_a_stranger_s_pickle_is_not_executed(own: str, run: Path, content: object) -> None:
    torch.save(content, run / "best.pt")
    with pytest.raises(ValueError, match=r"best\.pt' cannot be read: it is damaged, or holds more than weights"):
        nz.load(run)
    assert not Path("imported").exists()


def test_a_stranger_s_search_is_not_followed(own: str, texts: Texts, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", "--files", *map(str, texts), "--hidden-size", "4", "--epochs", "1", "--trial-epochs", "1"]
    assert main([*command, "--noises", f"{own}:wide", "--spreads", "0.2", "--trials", "1", "--folder", "search"]) == 0
    _forget(own)
    capsys.readouterr()
    assert main(["sweep", "--resume", "search", "--trials", "2"]) == 2
    assert f"{own}:wide" in capsys.readouterr().err and not Path("imported").exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere:Leaky", "cannot be imported .*No module named 'nowhere'"),
        ("{own}:Leake", "cannot be imported .*no attribute 'Leake'"),
        (
            "{own}:Path",
            r"must be a Cell, or a class or function that makes one in the call 'Path\(\)', got a PosixPath",
        ),
    ],
)
def test_an_import_path_that_leads_to_no_cell(own: str, texts: Texts, path: str, message: str) -> None:
    model = Model(hidden_size=4, cell=path.format(own=own))
    with pytest.raises(ValueError, match=message):
        train(_config(texts, Path("run"), model=model))
    assert not Path("run").exists()


def test_a_run_starts_from_the_weights_of_another(texts: Texts, tmp_path: Path) -> None:
    first = train(_config(texts, tmp_path / "first", optimization=Optimization(epochs=3, learning_rate=0.02)))
    still = Optimization(epochs=1, learning_rate=1e-12)
    config = _config(texts, tmp_path / "second", optimization=still)
    second = train(replace(config, run=replace(config.run, init_from=first.folder, seed=5)))
    assert second.test.nats_per_step == pytest.approx(first.test.nats_per_step, abs=1e-6)
    assert nz.load(second.folder).config.run.init_from == first.folder
    fresh = train(_config(texts, tmp_path / "fresh", optimization=still))
    assert fresh.test.nats_per_step > first.test.nats_per_step + 0.1


def test_a_learned_spread_that_is_not_taken_over_is_reported(
    texts: Texts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learned = Noise(spread=0.3, learn_spread=True)
    first = train(_config(texts, tmp_path / "first", noise=learned, inference=Inference("mean-field")))
    for noise, is_reported in ((learned, False), (Noise(spread=0.5), True)):
        caplog.clear()
        config = _config(texts, tmp_path / f"{is_reported}", noise=noise, inference=Inference("mean-field"))
        with caplog.at_level("INFO", "noisin_pyro"):
            train(replace(config, run=replace(config.run, init_from=first.folder)))
        assert ("but not from its γ" in caplog.text) == is_reported
    config = _config(texts, tmp_path / "other", noise=learned, inference=Inference("smoothing"))
    with pytest.raises(ValueError, match="its guide has other sizes or parts"):
        train(replace(config, run=replace(config.run, init_from=first.folder)))


def test_weights_that_do_not_fit_are_refused(texts: Texts, run: Path, tmp_path: Path) -> None:
    config = _config(texts, tmp_path / "other", run=Run(folder=tmp_path / "other", init_from=run))
    with pytest.raises(ValueError, match="its network has other sizes or parts"):
        train(replace(config, model=Model(hidden_size=5)))
    texts[0].write_text("one two three four five seven six\n" * 30)
    with pytest.raises(ValueError, match="its vocabulary is not that of train"):
        train(config)
    assert not (tmp_path / "other").exists()
