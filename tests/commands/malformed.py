"""Invalid values, and the required response of every command."""

import contextlib
import io
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from noisin_pyro.cli import main
from noisin_pyro.training.rundir import checkpointer, metrics_log

Test = Callable[..., Any]
MANY = int(os.environ.get("NOISIN_FUZZ", "0"))  # factor on the number of examples, which then differ in each run
SMALL = "--hidden-size 4 --epochs 1 --batch-size 4 --window 10 --ensemble-samples 0 --no-twin".split()  # noqa: SIM905
_PROGRESS = re.compile(r"warning: | *(noisy|deterministic), |scoring |noisin: outside the vocabulary, read as <unk>: ")

NUMBERS = ["nan", "inf", "-inf", "-1", "0", "1", "2", "3", "0.5", "1e-300", "1e308", "1e999", "-0.0", "1_0", "0x3", "٣"]
HUGE = [str(10**12), str(2**63), str(10**30), str(-(10**30))]
WORDS = ["", " ", "None", "True", "γ", "\ud800", "tanh", "TANH", "Adam", "adam", "lstm", "gamma:native", "gaussian:",
         ":", "laplace:multiplicative", "dirichlet", "poisson:native", "halve", "divide", "importance", "ensemble",
         "particle-filter", "valid", "cpu", "cuda", "ptb", "jsb", "PTB", "-", "--", "--seed", "-h-", "@x", "a\nb",
          "a" * 300, "a\0b"]  # fmt: skip
PATHS = [
    "{}",
    "{}/train.txt",
    "{}/nowhere",
    "{}/train.txt/x",
    "{}/a/b/c",
    "/proc/nowhere",
    "/dev/full",
    "/dev/null",
    ".",
]


def fuzz(examples: int) -> Callable[[Test], Test]:
    """Mark a test as slow, and give it that many examples (times ``NOISIN_FUZZ``, where that is set).

    Examples are not shrunk: each may cost a training run, and what is drawn is short already.
    """
    chosen = settings(
        max_examples=examples * max(MANY, 1),
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=not MANY,
        database=None,
    )
    return lambda test: pytest.mark.slow(chosen(test))


def run(arguments: list[str]) -> tuple[int, list[str]]:
    """The command's exit code, and its lines on stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            code = main(arguments)
        except SystemExit as stop:  # --help
            assert stop.code == 0
            code = 0
    return code, err.getvalue().splitlines()


def works_or_is_refused(arguments: list[str]) -> bool:
    """Whether the command worked; if not, its last line says why."""
    code, lines = run(arguments)
    require_one_line(code, lines)
    return code == 0


def require_one_line(code: int, lines: list[str]) -> None:
    """The exit code is 0, or 2 with a last line that says why; all other lines are progress and warnings."""
    assert code in (0, 2), (code, lines)
    if code == 2:
        assert re.match(r"noisin: .{8}", lines[-1]), lines
        lines = lines[:-1]
    assert all(map(_PROGRESS.match, lines)), lines


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file below ``folder`` with its bytes, and every folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def require_whole(folder: Path) -> None:
    """A finished run can be read, and its folder has no files of an unfinished one."""
    assert {path.name for path in folder.iterdir()} - {"curves.png", "spreads.png", "deterministic"} == {
        "config.json", "data.json", "log.csv", "result.json", "best.pt", "last.pt",
    }  # fmt: skip
    assert all(value.isfinite().all() for value in checkpointer.load(folder / "best.pt")["model"].values())
    assert metrics_log.require_whole(metrics_log.read(folder / "log.csv"))
    assert works_or_is_refused(["evaluate", str(folder)])


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A truncated file, one with changed bytes, or other bytes altogether."""
    kind = draw(st.sampled_from(["cut", "flip", "insert", "other"]))
    if kind == "other":
        return draw(st.binary(max_size=300))
    at = draw(st.integers(0, max(len(whole) - 1, 0)))
    if kind == "cut":
        return whole[:at]
    if kind == "insert":
        return whole[:at] + draw(st.binary(min_size=1, max_size=20)) + whole[at:]
    return whole[:at] + bytes([whole[at] ^ 1 << draw(st.integers(0, 7))]) + whole[at + 1 :]


@st.composite
def otherwise(draw: st.DrawFn, content: object) -> object:
    """Nested dictionaries and lists with one entry removed, added or of another type."""
    if isinstance(content, dict) and content and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(content, key=str)))
        if not draw(st.integers(0, 4)):
            return {name: value for name, value in content.items() if name != key}
        return content | {key: draw(otherwise(content[key]))}
    if isinstance(content, list | tuple) and content and draw(st.integers(0, 5)):
        at = draw(st.integers(0, min(len(content), 30) - 1))
        return type(content)([*content[:at], draw(otherwise(content[at])), *content[at + 1 :]])
    if isinstance(content, torch.Tensor) and draw(st.booleans()):
        return draw(
            st.sampled_from([content * torch.nan if content.is_floating_point() else content - 9, content[..., None],
                             content.reshape(-1)[:-1], content.bool(), content.double()])
        )  # fmt: skip
    return draw(
        st.none() | st.booleans() | st.integers(-3, 9) | st.sampled_from([2**40, 10**30, "cpu", "lstm", "x", "", "/"])
        | st.floats() | st.lists(st.integers(), max_size=3) | st.builds(torch.zeros, st.integers(0, 3))
        | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)
    )  # fmt: skip
