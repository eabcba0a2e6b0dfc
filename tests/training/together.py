"""Computations in several processes; a program for ``test_distributed.py``, which also imports it, as one process.

torchrun --nproc-per-node N together.py FOLDER           everything below, its results in FOLDER/found.pt
torchrun --nproc-per-node N together.py STEP OPTION...    ``noisin train`` with the options, the last process killed
                                                         (SIGKILL) at the end of that step
torchrun --nproc-per-node N together.py hang              the last process does not answer; each prints its error
"""

import itertools
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyro
import torch
import torch.distributed as dist
from torch.optim.optimizer import register_optimizer_step_post_hook

from noisin_pyro.cli import main
from noisin_pyro.data import Batch, Sequences, Stream
from noisin_pyro.inference import PriorAsGuide_ELBO, evaluate
from noisin_pyro.models import LanguageModel, NoisyRNN, SequenceModel, Spread
from noisin_pyro.training import Config, Data, Inference, Model, Noise, Optimization, Run, distributed, fit, train
from noisin_pyro.training.distributed import SINGLE, World, data_parallel, reseed
from noisin_pyro.training.loop import train_epoch
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.rundir import checkpointer
from noisin_pyro.training.sharding import scored
from noisin_pyro.training.signals import Interrupted
from noisin_pyro.training.train_step import make_train_step

BATCH = 4
GRADIENTS, DIRECTIONS = 200, 8


def words(seed: int = 4, num_steps: int = 103) -> Stream:
    """By default 103 tokens in 4 columns: the last window is of one step, in which the last column has ended."""
    return Stream(
        torch.randint(11, (num_steps,), generator=torch.Generator().manual_seed(seed)), batch_size=BATCH, window=5
    )


def chords(seed: int = 4) -> Sequences:
    """13 sequences of 1 to 7 steps: the last batch of 4 has one alone."""
    generator = torch.Generator().manual_seed(seed)
    keys = (torch.rand(13, 7, 5, generator=generator) < 0.3).double()
    return Sequences(keys, keys.roll(-1, 1), torch.tensor([7, 1, 3, 5, 7, 2, 6, 4, 7, 7, 3, 2, 5]))


class Idle(LanguageModel):
    """A model with a parameter that its loss does not depend on."""

    def __init__(self) -> None:
        super().__init__(11, 6, spread=0.0)
        self.idle = torch.nn.Parameter(torch.ones(3))


Read = Callable[[int], Sequences | Stream]
FITS: dict[str, tuple[Callable[[], SequenceModel], Read, dict[str, Any]]] = {
    "lstm, clipped": (
        lambda: LanguageModel(11, 6, num_layers=2, cell="lstm", spread=0.0, tie_weights=True),
        words,
        {"learning_rate": 0.01, "clip": 0.05},
    ),
    "averaged, divided, stopped early": (
        lambda: LanguageModel(11, 6, spread=0.0),
        words,
        {"optimizer": "ASGD", "schedule": "divide", "learning_rate": 3.0, "epochs": 9, "patience": 2, "clip": 0.25},
    ),
    "decayed, with an idle parameter": (Idle, words, {"optimizer": "AdamW", "learning_rate": 0.1}),
    "sequences": (
        lambda: SequenceModel(NoisyRNN(5, 4, cell="gru", spread=0.0), "bernoulli", 5),
        chords,
        {"optimizer": "SGD", "schedule": "halve", "learning_rate": 0.5, "epochs": 6},
    ),
    "filtering bound": (
        lambda: LanguageModel(11, 6, num_layers=2, cell="lstm", spread=0.0),
        words,
        {"bound": "filtering", "num_particles": 3, "learning_rate": 0.01},
    ),
}  # fmt: skip


def fitted(name: str, folder: Path, world: World = SINGLE) -> dict[str, Any]:
    """The log and the weights of a whole fit in float64."""
    make, data, options = FITS[name]
    pyro.set_rng_seed(1)
    model = make().double()
    folder.mkdir(exist_ok=True)
    config = Config(data=Data(batch_size=BATCH), optimization=Optimization(**{"epochs": 2} | options))
    rows = fit(model, data(4), data(5), config, folder, world=world)
    numbers = [{name: row[name] for name in ("train_nats", "valid_nats", "learning_rate")} for row in rows]
    return {"rows": numbers, "weights": dict(model.state_dict())}


def scores(world: World = SINGLE) -> dict[str, Any]:
    """Numbers of held-out data: of a stream, of sequences, and of fewer sequences than there may be processes."""
    pyro.set_rng_seed(1)
    speaker = LanguageModel(11, 6, spread=0.0).double()
    player = SequenceModel(NoisyRNN(5, 4, spread=0.0), "bernoulli", 5).double()
    results = {}
    for model, data in ((speaker, words(num_steps=1203)), (player, chords()), (player, chords().rows(slice(3)))):
        for method in ("mean", "importance"):
            number = scored(lambda part, model=model, method=method: evaluate(model, part, method), data, world)
            results[f"{len(results)}, {method}"] = {
                "numbers": torch.tensor([number.nats_per_step, number.standard_error], dtype=torch.float64),
                "steps": number.num_steps,
                "totals": number.totals,
                "lengths": number.lengths,
            }
    return results


