"""A whole run: from a configuration to a folder with its log, best model, pictures and result."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import pyro
import torch
from tqdm import tqdm

from noisin_pyro import plots
from noisin_pyro.data import Corpus
from noisin_pyro.inference import evaluate
from noisin_pyro.training import checkpoint, folder, log
from noisin_pyro.training.build import build_model, load_corpus, steps
from noisin_pyro.training.config import Config, to_json
from noisin_pyro.training.loop import fit
from noisin_pyro.training.result import Result


def train(config: Config | None = None) -> Result:
    """Train and test the network that ``config`` describes, and its deterministic twin if that is asked for.

    The run's folder then holds ``config.json``, ``log.csv`` (:func:`~noisin_pyro.training.fit` names the columns),
    ``best.pt``, ``result.json``, ``curves.png`` (figure 2 of the paper), for a learned spread ``spreads.png``, and the
    twin's own folder, ``deterministic``. Seeds the generators of torch, numpy and Python.

    Args:
        config: by default ``Config()``, what ``noisin train`` does without arguments.

    Raises:
        ValueError: options that do not fit each other, the data or the machine; nothing has been written then.
        FloatingPointError: a loss that is not finite.

    Whatever ends a run early, Ctrl-C included: the best model until then is kept in ``best.pt``, with the curves; a
    folder without one is removed.
    """
    config = Config() if config is None else config
    if config.run.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' is not available on this machine; take 'cpu'")
    corpus = load_corpus(config.data)
    with program_settings():
        result = _run(config, corpus)
        if config.run.twin and config.noisy:
            twin = _run(config.deterministic_twin(result.folder / "deterministic"), corpus)
            result = dataclasses.replace(result, twin=twin)
    _draw(result, config)
    return result


def program_settings() -> AbstractContextManager[None]:
    """Pyro's settings for the time that a program runs: parameters in the modules instead of its global store, and no
    validation, which would look at every value and so wait for the device at every step."""
    return pyro.settings.context(
        module_local_params=True,
        validate_distributions_pyro=False,
        validate_distributions_torch=False,
        validate_infer=False,
        validate_poutine=False,
    )


def _run(config: Config, corpus: Corpus) -> Result:
    pyro.set_rng_seed(config.run.seed)
    model = build_model(config, corpus)
    parts = [steps(part, config.data, config.run.device) for part in (corpus.train, corpus.valid, corpus.test)]
    where = folder.make(config.run.folder, corpus.name)
    start = time.perf_counter()
    name = "noisy" if config.noisy else "deterministic"
    device = torch.device(config.run.device)
    settings = json.loads(to_json(config)) | folder.provenance(device)
    folder.write_json(where / folder.CONFIG, settings)

    try:
        rows = fit(model.to(device), parts[0], parts[1], config, where, name)
    except BaseException:
        _leave(where, name, corpus)
        raise
    best = checkpoint.load(where / folder.BEST, device)
    model.load_state_dict(best["model"])
    batch, samples, ensemble = config.data.batch_size, config.run.ensemble_samples, None
    valid = evaluate(model, parts[1], method="mean", batch_size=batch)
    test = evaluate(model, parts[2], method="mean", batch_size=batch)
    if config.noisy and samples > 0:
        tqdm.write(f"{name:>13}, test: averaging {samples} noisy runs", file=sys.stderr)
        ensemble = evaluate(model, parts[2], method="ensemble", num_samples=samples, batch_size=batch)
    result = Result(
        name=name,
        folder=where,
        log=rows,
        best_epoch=best["epoch"],
        valid=valid,
        test=test,
        ensemble=ensemble,
        measure=_measure(corpus),
        seconds=time.perf_counter() - start,
    )
    folder.write_json(where / folder.RESULT, result.numbers() | settings)
    return result


def _leave(where: Path, name: str, corpus: Corpus) -> None:
    """What an unfinished run leaves: the curves of its epochs, or, before the first one's end, nothing."""
    if not (where / folder.BEST).exists():
        shutil.rmtree(where)
        return
    rows = log.read(where / folder.LOG)
    plots.learning_curves({name: rows}, measure=_measure(corpus)).savefig(where / folder.CURVES)


def _measure(corpus: Corpus) -> Literal["perplexity", "nats"]:
    return "nats" if corpus.vocabulary is None else "perplexity"


def _draw(result: Result, config: Config) -> None:
    runs = [run for run in (result, result.twin) if run is not None]
    curves = plots.learning_curves({run.name: run.log for run in runs}, measure=result.measure)
    curves.savefig(result.folder / folder.CURVES)
    if config.noise.learn_spread:
        plots.spreads(result.log).savefig(result.folder / folder.SPREADS)
