"""Runs whose noise is drawn from a guide: trained, validated, saved, resumed and loaded."""

import dataclasses
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import noisin_pyro as nz
from noisin_pyro.inference import Bound
from noisin_pyro.training import Config, Data, Inference, Model, Noise, Optimization, Run, train
from noisin_pyro.training.optim import kl_weight
from noisin_pyro.training.rundir import checkpointer
from noisin_pyro.training.rundir.load import load_run
from noisin_pyro.training.signals import Interrupted

from ..hooks import AfterStep

Texts = tuple[Path, Path, Path]


def config(texts: Texts, folder: Path, guide: Any = "smoothing", **inference: Any) -> Config:
    return Config(
        data=Data(files=texts, batch_size=4, window=10),
        model=Model(hidden_size=6, cell="lstm"),
        noise=Noise(spread=0.4, learn_spread=True),
        inference=Inference(guide, **inference),
        optimization=Optimization(epochs=3, learning_rate=0.02),
        run=Run(folder=folder, twin=False, ensemble_samples=2),
    )


@pytest.mark.parametrize("guide", ["mean-field", "filtering", "smoothing"])
def test_a_guide_is_trained_saved_and_loaded(guide: str, texts: Texts, tmp_path: Path) -> None:
    result = train(config(texts, tmp_path / "run", guide, guide_covariance="full", guide_hidden_size=5, kl_annealing=2))
    assert result.valid.kind == "bound" and result.test.kind == "predictor"
    assert result.bound is not None and result.bound.kind == "bound" and math.isfinite(result.bound.nats_per_step)
    assert result.log[-1]["train_nats"] < result.log[0]["train_nats"]

    trained = load_run(tmp_path / "run")
    assert trained.guide is not None
    new = nz.guides.get(guide, trained.model, covariance="full", hidden_size=5)
    assert isinstance(new, nz.guides.Guide)
    moved = [not torch.equal(a, b) for a, b in zip(trained.guide.parameters(), new.parameters(), strict=True)]
    assert all(moved)
    assert trained.guide.model is trained.model
    assert result.table().count("bound") == 1


def test_without_a_guide_there_is_no_bound(texts: Texts, tmp_path: Path) -> None:
    result = train(config(texts, tmp_path / "run", "prior"))
    assert result.bound is None and result.valid.kind == "predictor"
    assert "guide" not in checkpointer.load(tmp_path / "run" / "best.pt")
    assert load_run(tmp_path / "run").guide is None


def test_a_run_with_a_guide_resumes_to_the_same_bits(texts: Texts, tmp_path: Path, after_step: AfterStep) -> None:
    whole = config(texts, tmp_path / "whole", kl_annealing=3)
    train(whole)

    def stop() -> None:  # at once: the steps since the last checkpoint are lost
        raise Interrupted(signal.SIGINT)

    after_step(3, stop)
    after_step(14, stop)
    folder = tmp_path / "broken"
    broken = dataclasses.replace(whole, run=dataclasses.replace(whole.run, folder=folder, checkpoint_steps=2))
    breaks = 0
    while True:
        try:
            train(broken)
            break
        except Interrupted:
            breaks += 1
            broken = Config(run=Run(resume=folder))
    assert breaks == 2
    best = [checkpointer.load(path / "best.pt") for path in (tmp_path / "whole", folder)]
    for part in ("model", "guide"):
        for name, value in best[0][part].items():
            assert torch.equal(best[1][part][name], value), name


def test_the_weight_of_the_kl_rises_in_equal_steps(
    texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [kl_weight(4, epoch) for epoch in range(1, 7)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert kl_weight(None, 1) == 1
    forward, weights = Bound.forward, []

    def watched(bound: Bound, *args: Any, **kwargs: Any) -> torch.Tensor:
        weights.append(bound.elbo.kl_weight)
        return forward(bound, *args, **kwargs)

    monkeypatch.setattr(Bound, "forward", watched)
    train(config(texts, tmp_path / "run", kl_annealing=2))
    assert list(dict.fromkeys(weights)) == [0.5, 1]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"inference": Inference("smoothing"), "noise": Noise(spread=0.0)}, "no noise to draw where spread is 0"),
        ({"inference": Inference("smoothing"), "model": Model(weight_prior="normal")}, "take weight prior 'dirac'"),
        ({"inference": Inference(kl_annealing=3)}, "kl annealing: only for a guide other than 'prior'"),
        (
            {"inference": Inference(guide_covariance="full", guide_hidden_size=3)},
            "guide covariance and guide hidden size: only for a guide",
        ),
        (
            {
                "inference": Inference("smoothing", kl_annealing=3),
                "optimization": Optimization(bound="importance", num_particles=2),
            },
            "kl annealing is for bound 'elbo'",
        ),
        ({"inference": Inference("smoothing", guide_hidden_size=0)}, "guide hidden size must be at least 1"),
        ({"inference": Inference("laplace")}, "guide must be one of prior, mean-field"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_refusals(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Config(**changes)


def test_a_discrete_family_is_refused_before_anything_is_written(texts: Texts, tmp_path: Path) -> None:
    discrete = dataclasses.replace(config(texts, tmp_path / "run"), noise=Noise(noise="bernoulli", spread=0.4))
    with pytest.raises(ValueError, match="bernoulli noise is discrete"):
        train(discrete)
    assert not (tmp_path / "run").exists()
