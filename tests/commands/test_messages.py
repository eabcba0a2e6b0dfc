"""Errors name the options of the command that is run, whatever the functions below call them."""

import pytest

from noisin_pyro.cli import main
from noisin_pyro.commands import load
from noisin_pyro.commands._messages import with_option_names


@pytest.mark.parametrize(
    ("command", "text", "expected"),
    [
        ("train", "hidden size must be at least 1, got 0", "--hidden-size must be at least 1, got 0"),
        ("train", "eval batch size must be at most 9", "--eval-batch-size must be at most 9"),
        ("train", "min_count: only for texts", "--min-count: only for texts"),
        (
            "train",
            "'ptb' is not in root='/a'; leave root out",
            "'ptb' is not in --data-root='/a'; leave --data-root out",
        ),
        ("train", "it needs num particles of 2", "it needs --num-particles of 2"),
        ("train", "device 'cuda' is not here", "--device 'cuda' is not here"),
        (
            "train",
            "got epochs 2 (there: 3), folder /x (there: None)",
            "got --epochs 2 (there: 3), --folder /x (there: None)",
        ),
        ("sweep", "trial epochs must be at least 1", "--trial-epochs must be at least 1"),
        ("evaluate", "num_samples must be at least 2, got 1", "--samples must be at least 2, got 1"),
        ("compare", "num_samples=3 has no effect", "--samples=3 has no effect"),
        (
            "train",
            "got ancestor_term=False and num_particles=1; use ancestor_term=True",
            "got --no-ancestor-term and --num-particles=1; use --ancestor-term",
        ),
        ("generate", "num_steps must be at least 1", "--steps must be at least 1"),
        # What is no option of this command, a word in a sentence, a path or a quotation stays.
        ("evaluate", "hidden size must be at least 1", "hidden size must be at least 1"),
        (
            "train",
            "the data (train) changed the noise and the spread",
            "the data (train) changed the noise and the spread",
        ),
        ("train", "windows are read", "windows are read"),
        ("train", "/a/min_count/window is no file", "/a/min_count/window is no file"),
        ("train", "'a batch size' and \"min_count\" differ", "'a batch size' and \"min_count\" differ"),
        ("train", "space: model.hidden_size cannot be", "space: model.hidden_size cannot be"),
        ("train", "--batch-size is given", "--batch-size is given"),
        ("evaluate", "by the argument imports in Python", "by the argument imports in Python"),
        ("train", "in the call 'Own(hidden_size=4)', got", "in the call 'Own(hidden_size=4)', got"),
    ],
)
def test_names_of_arguments_become_options(command: str, text: str, expected: str) -> None:
    assert with_option_names(text, load(command)) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "evaluate {run} --method ensemble --samples 1",
            "noisin: --samples for an ensemble and its error must be an integer of at least 2",
        ),
        ("evaluate {run} --samples 5", "noisin: --samples=5 has no effect on --method='mean'"),
        ("generate {run} --steps 0", "noisin: --steps must be"),
        ("generate {run} --temperature -1", "noisin: --temperature must be"),
        ("train --data ptb --data-root {run}", "leave --data-root out"),
        ("train --data ptb --min-count 2", "noisin: --min-count: only for your own texts"),
        (
            "train --data {run}/../train.txt --valid-fraction 0.5 --test-fraction 0.5",
            "noisin: --valid-fraction and --test-fraction must be positive, with a sum below 1, got 0.5 and 0.5",
        ),
        ("train --files {run}/a {run}/b", "noisin: --files must be one file or three"),
        ("train --batch-size 0", "noisin: --batch-size must be at least 1, got 0"),
        ("sweep --data pydocs --trial-epochs 0", "noisin: --trial-epochs must be at least 1"),
    ],
)
def test_the_command_names_its_options(run, arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments.format(run=run).split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
