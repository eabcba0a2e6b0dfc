"""``noisin generate``: new texts from a run's best model."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import tyro.conf
from torch import Tensor

from noisin_pyro.commands.options import DataRoot, Device, Named, RunFolder, require_seed
from noisin_pyro.data import Vocabulary
from noisin_pyro.data.vocabulary import EOS, UNK
from noisin_pyro.inference import generate
from noisin_pyro.models import noise_off
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.rundir.load import load_run


@dataclass(frozen=True)
class Generate:
    """Write new texts with the best model of a run, word by word."""

    folder: RunFolder
    """Folder of a run on a text, as noisin train leaves it; or the folder deterministic in it, its twin."""

    prompt: tyro.conf.Positional[Annotated[tuple[str, ...], Named(metavar="[WORD ...]", help_behavior_hint="")]] = ()
    """Words that the text begins with, as they are written in the training text; <eos> ends a line."""

    steps: int = 50
    """Words to write after the prompt."""

    temperature: float = 1.0
    """1 draws from the model; below it the likely is likelier; 0 takes the likeliest word each time."""

    samples: int = 1
    """Texts to write, each with noise of its own."""

    seed: int = 0
    """Seed of the noise and the words."""

    noise_off: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Turn the noise in the states off: the words are drawn from the network underneath."""

    device: Device = None
    """Device to compute on."""

    data_root: DataRoot = None
    """Folder that holds ptb or wikitext-2 now (the text gives the words)."""

    def run(self) -> None:
        """Print the texts.

        Raises:
            ValueError: no such run, a run on music, or an option out of its range.
        """
        require_seed(self.seed)
        with program_settings():
            trained = load_run(self.folder, self.device, self.data_root)
            vocabulary = trained.corpus.vocabulary
            if vocabulary is None:
                raise ValueError(
                    f"{str(self.folder)!r} is a run on music ({trained.corpus.name}), which has no words to write; "
                    "give a run on a text"
                )
            words = " ".join(self.prompt).split()  # quoted or not
            texts = generate(
                noise_off(trained.model) if self.noise_off else trained.model,
                self.steps,
                prompt=_encoded(words, vocabulary) if words else None,
                temperature=self.temperature,
                num_samples=self.samples,
                seed=self.seed,
            )
        for number, text in enumerate(texts, start=1):
            if self.samples > 1:
                print(f"{'' if number == 1 else chr(10)}[{number}]")
            print(_lines([*words, *vocabulary.decode(text)]))


def _encoded(words: list[str], vocabulary: Vocabulary) -> Tensor:
    tokens = vocabulary.encode(words, "prompt")
    unknown = [word for word in words if word not in vocabulary]
    if unknown:
        print(f"noisin: outside the vocabulary, read as {UNK}: {', '.join(unknown)}", file=sys.stderr)
    return tokens


def _lines(words: Iterable[str]) -> str:
    return "\n".join(line.strip() for line in " ".join(words).split(EOS)).rstrip("\n")
