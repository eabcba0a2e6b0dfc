"""Builds the data, the model and the guide that a configuration describes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from noisin_pyro._lookup import imported, is_import_path, known
from noisin_pyro.data import Corpus, Sequences, Series, SeriesFormat, Stream, load, load_music, load_text
from noisin_pyro.data.catalog import MUSIC, NAMES
from noisin_pyro.data.series_format import Columns
from noisin_pyro.data.table_files import SUFFIXES, load_table
from noisin_pyro.inference import guides
from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import (
    EMISSIONS,
    Cell,
    Emission,
    LanguageModel,
    ModuleEmission,
    NegativeBinomial,
    NoisyRNN,
    Poisson,
    Scaled,
    SequenceModel,
    Spread,
    initialize_as_published,
)
from noisin_pyro.models.dropout import get as get_dropout
from noisin_pyro.models.scaled import is_real, support_of
from noisin_pyro.noise import Family
from noisin_pyro.training.config import Config, is_own_family
from noisin_pyro.training.description import DataDescription
from noisin_pyro.training.options import Data
from noisin_pyro.training.sharding import SequenceData

T = TypeVar("T")
WINDOW = 35
TEXT_OPTIONS = "min_count", "max_vocabulary", "level", "valid_fraction", "test_fraction"
TABLE_OPTIONS = (
    *(field.name for field in dataclasses.fields(Columns)), "split", "valid_fraction", "test_fraction", "scaling"
)  # fmt: skip
EVAL_BATCH_SIZE = 10
"""Columns of a held-out text, as in PyTorch's word language model example."""
_REGISTER = "for a law, name the family that noisin_pyro.noise.register(name, law) returns"


def load_corpus(data: Data, emission: str | None = None) -> Corpus:
    """Load the corpus that the options name.

    Args:
        emission: that of the model, by which the values of a table are scaled.

    Raises:
        ValueError: no such data, or an option that does not apply to it.
    """
    text_options: dict[str, Any] = {
        name: value for name in TEXT_OPTIONS if (value := getattr(data, name)) != getattr(Data, name)
    }
    table_options = {name: value for name in TABLE_OPTIONS if (value := getattr(data, name)) != getattr(Data, name)}
    kind = _kind(data)
    applicable = {"text": text_options, "table": table_options}.get(kind, {})
    if others := [name for name in {**text_options, **table_options} if name not in applicable]:
        by_kind = {"your own texts": text_options, f"tables ({', '.join(SUFFIXES)})": table_options}
        kinds = " or ".join(name for name, given in by_kind.items() if others[0] in given)
        raise ValueError(f"{' and '.join(others)}: only for {kinds}, not {data.name!r}; leave it out")
    if data.root is not None and kind != "name":
        raise ValueError(f"root is for data sets by name, got {str(data.root)!r} with a path; leave it out")
    if kind == "name":
        return load(data.name, root=data.root)
    if kind == "music":
        return load_music(data.name)
    if kind == "table":
        columns = Columns(*(getattr(data, field.name) for field in dataclasses.fields(Columns)))
        renamed = {"split": "by", "valid_fraction": "valid", "test_fraction": "test", "scaling": "scaling"}
        options: Any = {renamed[name]: value for name, value in table_options.items() if name in renamed}
        return load_table(data.name, columns, emission=emission, dtype=torch.float64, **options)
    if data.files is None or len(data.files) == 1:
        path = Path(data.name).resolve() if data.files is None else data.files[0]
        return load_text(path, name=path.stem if path.is_file() else path.name, **text_options)
    train, valid, test = data.files
    return load_text(train=train, valid=valid, test=test, name=train.stem, **text_options)


def resolved(data: Data) -> Data:
    """The same options with absolute paths, the first of ``files`` as name, and the evaluation batch size filled in."""
    is_text = data.files is not None or not (data.name in MUSIC or _is_file(data.name, ".mat", *SUFFIXES))
    held_out = EVAL_BATCH_SIZE if is_text else data.batch_size
    files = data.files and tuple(path.absolute() for path in data.files)
    named = data.name in NAMES and files is None
    return dataclasses.replace(
        data,
        eval_batch_size=held_out if data.eval_batch_size is None else data.eval_batch_size,
        name=data.name if named else str(files[0] if files else Path(data.name).absolute()),
        root=data.root and data.root.absolute(),
        files=files,
    )


def _kind(data: Data) -> Literal["text", "music", "table", "name"]:
    """The kind of data that the options name; a known name takes precedence over a path."""
    if data.files is not None:
        return "text"
    if _is_file(data.name, ".mat"):
        return "music"
    if _is_file(data.name, *SUFFIXES):
        return "table"
    if data.name not in NAMES and data.name and Path(data.name).exists():
        return "text"
    known(
        "data (a text file, a folder with train.txt, valid.txt and test.txt, a .mat or .csv file, or a name)",
        data.name,
        NAMES,
    )
    return "name"


def is_table(data: Data) -> bool:
    """Whether the options name a table of series."""
    return data.files is None and _is_file(data.name, *SUFFIXES)


def _is_file(name: str, *suffixes: str) -> bool:
    return name not in NAMES and Path(name).suffix.lower() in suffixes


