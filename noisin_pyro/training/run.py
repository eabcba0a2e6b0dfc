"""A whole run: from a configuration to a folder with its log, best model, pictures and result."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import sys
import time
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pyro
import torch
from tqdm import tqdm

from noisin_pyro import plots
from noisin_pyro.data import Corpus
from noisin_pyro.inference import evaluate
from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import SequenceModel
from noisin_pyro.recurrence.matmul import tf32
from noisin_pyro.training import folder, interrupts, log
from noisin_pyro.training.build import build_guide, build_model, load_corpus, resolved, steps
from noisin_pyro.training.config import Config, to_json
from noisin_pyro.training.distributed import here, joined, reseed, take_device
from noisin_pyro.training.fingerprint import fingerprint, require_same
from noisin_pyro.training.locks import alone
from noisin_pyro.training.loop import AfterEpoch, Paused, fit, rows_at_once, validated
from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.result import Measure, Result, read
from noisin_pyro.training.resume import completed, lengthen, refuse_contradictions, stored, tell_changes
from noisin_pyro.training.shares import Steps, scored


def train(
    config: Config | None = None, after_epoch: AfterEpoch = lambda rows: None, epochs: int | None = None
) -> Result:
    """Train and test the network that ``config`` describes, and its deterministic twin if that is asked for.

    The run's folder then holds ``config.json``, ``log.csv`` (:func:`~noisin_pyro.training.fit` names the columns),
    ``best.pt``, ``result.json``, ``curves.png`` (figure 2 of the paper), for a learned spread ``spreads.png``, and the
    twin's own folder, ``deterministic``. Seeds the generators of torch, numpy and Python.

    Args:
        config: by default ``Config()``, what ``noisin train`` does without arguments.
        after_epoch: called with the rows of the log so far, once an epoch's checkpoint is written (the twin's epochs
            apart), and again when the run is resumed. It may raise ``Paused`` to leave the run there.
        epochs: of a run to resume, the maximum number of epochs in place of what it was asked for; it may be larger
            than that, even where the run is finished. The numbers are then the same as if it had been asked for at
            once. A run that its patience has ended stays as it is.

    Raises:
        Paused: from ``after_epoch``; the folder is kept, and ``Run(resume=folder)`` goes on.
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
    with joined(), program_settings(), interrupts.raised(), contextlib.ExitStack() as held:
        ranks = here()
        if config.run.resume is not None:
            where = config.run.resume
            config = _resumed(config, where)
            if epochs is not None:
                ranks.once(partial(lengthen, where, epochs))
                config = dataclasses.replace(
                    config, optimisation=dataclasses.replace(config.optimisation, epochs=epochs)
                )
        elif epochs is not None:
            raise ValueError(f"epochs={epochs} is for a run to resume; give config.optimisation.epochs instead")
        take_device(config.run.device)
        ranks.split(config.data.batch_size)
        held.enter_context(tf32(config.run.tf32))
        corpus = ranks.once(partial(load_corpus, config.data))
        config = config if resumed else dataclasses.replace(config, data=resolved(config.data))
        result = _run(config, corpus, held, resume=resumed, after_epoch=after_epoch)
        if config.run.twin and config.noisy:
            where = result.folder / "deterministic"
            begun = resumed and ranks.once((where / folder.CONFIG).exists)
            twin = _run(config.deterministic_twin(where), corpus, held, begun, main=result.folder)
            result = dataclasses.replace(result, twin=twin)
        ranks.once(partial(_draw, result, config))
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