def gradients(world: World = SINGLE) -> torch.Tensor:
    """First gradients of the same batch, each with new noise, along that of γ and some directions, ``(N, D)``."""
    pyro.set_rng_seed(2)
    model = LanguageModel(11, 4, spread=Spread(0.5, learn=True), regularizer="D").double()
    *_, last = words().batches()
    ragged = Batch(last.inputs.repeat(1, 6), last.targets.repeat(1, 6), torch.tensor([6, 6, 3, 1]), carried=False)
    bound = data_parallel(PriorAsGuide_ELBO(max_plate_nesting=1)(model), world)
    still = torch.optim.SGD(bound.parameters(), lr=0.0)
    per_step = []

    def look(*_: object) -> None:
        per_step.append(torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None]))

    still.register_step_post_hook(look)
    reseed(2, world)
    train_epoch(make_train_step(bound, still, world=world), [ragged] * GRADIENTS)
    size = len(per_step[0])
    directions = torch.randn(size, DIRECTIONS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert model.rnn.spread_1.excess_unconstrained.grad is not None
    index = [name for name, _ in model.named_parameters()].index("rnn.spread_1.excess_unconstrained")
    before = sum(value.numel() for value in list(model.parameters())[:index])
    directions[:, 0] = torch.eye(size, dtype=torch.float64)[before]
    return torch.stack(per_step) @ directions


def noise(world: World = SINGLE) -> list[list[float]]:
    """The first draws of each process after one seed, and after the same again."""
    drawn = []
    for _ in range(2):
        pyro.set_rng_seed(7)
        reseed(7, world)
        drawn.append(world.all_gather(torch.randn(3).tolist()))
    assert drawn[0] == drawn[1]
    return drawn[0]


def diverged(folder: Path, world: World) -> list[str]:
    """The error in each process if one row of the batch, of the last process, has a loss that is not finite."""
    model = LanguageModel(12, 6, num_layers=2)
    with torch.no_grad():
        model.embedding.weight[11] = torch.nan
    tokens = torch.randint(11, (40,))
    tokens[-4] = 11
    message = ""
    try:
        data = Stream(tokens, BATCH, 10)
        fit(model, data, data, Config(data=Data(batch_size=BATCH)), folder, world=world)
    except FloatingPointError as error:
        message = str(error)
    assert not (folder / "last.pt").exists()
    return world.all_gather(message)


def refused(world: World) -> list[str]:
    """The error in each process if rank zero cannot write."""

    def full() -> None:
        raise OSError(28, "No space left on device")

    message = ""
    try:
        world.rank_zero_first(full)
    except OSError as error:
        message = str(error)
    return world.all_gather(message)


def read(folder: Path, world: World) -> list[tuple[int, bool]]:
    """The rank by which each process's result is made, and whether rank zero's file was there before."""
    file = folder / "read.txt"

    def make() -> tuple[int, bool]:
        there = file.exists()
        if world.rank == 0:
            time.sleep(0.2)
            file.write_text("")
        return world.rank, there

    return world.all_gather(world.rank_zero_first(make))


def config(texts: Path, folder: Path) -> Config:
    """A noisy run and its twin."""
    return Config(
        data=Data(name=str(texts), batch_size=BATCH, window=10),
        model=Model(hidden_size=8),
        noise=Noise(spread=0.3, learn_spread=True),
        inference=Inference(guide="mean-field"),
        optimization=Optimization(learning_rate=0.01, epochs=2, num_particles=2),
        run=Run(folder=folder, ensemble_samples=3, checkpoint_steps=2),
    )


def at_step(step: int, do: Callable[[], object]) -> None:
    """Call a function in the last process at the end of that step, counted from 1."""
    steps = itertools.count(1)

    def hook(*_: object) -> None:
        if next(steps) == step and dist.get_rank() == dist.get_world_size() - 1:
            do()

    register_optimizer_step_post_hook(hook)


def interrupted(texts: Path, folder: Path, world: World) -> list[int]:
    """Interrupt a run by a signal to its last process, and resume it; the steps after which each process stopped."""
    at_step(7, lambda: signal.raise_signal(signal.SIGTERM))
    steps = 0
    try:
        train(config(texts, folder))
    except Interrupted:
        steps = checkpointer.load(folder / "last.pt")["progress"]["under_way"]["batches"]
    stopped = world.all_gather(steps)
    train(Config(run=Run(resume=folder)))
    return stopped


def everything(folder: Path) -> None:
    texts = folder.parent
    assert main(["train", "--data", str(texts), "--batch-size", "5", "--folder", str(folder / "uneven")]) == 2
    with distributed.world() as world, program_settings():
        results = {
            "fits": {name: fitted(name, folder / f"fit {number}", world) for number, name in enumerate(FITS)},
            "scores": scores(world),
            "gradients": gradients(world),
            "noise": noise(world),
            "diverged": diverged(folder, world),
            "refused": refused(world),
            "read": read(folder, world),
            "stopped": None if world.size > 2 else interrupted(texts, folder / "broken", world),
        }
        if world.size == 2:
            train(config(texts, folder / "whole"))
        world.on_rank_zero(lambda: checkpointer.save(folder / "found.pt", results))


def hang() -> None:
    """Wait for a process that does not answer."""
    distributed.TIMEOUT = timedelta(seconds=10)
    store = next(dist.rendezvous("env://"))[0]  # pyright: ignore[reportPrivateImportUsage]
    store.add("ready", 1)
    while store.add("ready", 0) < int(os.environ["WORLD_SIZE"]):  # so that the time is not that of the imports
        time.sleep(0.01)
    try:
        with distributed.world() as world:
            if world.rank == world.size - 1:
                signal.pause()
            world.all_gather(None)
    except ConnectionError as error:
        sys.exit(f"noisin: {error}")


if __name__ == "__main__":
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    first, *options = sys.argv[1:]
    if first == "hang":
        hang()
    elif not options:
        everything(Path(first))
    else:
        at_step(int(first), lambda: os.kill(os.getpid(), signal.SIGKILL))
        sys.exit(main(["train", *options]))