def dataset(
    part: Tensor | Sequences, data: Data, device: str, precision: str = "float32", held_out: bool = False
) -> SequenceData:
    """A part of a corpus as batches: a text cut into columns and windows, or sequences in that precision.

    Args:
        held_out: cut a text into ``data.eval_batch_size`` columns instead of ``data.batch_size``, so that its
            perplexity does not depend on the batch size in training; do not cut series into windows.

    Raises:
        ValueError: a window for music, or a text with fewer tokens than columns.
    """
    if isinstance(part, Sequences):
        if isinstance(part, Series) and data.window is not None and not held_out:
            part = part.windows(data.window)
        elif data.window is not None and not isinstance(part, Series):
            raise ValueError(f"window {data.window} is for texts and tables; music is read whole: leave it out")
        return part.to(device, getattr(torch, precision))
    columns = resolved(data).eval_batch_size if held_out else data.batch_size
    assert columns is not None
    if held_out and len(part) < columns:
        raise ValueError(
            f"eval batch size must be at most {len(part)}, the number of tokens in the shortest held-out part, got "
            f"{columns}; give a smaller one, or more text"
        )
    return Stream(part, columns, WINDOW if data.window is None else data.window).to(device)


def datasets(config: Config, corpus: Corpus) -> tuple[SequenceData, SequenceData, SequenceData]:
    """The training, validation and test parts of a run's data; raises as :func:`dataset`."""
    options = config.data, config.run.device, config.run.precision
    train = dataset(corpus.train, *options)
    return train, dataset(corpus.valid, *options, held_out=True), dataset(corpus.test, *options, held_out=True)


def build_model(config: Config, corpus: Corpus | DataDescription) -> SequenceModel:
    """Build the model: a language model for a text; for sequences an emission, by default Bernoulli.

    Initial weights are drawn in float32, also for float64. Import paths in the configuration are imported.

    Raises:
        ValueError: an option that the model, the noise or the kind of data refuses.
    """
    network, noise = config.model, config.noise
    data = DataDescription.of(corpus) if isinstance(corpus, Corpus) else corpus
    options: dict[str, Any] = {
        "hidden_size": network.hidden_size,
        "num_layers": network.num_layers,
        "cell": _own("cell", network.cell, Cell),
        "noise": imported("noise", noise.noise, Family, _REGISTER) if is_own_family(noise.noise) else noise.noise,
        "spread": Spread(noise.spread, floor=noise.spread_floor, learn=noise.learn_spread),
        "input_spread": noise.input_spread,
        "feedback": noise.feedback,
        "matmul_precision": network.matmul_precision,
        "backend": config.run.backend,
    }
    prior, dropout = network.weight_prior, get_dropout(network.regularizer, network.dropout)
    read_out = {"weight_prior": prior, "emission_hidden_size": network.emission_hidden_size}
    if data.vocabulary is not None:
        if network.emission is not None:
            raise ValueError(f"emission {network.emission!r} is not for texts, which have a softmax; leave it out")
        options |= {"tie_weights": network.tie_weights, "regularizer": dropout}
        model: SequenceModel = LanguageModel(len(data.vocabulary), **options, **read_out)
    elif network.tie_weights:
        raise ValueError(f"tied weights are for texts; {data.name!r} has no embedding to share: leave the option out")
    else:
        assert data.features is not None
        options["regularizer"] = dataclasses.replace(dropout, embedding=0.0)  # there are no words to drop
        rnn = NoisyRNN(data.features, **options)
        if data.series is not None:
            model = _series_model(config, data.series, rnn)
        else:
            size = data.features
            emission = _emission(network.emission or "bernoulli", network.hidden_size, size)
            output_size = size if isinstance(emission, str) else None
            model = SequenceModel(rnn, emission, output_size, **read_out)
    if network.initialization == "published":
        initialize_as_published(model)
    return model.to(getattr(torch, config.run.precision))


def _series_model(config: Config, series: SeriesFormat, rnn: NoisyRNN) -> SequenceModel:
    """A model of series, whose densities are in the units of the data."""
    network, size = config.model, len(series.layout.values)
    emission = _emission(network.emission or series.emission, network.hidden_size, size)
    if isinstance(emission, str):
        options = network.hidden_size, size, network.matmul_precision, network.emission_hidden_size
        emission = EMISSIONS[emission](*options)
        if isinstance(emission, Poisson | NegativeBinomial):  # the first rates are near the mean of the training values
            scaling = series.layout.value_scaling
            means = [loc if loc > 0 else scale for loc, scale in zip(scaling.loc, scaling.scale, strict=True)]
            emission.linear.bias.data += torch.tensor(means).log()
    elif network.emission_hidden_size is not None:
        raise ValueError(f"emission hidden size has no effect on the emission {network.emission!r}; leave it out")
    emission = emission.to(getattr(torch, config.run.precision))  # before it is scaled by numbers of that precision
    scaling = series.layout.value_scaling
    scaled = Scaled(emission, scaling.loc, scaling.scale) if is_real(support_of(emission)) else Scaled(emission)
    model = SequenceModel(rnn, scaled, weight_prior=network.weight_prior)
    model.series = series
    return model


def _emission(name: str, hidden_size: int, size: int) -> str | Emission:
    emission = _own("emission", name, nn.Module, hidden_size=hidden_size, output_size=size)
    return emission if isinstance(emission, str | Emission) else ModuleEmission(emission, hidden_size, size)


def _own(kind: str, name: str, base: type[T], **arguments: Any) -> str | T:
    """A name as it is, or what an import path leads to."""
    return imported(kind, name, base, **arguments) if is_import_path(name) else name


def build_guide(config: Config, model: SequenceModel) -> Guide | None:
    """Build the guide; ``None`` if the prior is the guide.

    Raises:
        ValueError: noise that no guide can act on.
    """
    options = config.inference
    if options.guide == "prior":
        return None
    guide = guides.get(options.guide, model, covariance=options.guide_covariance, hidden_size=options.guide_hidden_size)
    assert isinstance(guide, Guide)
    return guide
