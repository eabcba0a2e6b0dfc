"""Import paths: what they lead to, and why they do not."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from noisin_pyro._lookup import imported

MODULE = """
class Part:
    def __init__(self, size, width):
        self.sizes = size, width

class Whole(Part):
    def __init__(self):
        super().__init__(1, 1)

class Deep(Part):
    def __init__(self, size, width):
        len(size)

number = 3

def swapped(width, size):
    return Part(size, width)

def named(*, size, width):
    return Part(size, width)

def in_order(a, b):
    return Part(a, b)

def to_text(size, width):
    return "text"
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the current folder."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / f"{name}_typo.py").write_text("def part(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{own}:Whole", r"part '{own}:Whole' must be a Part, or .* in the call 'Whole\(size=4, width=2\)', got one "
         r"that takes other arguments \(too many positional arguments\); make one$"),
        ("{own}:to_text", r"'to_text\(size=4, width=2\)', got a str; make one$"),
        ("{own}:number", "got a int; make one$"),
        ("{own}_typo:part", r"{own}_typo:part' cannot be imported: SyntaxError: .* \({own}_typo.py, line 1\); correct"),
    ],
)  # fmt: skip
def test_code_that_makes_no_such_object(own: str, path: str, message: str) -> None:
    base = imported("part", f"{own}:Part", type)
    assert imported("part", f"{own}:Part", base, size=4, width=2).sizes == (4, 2)
    with pytest.raises(ValueError, match=message.format(own=own)) as error:
        imported("part", path.format(own=own), base, "make one", size=4, width=2)
    assert "\n" not in str(error.value)
    assert ("got a" not in message) == isinstance(error.value.__cause__, TypeError | SyntaxError)


def test_arguments_are_given_by_name_or_in_order(own: str) -> None:
    base = imported("part", f"{own}:Part", type)
    for name in ("swapped", "named", "in_order"):
        assert imported("part", f"{own}:{name}", base, size=4, width=2).sizes == (4, 2)
    with pytest.raises(TypeError, match="object of type 'int' has no len"):  # the traceback leads to the user's line
        imported("part", f"{own}:Deep", base, size=4, width=2)