def _run(
    config: Config,
    corpus: Corpus,
    held: contextlib.ExitStack,
    resume: bool,
    main: Path | None = None,
    after_epoch: AfterEpoch = lambda rows: None,
) -> Result:
    """Train and test one network, its folder locked until ``held`` closes; ``main`` is that to resume in its place."""
    name, where, ranks = "noisy" if config.noisy else "deterministic", config.run.folder, here()
    made = where is None or not where.exists()
    if resume:
        assert where is not None
        ranks.once(partial(_lock, where, held))
        require_same(where, corpus)
        if ranks.once((where / folder.RESULT).exists):
            result = read(where, _measure(corpus))
            ranks.once(partial(folder.clear, where))
            return result
    pyro.set_rng_seed(config.run.seed)
    device = torch.device(config.run.device)
    model = build_model(config, corpus).to(device)
    guide = build_guide(config, model)
    reseed(config.run.seed)
    run = config.run
    parts = [
        steps(part, config.data, run.device, run.precision, held_out)
        for part, held_out in ((corpus.train, False), (corpus.valid, True), (corpus.test, True))
    ]
    if where is None or not resume:
        where = ranks.once(partial(_claim, where, corpus.name, held, main is not None))
    try:
        if resume:
            ranks.once(partial(folder.sweep, where))
        else:
            began = provenance(device) | fingerprint(corpus)
            ranks.once(partial(folder.write_json, where / folder.CONFIG, json.loads(to_json(config)) | began))
        rows = fit(model, parts[0], parts[1], config, where, guide, name, resume, after_epoch)
        result = _tested(model, guide, parts[1], parts[2], config, where, rows, _measure(corpus))
    except Paused:
        raise
    except BaseException as error:
        held.enter_context(interrupts.Deferred().within())  # torchrun stops all by SIGTERM once one has ended
        kept = resume or any((where / name).exists() for name in (folder.BEST, folder.LAST))
        if not kept and ranks.writes:
            _remove(where, made)
        elif not isinstance(error, ValueError) and ranks.writes:  # a refusal leaves a folder as it was
            _leave(where, name, corpus)
        if isinstance(error, FloatingPointError) and kept:
            error.add_note(f"the last good checkpoint is kept in {str(where)!r}")
        elif (kept or main) and not isinstance(error, ValueError):
            error.add_note(f"go on with: noisin train --resume {shlex.quote(str(main or where))}")
        raise
    ranks.once(partial(_close, where, result))
    return result


def _lock(where: Path, held: contextlib.ExitStack) -> None:
    held.enter_context(alone(where))


def _claim(where: Path | None, name: str, held: contextlib.ExitStack, is_twin: bool) -> Path:
    """A folder for a new run, which is empty and its own."""
    where = folder.make(where, name)
    _lock(where, held)
    if is_twin:
        folder.sweep(where)  # of a twin killed while it wrote its configuration
    folder.require_empty(where)
    return where


def _close(where: Path, result: Result) -> None:
    """Write the result, and remove what only an unfinished run needs."""
    settings = json.loads((where / folder.CONFIG).read_text(encoding="utf-8"))
    folder.write_json(where / folder.RESULT, result.numbers() | settings)
    folder.clear(where)


def _tested(
    model: SequenceModel,
    guide: Guide | None,
    valid: Steps,
    test: Steps,
    config: Config,
    where: Path,
    rows: list[log.Row],
    measure: Measure,
) -> Result:
    """The numbers of the best model."""
    start = time.perf_counter()
    name = "noisy" if config.noisy else "deterministic"
    best = folder.load_best(where, model, guide)
    samples, ensemble = config.run.ensemble_samples, None
    valid_number = validated(model, guide, valid, config.data)
    test_bound = None if guide is None else validated(model, guide, test, config.data)
    score = partial(evaluate, model, batch_size=rows_at_once(test, config.data))
    test_mean = scored(partial(score, method="mean"), test)
    if config.noisy and samples > 0:
        tqdm.write(f"{name:>13}, test: averaging {samples} noisy runs", file=sys.stderr)
        ensemble = scored(partial(score, method="ensemble", num_samples=samples), test)
    return Result(
        name=name,
        folder=where,
        log=rows,
        best_epoch=best["epoch"],
        valid=valid_number,
        test=test_mean,
        bound=test_bound,
        ensemble=ensemble,
        measure=measure,
        seconds=sum(row["seconds"] for row in rows) + time.perf_counter() - start,
    )


def _remove(where: Path, made: bool) -> None:
    """What a run leaves that has nothing to go on from: nothing, and an empty folder if there was one before."""
    for path in where.iterdir():
        path.unlink()
    if made:
        where.rmdir()


def _leave(where: Path, name: str, corpus: Corpus) -> None:
    """What else an unfinished run leaves beside its checkpoints: the curves of its epochs."""
    with contextlib.suppress(OSError, ValueError, TypeError):  # a full disk, half a row: what ended the run is the news
        rows = log.require_whole(log.read(where / folder.LOG))
        plots.learning_curves({name: rows}, measure=_measure(corpus)).savefig(where / folder.CURVES)


def _measure(corpus: Corpus) -> Measure:
    return "nats" if corpus.vocabulary is None else "perplexity"


def _draw(result: Result, config: Config) -> None:
    runs = [run for run in (result, result.twin) if run is not None]
    curves = plots.learning_curves({run.name: run.log for run in runs}, measure=result.measure)
    curves.savefig(result.folder / folder.CURVES)
    if config.noise.learn_spread:
        plots.spreads(result.log).savefig(result.folder / folder.SPREADS)
