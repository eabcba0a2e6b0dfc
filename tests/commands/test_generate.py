"""``noisin generate``."""

from pathlib import Path

import pytest

from noisin_pyro import generate, noise_off
from noisin_pyro.cli import main
from noisin_pyro.commands.generate import _encoded
from noisin_pyro.data import Vocabulary
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.rundir.load import load_run


def _output(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["generate", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("options", [[], ["--noise-off"]])
def test_it_prints_the_words_of_generate_after_the_prompt(
    run: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = _output([str(run), "one two", "three", "--steps", "30", "--seed", "5", *options], capsys)
    with program_settings():
        trained = load_run(run)
        vocabulary = trained.corpus.vocabulary
        assert vocabulary is not None
        model = noise_off(trained.model) if options else trained.model
        (text,) = generate(model, 30, prompt=vocabulary.encode("one two three"), seed=5)
    assert output.replace("\n", " <eos> ").split()[:33] == ["one", "two", "three", *vocabulary.decode(text)]


def test_samples_are_numbered_and_a_seed_repeats_them(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(run), "--samples", "3", "--steps", "8"]
    first, second = (_output(arguments, capsys) for _ in range(2))
    assert first == second and [line for line in first.splitlines() if line.startswith("[")] == ["[1]", "[2]", "[3]"]
    assert _output([*arguments, "--seed", "1"], capsys) != first


def test_an_unknown_word_is_reported(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(run), "one", "seventeen", "--steps", "2"]) == 0
    assert capsys.readouterr().err == "noisin: outside the vocabulary, read as <unk>: seventeen\n"


def test_an_unknown_word_without_unk_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prompt: 'four', 'five' not among the 3 words .* with --min-count 2"):
        _encoded(["one", "four", "five"], Vocabulary(["<eos>", "one", "two"]))
    with pytest.raises(ValueError, match=r"prompt: 'c' not among the 2 characters .* choose characters of the text"):
        _encoded(["a", "c"], Vocabulary(["<eos>", "a"], "character"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--steps 0", "--steps must be"),
        ("--samples 0", "--samples must be"),
        ("--temperature -1", "--temperature must be"),
        ("--seed -1", "--seed must be"),
        ("--data-root .", "--data-root has no effect"),
    ],
)
def test_options_out_of_range_are_refused(
    run: Path, options: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", str(run), *options.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line


def test_music_has_no_words(music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(music)]) == 2
    assert "is a run on music, which has no vocabulary; use noisin forecast" in capsys.readouterr().err
