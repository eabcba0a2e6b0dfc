"""Runs on the filtering bound: trained, validated by the particle filter, and resumed."""

import dataclasses
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from noisin_pyro import evaluate
from noisin_pyro.data import Stream
from noisin_pyro.training import Config, Data, Inference, Model, Noise, Optimization, Run, train
from noisin_pyro.training.config import from_json, to_json
from noisin_pyro.training.rundir import checkpointer
from noisin_pyro.training.rundir.load import load_run
from noisin_pyro.training.signals import Interrupted

from ..hooks import AfterStep

Texts = tuple[Path, Path, Path]


def config(texts: Texts, folder: Path, guide: Any = "prior", **options: Any) -> Config:
    return Config(
        data=Data(files=texts, batch_size=4, window=10),
        model=Model(hidden_size=6, cell="lstm", emission_hidden_size=5),
        noise=Noise(spread=0.4, learn_spread=True, spread_floor=0.0),
        inference=Inference(guide),
        optimization=Optimization(epochs=2, learning_rate=0.02, num_particles=4, bound="filtering", **options),
        run=Run(folder=folder, twin=False, ensemble_samples=2),
    )


def test_a_run_is_trained_and_validated_by_the_filter(texts: Texts, tmp_path: Path) -> None:
    result = train(config(texts, tmp_path / "run", threshold=0.9, ancestor_term=False))
    assert (result.valid.kind, result.valid.method) == ("estimate", "particle-filter")
    assert (result.valid.num_samples, math.isnan(result.valid.monte_carlo_error)) == (4, True)
    assert result.bound is not None and math.isfinite(result.bound.nats_per_step)
    assert result.bound.num_samples == 64 and 0 < result.bound.monte_carlo_error < 0.1
    assert math.isfinite(result.log[-1]["train_nats"])
    trained = load_run(tmp_path / "run")
    assert trained.config.optimization.threshold == 0.9 and trained.config.optimization.ancestor_term is False
    held_out = Stream(trained.corpus.test, batch_size=10, window=10)  # type: ignore[arg-type]
    again = evaluate(trained.model, held_out, "particle-filter", num_samples=400, guide=trained.guide)
    assert again.nats_per_step == pytest.approx(result.bound.nats_per_step, rel=0.1)


def guide_state(folder: Path) -> dict[str, torch.Tensor]:
    guide = load_run(folder).guide
    assert guide is not None
    return guide.state_dict()


@pytest.mark.parametrize("threshold", [None, pytest.param(0.0, marks=pytest.mark.slow)])
def test_a_guide_that_the_elbo_has_trained_is_the_proposal(
    threshold: float | None, texts: Texts, tmp_path: Path
) -> None:
    of_bound = config(texts, tmp_path / "bound", "mean-field", threshold=threshold)
    elbo = dataclasses.replace(
        of_bound,
        optimization=Optimization(epochs=1, learning_rate=0.02),
        run=dataclasses.replace(of_bound.run, folder=tmp_path / "elbo"),
    )
    train(elbo)
    run = dataclasses.replace(of_bound.run, init_from=tmp_path / "elbo")
    result = train(dataclasses.replace(of_bound, run=run))
    before, after = guide_state(tmp_path / "elbo"), guide_state(tmp_path / "bound")
    assert all(torch.equal(value, after[name]) for name, value in before.items()) == (threshold is None)
    networks = [load_run(tmp_path / name).model.rnn.state_dict() for name in ("elbo", "bound")]
    assert any(not torch.equal(value, networks[1][name]) for name, value in networks[0].items())
    assert result.bound is not None and result.bound.method == "particle-filter"
    continued = train(Config(run=Run(resume=tmp_path / "bound")), epochs=3)  # the guide stays as it is
    assert len(continued.log) == 3
    assert all(torch.equal(v, guide_state(tmp_path / "bound")[n]) for n, v in before.items()) == (threshold is None)


@pytest.mark.parametrize("start", [None, "elbo"])
def test_a_proposal_that_nothing_trains_is_refused(start: str | None, texts: Texts, tmp_path: Path) -> None:
    of_bound = config(texts, tmp_path / "bound", "smoothing")
    if start is not None:
        elbo = dataclasses.replace(
            of_bound,
            inference=Inference(),
            optimization=Optimization(epochs=1),
            run=dataclasses.replace(of_bound.run, folder=tmp_path / start),
        )
        train(elbo)
    run = dataclasses.replace(of_bound.run, init_from=start and tmp_path / start)
    with pytest.raises(ValueError, match=r"does not train its proposal, guide 'smoothing'.*init from.*threshold 0"):
        train(dataclasses.replace(of_bound, run=run))
    assert not (tmp_path / "bound").exists()


def test_particles_are_carried_through_a_break(texts: Texts, tmp_path: Path, after_step: AfterStep) -> None:
    whole = config(texts, tmp_path / "whole")
    train(whole)

    def stop() -> None:
        raise Interrupted(signal.SIGINT)

    after_step(4, stop)
    folder = tmp_path / "broken"
    broken = dataclasses.replace(whole, run=dataclasses.replace(whole.run, folder=folder, checkpoint_steps=3))
    with pytest.raises(Interrupted):
        train(broken)
    z, c, log_w = checkpointer.load(folder / "last.pt")["progress"]["under_way"]["state"]
    assert z.shape == c.shape == (1, 4, 4, 6) and log_w.shape == (1, 4, 4, 1)
    train(Config(run=Run(resume=folder)))
    best = [checkpointer.load(path / "best.pt")["model"] for path in (tmp_path / "whole", folder)]
    for name, value in best[0].items():
        assert torch.equal(value, best[1][name]), name


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"optimization": Optimization(bound="filtering")}, "bound filtering needs num particles of at least 2"),
        ({"optimization": Optimization(threshold=0.5)}, "threshold is for bound 'filtering', not 'elbo'"),
        ({"optimization": Optimization(ancestor_term=True)}, "ancestor term is for bound 'filtering'"),
        (
            {"optimization": Optimization(bound="filtering", num_particles=2, threshold=2.0)},
            "threshold must be less than or equal",
        ),
        *[
            ({"optimization": Optimization(bound="filtering", num_particles=2), **groups}, message)
            for groups, message in (
                ({"model": Model(regularizer="D")}, "does not support dropout masks"),
                ({"model": Model(weight_prior="normal")}, "needs fixed weights"),
                ({"run": Run(backend="scan")}, "backend 'scan' runs whole sequences"),
                ({"inference": Inference("smoothing", kl_annealing=3)}, "filtering bound has no KL to weigh"),
            )
        ],
    ],
)
def test_options_that_do_not_apply_are_refused(groups: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**groups)


def test_configurations_without_the_options_are_read_as_before() -> None:
    text = to_json(Config())
    for name in ("threshold", "ancestor_term", "emission_hidden_size"):
        line = next(line for line in text.splitlines() if f'"{name}"' in line)
        text = text.replace(f"{line}\n", "") if line.endswith(",") else text.replace(f",\n{line}", "")
        assert name not in text
    assert from_json(text) == Config()
