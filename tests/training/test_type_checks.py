"""Values of the type that a hint names, and structures like an example's."""

from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch

from noisin_pyro.training.type_checks import check_types, same_structure


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [3, -1], [3.0, True, "3", None]),
        (float, [3, 0.5, float("nan")], [True, "3", None, 1j]),
        (bool, [True], [1, None]),
        (str | None, ["", None], [3, b""]),
        (Path | None, [Path("x"), None], ["x"]),
        (Literal["a", "b"], ["a"], ["c", 1, None, ["a"]]),
        (Literal["a", "b"] | None, ["a", None], ["c", 1]),
        (tuple[int, str], [(1, "x")], [(1,), [1, "x"], ("x", 1), (1, "x", 2)]),
        (list[dict[str, float]], [[], [{"a": 1}]], [{}, [{"a": "b"}], [{"a": True}], [{1: 1}], [3]]),
        (torch.Tensor | tuple[torch.Tensor, torch.Tensor], [torch.ones(1), (torch.ones(1),) * 2], [[torch.ones(1)], 3]),
    ],
)
def test_a_value_has_the_type_of_its_hint(hint: Any, good: list, bad: list) -> None:
    kind: Any = make_dataclass("Kind", [("most_words", hint)])
    for value in good:
        assert check_types(kind(value)).most_words is value
    for value in bad:
        with pytest.raises(ValueError, match="most words must"):
            check_types(kind(value))


@dataclass
class Record:
    kind: Annotated[Literal["plain", "odd"], "a note"] = "plain"
    most_words: int | None = None


def test_a_record_names_the_field_that_is_wrong() -> None:
    assert check_types(Record("odd", 3)) == Record("odd", 3)
    with pytest.raises(ValueError, match="most words must be a valid integer, got '3'"):
        check_types(Record(most_words="3"))
    with pytest.raises(ValueError, match="kind must be one of plain, odd, got 'plan'; did you mean 'plain'"):
        check_types(Record(kind="plan"))


@pytest.mark.parametrize(
    ("value", "same"),
    [
        ({"w": torch.zeros(2, 3), "n": {"step": 4, "none": None}}, True),
        ({"w": torch.zeros(3, 2), "n": {"step": 4, "none": None}}, False),
        ({"w": torch.zeros(2, 3).double(), "n": {"step": 4, "none": None}}, False),
        ({"w": torch.zeros(2, 3), "n": {"step": 4}}, False),
        ({"w": torch.zeros(2, 3), "n": {"step": 4, "none": None, "more": 1}}, False),
        ({"w": torch.zeros(2, 3), "n": {"step": "4", "none": None}}, False),
        ({"w": 3, "n": {"step": 4, "none": None}}, False),
        ([], False),
    ],
)
def test_same_structure(value: object, same: bool) -> None:
    assert same_structure(value, {"w": torch.ones(2, 3), "n": {"step": 1, "none": None}}) == same
