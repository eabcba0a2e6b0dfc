"""A whole run: from a configuration to a folder with its log, best model, figures and result."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import shlex
import time
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pyro
import torch

from noisin_pyro import plots
from noisin_pyro._files import exclusive_lock, naming, write_json
from noisin_pyro.data import Corpus, Sequences
from noisin_pyro.inference import evaluate
from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import SequenceModel
from noisin_pyro.recurrence.matmul import tf32
from noisin_pyro.training import distributed, signals
from noisin_pyro.training.build import build_guide, build_model, datasets, load_corpus, resolved
from noisin_pyro.training.config import Config, to_json
from noisin_pyro.training.description import DataDescription
from noisin_pyro.training.distributed import World
from noisin_pyro.training.loop import AfterEpoch, StopTraining, fit
from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.result import Measure, Result, read
from noisin_pyro.training.rundir import layout, metrics_log
from noisin_pyro.training.rundir.checkpointer import load_best, load_initial_state
from noisin_pyro.training.rundir.load import load_run
from noisin_pyro.training.rundir.resume import config_to_resume, is_finished, lengthen
from noisin_pyro.training.sharding import SequenceData, scored
from noisin_pyro.training.validation import eval_rows, validate

logger = logging.getLogger("noisin_pyro")


def train(
    config: Config | None = None, after_epoch: AfterEpoch = lambda rows: None, epochs: int | None = None
) -> Result:
    """Train and test the network that ``config`` describes, and its deterministic twin if ``config.run.twin`` is set.

    The run's folder then holds ``config.json``, ``data.json`` (the vocabulary), ``log.csv``
    (:func:`~noisin_pyro.training.fit` names the columns), ``best.pt``, ``last.pt``, ``result.json``, ``curves.png``
    (figure 2 of the paper), for a learned spread ``spreads.png``, and the twin's own folder, ``deterministic``. Seeds
    the generators of torch, numpy and Python. Progress is logged to the logger ``"noisin_pyro"``.

    Args:
        config: by default ``Config()``, what ``noisin train`` does without arguments.
        after_epoch: called with the rows of the log so far after each epoch's checkpoint is written (not for the
            twin's epochs), and when the run is resumed. It may raise ``StopTraining``.
        epochs: for a run to resume, its new maximum number of epochs. It may be larger than before, even where the run
            is finished; the results are those of a run with this maximum from the start. A run that was stopped early
            by its patience stays as it is.

    Raises:
        StopTraining: from ``after_epoch``; ``Run(resume=folder)`` resumes the run.
        ValueError: options that do not fit each other, the data or the machine. Nothing is written then.
        FloatingPointError: a loss that is not finite.

    Training can be interrupted at any time, by Ctrl-C too. The folder then holds the best model so far in ``best.pt``,
    the curves, and ``last.pt``, from which ``Run(resume=folder)`` resumes; a folder without either is removed.

    With ``config.run.resume`` the options are those of that folder's ``config.json``; other options in ``config`` must
    agree with them. The results of a resumed run are bit for bit those of an uninterrupted one (on a CPU, with the same
    versions and number of threads). A run or a twin that is already finished is read, not trained again.
    """
    config = Config() if config is None else config
    resume = config.run.resume is not None
    with (
        distributed.world() as world,
        program_settings(),
        signals.raise_on_sigterm(),
        contextlib.ExitStack() as locks,
    ):
        if resume:
            config = config_to_resume(config, epochs, world)
        elif epochs is not None:
            raise ValueError(f"epochs={epochs} is for a run to resume; give config.optimization.epochs instead")
        distributed.set_device(config.run.device, world)
        world.split(config.data.batch_size)
        locks.enter_context(tf32(config.run.tf32))
        corpus = world.rank_zero_first(partial(load_corpus, config.data, config.model.emission))
        if not resume:
            config = dataclasses.replace(config, data=resolved(config.data))
        result = _NetworkRun(config, corpus, world, locks).run(resume, after_epoch)
        if config.run.twin and config.noisy:
            folder = result.folder / "deterministic"
            twin = _NetworkRun(config.deterministic_twin(folder), corpus, world, locks, main=result.folder)
            has_begun = resume and world.on_rank_zero((folder / layout.CONFIG).exists)
            result = dataclasses.replace(result, twin=twin.run(has_begun))
        world.on_rank_zero(partial(_draw, result, config))
    return result


def program_settings() -> AbstractContextManager[None]:
    """Pyro's settings while a program runs: parameters live in the modules instead of the global store, and nothing is
    validated, since that would look at every value and so wait for the device at every step."""
    return pyro.settings.context(
        module_local_params=True,
        validate_distributions_pyro=False,
        validate_distributions_torch=False,
        validate_infer=False,
        validate_poutine=False,
    )


class _NetworkRun:
    """Training and test of one network, the noisy one or its twin.

    Args:
        locks: holds the folder's lock until it is closed.
        main: for a twin, the folder of the run that it belongs to.
    """

    def __init__(
        self, config: Config, corpus: Corpus, world: World, locks: contextlib.ExitStack, main: Path | None = None
    ) -> None:
        self.config, self.corpus, self.world, self.locks, self.main = config, corpus, world, locks, main
        self.name = "noisy" if config.noisy else "deterministic"
        self.measure: Measure = "nats" if corpus.vocabulary is None else "perplexity"

    def run(self, resume: bool, after_epoch: AfterEpoch = lambda rows: None) -> Result:
        """Train and test, or read the result if there is one."""
        config, world, given = self.config, self.world, self.config.run.folder
        epochs = config.optimization.epochs
        made = given is None or not given.exists()
        if resume:
            assert given is not None
            world.on_rank_zero(partial(self._lock, given))
            layout.require_same_data(given, self.corpus)
            if world.on_rank_zero(partial(is_finished, given, epochs)):
                result = read(given, self.measure, config.import_paths)
                world.on_rank_zero(partial(layout.remove_intermediate_files, given))
                return result
        pyro.set_rng_seed(config.run.seed)
        model = build_model(config, self.corpus).to(config.run.device)
        guide = build_guide(config, model)
        self._load_initial_weights(model, guide)
        distributed.reseed(config.run.seed, world)
        train, valid, test = datasets(config, self.corpus)
        for part in (train, valid, test):
            if isinstance(part, Sequences):
                model.emission.check_values(part.targets)
        folder = given if resume else world.on_rank_zero(self._new_folder)
        assert folder is not None

        def after(rows: list[metrics_log.Row]) -> None:
            if resume:  # the first call comes when the checkpoint is restored; until then a finished run is as it was
                world.on_rank_zero(partial(lengthen, folder, epochs))
            after_epoch(rows)

        try:
            world.on_rank_zero(partial(self._write_config, folder, resume))
            rows = fit(model, train, valid, config, folder, guide, self.name, resume, after, world)
            result = self._test(model, guide, valid, test, folder, rows)
        except StopTraining:
            raise
        except BaseException as error:
            self._clean_up(folder, error, resume, made)
            raise
        world.on_rank_zero(partial(_write_result, folder, result))
        return result

    def _load_initial_weights(self, model: SequenceModel, guide: Guide | None) -> None:
        """Start from the weights in ``run.init_from``, unless there is a checkpoint.

        A proposal is not trained where particles are resampled: the expectation of p̂ does not depend on it.
        """
        config, start, folder = self.config, self.config.run.init_from, self.config.run.folder
        is_frozen = config.optimization.bound == "filtering" and config.optimization.threshold != 0
        if guide is not None and is_frozen:
            guide.requires_grad_(False)
        if folder and any((folder / name).exists() for name in (layout.LAST, layout.BEFORE)):
            return
        other = start and load_run(start, imports=config.import_paths)
        if guide is not None and is_frozen and (other is None or other.guide is None):
            raise ValueError(
                f"bound 'filtering' does not train its proposal, guide {config.inference.guide!r}, where it resamples: "
                "give init from, the folder of a run that has trained it by bound 'elbo', got "
                f"{'none' if start is None else f'{str(start)!r} without a guide'}; or threshold 0, which trains it"
            )
        if start is None or other is None:
            return
        if other.vocabulary != self.corpus.vocabulary:
            raise ValueError(
                f"init from {str(start)!r}: its vocabulary is not that of {self.corpus.name}; use its data"
            )
        load_initial_state(model, other.model, start)
        if guide is not None and other.guide is not None:
            load_initial_state(guide, other.guide, start, "guide")
        gammas = [{name: f"{value:.3g}" for name, value in each.rnn.spreads().items()} for each in (other.model, model)]
        if config.noisy and other.config.noise.learn_spread and gammas[0] != gammas[1]:
            logger.info(
                "%13s: starts from the weights in %s, but not from its γ, %s: γ is %s", self.name, start, *gammas
            )

    def _lock(self, folder: Path) -> None:
        self.locks.enter_context(exclusive_lock(folder))

    def _new_folder(self) -> Path:
        """Make and lock an empty folder."""
        folder = layout.make_folder(self.config.run.folder, self.corpus.name)
        self._lock(folder)
        if self.main is not None:
            layout.remove_partial_files(folder)  # of a twin that was killed while writing its configuration
        layout.require_empty(folder)
        return folder

    def _write_config(self, folder: Path, resume: bool) -> None:
        if resume:
            layout.remove_partial_files(folder)
            if not (folder / layout.RESULT).exists():
                lengthen(folder, self.config.optimization.epochs)
        else:
            device, data = torch.device(self.config.run.device), layout.fingerprint(self.corpus)
            settings = provenance(device, self.world.size) | data
            write_json(folder / layout.CONFIG, json.loads(to_json(self.config)) | settings)
        DataDescription.of(self.corpus).write(folder)  # after the configuration, without which there is no run

    def _test(
        self,
        model: SequenceModel,
        guide: Guide | None,
        valid: SequenceData,
        test: SequenceData,
        folder: Path,
        rows: list[metrics_log.Row],
    ) -> Result:
        """Evaluate the best model."""
        start, config, world = time.perf_counter(), self.config, self.world
        best = load_best(folder, model, guide)
        samples, ensemble = config.run.ensemble_samples, None
        valid_evaluation = validate(model, guide, valid, config, world)
        is_bound = guide is not None or config.optimization.bound == "filtering"
        bound = validate(model, guide, test, config, world, final=True) if is_bound else None
        score = partial(evaluate, model, batch_size=eval_rows(test, config.data, world))
        mean = scored(partial(score, method="mean"), test, world)
        if config.noisy and samples > 0:
            logger.info("%13s, test: averaging %d noisy runs", self.name, samples)
            ensemble = scored(partial(score, method="ensemble", num_samples=samples), test, world)
        return Result(
            name=self.name,
            folder=folder,
            log=rows,
            best_epoch=best["epoch"],
            valid=valid_evaluation,
            test=mean,
            bound=bound,
            ensemble=ensemble,
            measure=self.measure,
            seconds=sum(row["seconds"] for row in rows) + time.perf_counter() - start,
            imports=sorted(self.config.import_paths),
        )

    def _clean_up(self, folder: Path, error: BaseException, resume: bool, made: bool) -> None:
        """Remove a folder without a checkpoint, or draw the curves. Add a note on resuming to the error."""
        # torchrun stops all processes by SIGTERM once one has ended
        self.locks.enter_context(signals.DeferredSignals().deferred())
        has_checkpoint = resume or any((folder / name).exists() for name in (layout.BEST, layout.LAST))
        if self.world.rank == 0:
            if not has_checkpoint:
                layout.remove_folder(folder, made)
            elif not isinstance(error, ValueError):  # after an invalid option the folder stays as it is
                self._draw_unfinished(folder)
        if isinstance(error, FloatingPointError) and has_checkpoint:
            error.add_note(f"the last checkpoint is in {str(folder)!r}")
        elif (has_checkpoint or self.main) and not isinstance(error, ValueError):
            error.add_note(f"resume with: noisin train --resume {shlex.quote(str(self.main or folder))}")

    def _draw_unfinished(self, folder: Path) -> None:
        with contextlib.suppress(OSError, ValueError, TypeError):  # such as a full disk: only the first error matters
            rows = metrics_log.require_whole(metrics_log.read(folder / layout.LOG))
            plots.learning_curves({self.name: rows}, measure=self.measure).savefig(folder / layout.CURVES)


def _write_result(folder: Path, result: Result) -> None:
    write_json(folder / layout.RESULT, result.as_dict() | layout.read_settings(folder))
    layout.remove_intermediate_files(folder)


def _draw(result: Result, config: Config) -> None:
    # as in the log, from which a finished run is drawn again
    logs = {run.name: metrics_log.rounded(run.log) for run in (result, result.twin) if run is not None}
    curves = plots.learning_curves(logs, measure=result.measure)
    with naming(result.folder / layout.CURVES):
        curves.savefig(result.folder / layout.CURVES)
    if config.noise.learn_spread:
        with naming(result.folder / layout.SPREADS):
            plots.spreads(logs[result.name]).savefig(result.folder / layout.SPREADS)
