"""A whole run: from a configuration to a folder with its log, best model, pictures and result."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import shutil
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pyro
import torch
from tqdm import tqdm

from noisin_pyro import plots
from noisin_pyro.data import Corpus
from noisin_pyro.inference import evaluate
from noisin_pyro.models import SequenceModel
from noisin_pyro.training import checkpoint, folder, interrupts, log
from noisin_pyro.training.build import build_model, load_corpus, steps
from noisin_pyro.training.config import Config, to_json
from noisin_pyro.training.loop import Steps, fit
from noisin_pyro.training.result import Measure, Result, read
from noisin_pyro.training.resume import completed, refuse_contradictions, stored, tell_changes


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

    Whatever ends a run early, Ctrl-C included: the best model until then is kept in ``best.pt``, with the curves, and
    ``last.pt``, which ``Run(resume=folder)`` goes on from; a folder without either is removed.

    With ``config.run.resume`` the options are those of that folder's ``config.json``, and any other that ``config``
    gives must agree. A resumed run ends in the same numbers, bit for bit, as one without a break (on a CPU, with the
    same versions and threads). What is finished already, be it the run or its twin, is read and not run again.
    """
    config = Config() if config is None else config
    resumed = config.run.resume is not None
    if config.run.resume is not None:
        config = _resumed(config, config.run.resume)
    if config.run.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' is not available on this machine; take 'cpu'")
    corpus = load_corpus(config.data)
    with program_settings(), interrupts.raised():
        result = _run(config, corpus, resume=resumed)
        if config.run.twin and config.noisy:
            where = result.folder / "deterministic"
            folder.sweep(where)
            begun = (where / folder.CONFIG).exists()
            twin = _run(config.deterministic_twin(where), corpus, resume=resumed and begun, main=result.folder)
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


def _resumed(config: Config, where: Path) -> Config:
    """The configuration of the folder, with the folder as its own."""
    before = stored(where)
    refuse_contradictions(completed(config, before), before)
    tell_changes(where)
    return dataclasses.replace(before, run=dataclasses.replace(before.run, folder=where, resume=None))


def _run(config: Config, corpus: Corpus, resume: bool, main: Path | None = None) -> Result:
    """Train and test one network; ``main`` is the folder to resume instead of its own."""
    name = "noisy" if config.noisy else "deterministic"
    if resume and config.run.folder is not None and (config.run.folder / folder.RESULT).exists():
        _clear(config.run.folder)
        return read(config.run.folder, _measure(corpus))
    pyro.set_rng_seed(config.run.seed)
    device = torch.device(config.run.device)
    model = build_model(config, corpus).to(device)
    parts = [steps(part, config.data, config.run.device) for part in (corpus.train, corpus.valid, corpus.test)]
    if resume and config.run.folder is not None:
        where = config.run.folder
        folder.sweep(where)
    else:
        where = folder.make(config.run.folder, corpus.name)
    try:
        if not resume:
            folder.write_json(where / folder.CONFIG, json.loads(to_json(config)) | folder.provenance(device))
        rows = fit(model, parts[0], parts[1], config, where, name, resume)
        result = _tested(model, parts[1], parts[2], config, where, rows, _measure(corpus))
    except BaseException as error:
        _leave(where, name, corpus, fresh=not resume)
        if isinstance(error, FloatingPointError) and where.exists():
            error.add_note(f"the last good checkpoint is kept in {str(where)!r}")
        elif (main := main or where).exists() and not isinstance(error, ValueError):
            error.add_note(f"go on with: noisin train --resume {shlex.quote(str(main))}")
        raise
    settings = json.loads((where / folder.CONFIG).read_text(encoding="utf-8"))
    folder.write_json(where / folder.RESULT, result.numbers() | settings)
    _clear(where)
    return result


def _tested(
    model: SequenceModel, valid: Steps, test: Steps, config: Config, where: Path, rows: list[log.Row], measure: Measure
) -> Result:
    """The numbers of the best model."""
    start = time.perf_counter()
    name = "noisy" if config.noisy else "deterministic"
    best = checkpoint.load(where / folder.BEST)
    model.load_state_dict(best["model"])
    batch, samples, ensemble = config.data.batch_size, config.run.ensemble_samples, None
    valid_mean = evaluate(model, valid, method="mean", batch_size=batch)
    test_mean = evaluate(model, test, method="mean", batch_size=batch)
    if config.noisy and samples > 0:
        tqdm.write(f"{name:>13}, test: averaging {samples} noisy runs", file=sys.stderr)
        ensemble = evaluate(model, test, method="ensemble", num_samples=samples, batch_size=batch)
    return Result(
        name=name,
        folder=where,
        log=rows,
        best_epoch=best["epoch"],
        valid=valid_mean,
        test=test_mean,
        ensemble=ensemble,
        measure=measure,
        seconds=sum(row["seconds"] for row in rows) + time.perf_counter() - start,
    )


def _leave(where: Path, name: str, corpus: Corpus, fresh: bool) -> None:
    """What an unfinished run leaves: the curves of its epochs, or, if it has nothing to go on from, nothing."""
    if fresh and not any((where / kept).exists() for kept in (folder.BEST, folder.LAST)):
        shutil.rmtree(where)
        return
    with contextlib.suppress(OSError, ValueError, TypeError):  # a full disk, half a row: what ended the run is the news
        rows = log.read(where / folder.LOG)
        plots.learning_curves({name: rows}, measure=_measure(corpus)).savefig(where / folder.CURVES)


def _clear(where: Path) -> None:
    """Remove what only an unfinished run needs."""
    for kept in (folder.LAST, folder.BEFORE):
        (where / kept).unlink(missing_ok=True)
    folder.sweep(where)


def _measure(corpus: Corpus) -> Measure:
    return "nats" if corpus.vocabulary is None else "perplexity"


def _draw(result: Result, config: Config) -> None:
    runs = [run for run in (result, result.twin) if run is not None]
    curves = plots.learning_curves({run.name: run.log for run in runs}, measure=result.measure)
    curves.savefig(result.folder / folder.CURVES)
    if config.noise.learn_spread:
        plots.spreads(result.log).savefig(result.folder / folder.SPREADS)
