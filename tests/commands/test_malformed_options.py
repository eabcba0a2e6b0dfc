"""Any command line works or is refused in one line, and changes no existing file."""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisin_pyro.cli import main

from .malformed import HUGE, NUMBERS, PATHS, SMALL, WORDS, contents, fuzz, require_one_line, require_whole
from .malformed import works_or_is_refused as works

COMMANDS = ["train", "evaluate", "compare", "generate", "families"]
WORK = {
    "--epochs",
    "--num-layers",
    "--ensemble-samples",
    "--num-particles",
    "--samples",
    "--steps",
}  # a larger number is valid


@functools.cache
def _options(command: str) -> list[str]:
    """Every option of the command, from its help."""
    output = []
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(sys.stdout, "write", output.append)
        main([command, "--help"])
    return sorted(set(re.findall(r"--[a-z][a-z-]+", "".join(output))) - {"--help"})


@st.composite
def _given(draw: st.DrawFn, options: list[str], place: str) -> list[str]:
    """One to three options, each with a value or with none or two; perhaps a word that is no option."""
    arguments = []
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(options))
        huge = [] if name in WORK else HUGE
        paths = [path.format(place) for path in PATHS]
        value = st.sampled_from([*NUMBERS, *huge, *WORDS]) | st.sampled_from(paths) | st.text(max_size=5)
        arguments += [name, *draw(st.lists(value, min_size=0, max_size=draw(st.sampled_from([1, 1, 1, 1, 2, 3]))))]
    return arguments


def test_every_option_is_known_here() -> None:
    assert [len(_options(command)) for command in COMMANDS] >= [35, 8, 10, 7, 1]


@fuzz(100)
@given(st.data())
def test_train(texts: Path, tmp_path: Path, data: st.DataObject) -> None:
    place = tmp_path / "place"
    place.mkdir()
    before = contents(texts)
    os.chdir(place)
    try:
        first = ["--data", str(texts), "--folder", str(place / "run"), *SMALL]
        arguments = ["train", *first, *data.draw(_given(_options("train"), str(texts)))]
        if works(arguments):
            for config in place.rglob("config.json"):
                require_whole(config.parent)
        else:
            assert not list(place.rglob("*.*"))
    finally:
        os.chdir("/")
        shutil.rmtree(place)
        for path in texts.iterdir():  # a run in the folder of the texts
            if path.name not in before:
                shutil.rmtree(path)
    assert contents(texts) == before


@fuzz(100)
@given(st.data())
def test_commands_that_read(run: Path, data: st.DataObject) -> None:
    command = data.draw(st.sampled_from(["evaluate"] * 4 + ["compare"] * 4 + ["generate"] * 4 + ["families"]))
    folder = (
        [] if command == "families" else [data.draw(st.sampled_from([str(run)] * 9 + [str(run.parent), "", "a\0b"]))]
    )
    arguments = [command, *folder, *data.draw(_given(_options(command), str(run)))]
    before, out = contents(run.parent), run.parent
    works(arguments)
    after = contents(out)
    for name in after.keys() - before.keys():  # an output file with a new name
        assert {"--json", "--per-token", "--png", "--csv"} & set(arguments) and str(out / name) in arguments
        (out / name).unlink()
        del after[name]
    assert after == before


@fuzz(60)
@given(st.data())
def test_words_in_any_order(texts: Path, tmp_path: Path, data: st.DataObject) -> None:
    every = [name for command in COMMANDS for name in _options(command)]
    words = st.sampled_from([*COMMANDS, "trian", "--help", "-h", "--no", *every, *NUMBERS, *WORDS]) | st.text(
        max_size=6
    )
    arguments = data.draw(st.lists(words, max_size=5))
    if "train" in arguments:  # not an hour on pydocs if all options are valid
        arguments += ["--data", str(texts / "nowhere")]
    works(arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        "train --data {texts} --folder {run}",
        "evaluate \udcff",
        pytest.param("train --data {texts} --folder {texts}/train.txt --hidden-size 2", marks=pytest.mark.slow),
        pytest.param("train --resume {texts}", marks=pytest.mark.slow),
        pytest.param("evaluate {run} --json {run}/result.json", marks=pytest.mark.slow),
        pytest.param("generate {run} --temperature nan", marks=pytest.mark.slow),
        pytest.param("families --png /proc/nowhere/x.png", marks=pytest.mark.slow),
        pytest.param("compare {run} {texts}", marks=pytest.mark.slow),
    ],
)
def test_in_a_process_of_its_own(arguments: str, run: Path, texts: Path) -> None:
    before = contents(run), contents(texts)
    command = [sys.executable, "-m", "noisin_pyro.cli", *arguments.format(run=run, texts=texts).split()]
    command[1:3] = ["-c", "import sys; from noisin_pyro.cli import main; sys.exit(main())"]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    require_one_line(done.returncode, done.stderr.decode().splitlines())
    assert (contents(run), contents(texts)) == before
