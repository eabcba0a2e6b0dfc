"""Tables in files: dialects, inferred columns, and damaged files."""

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noisin_pyro.data import Corpus
from noisin_pyro.data.series_format import Columns
from noisin_pyro.data.table_files import infer_columns, load_table, read_table

ROWS = [(f"2024-01-{day:02}", shop, day * 1.25, day % 2) for shop in ("north", "south") for day in range(1, 13)]


def text(separator: str = ",", decimal: str = ".") -> str:
    lines = [("date", "shop", "sales", "promo"), *ROWS]
    return "\n".join(separator.join(str(cell).replace(".", decimal) for cell in line) for line in lines) + "\n"


def load(tmp_path: Path, content: str | bytes, columns: Columns | None = None, **options: Any) -> Corpus:
    path = tmp_path / "t.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_table(path, columns, **options)


@pytest.mark.parametrize(
    "content",
    [
        text(),
        text().replace("\n", "\r\n"),
        "\ufeff" + text(),
        text().encode("utf-16"),
        text(";", ","),
        text(";"),
        text("\t"),
        text().replace(",", ", "),
        text().rstrip("\n"),
        "\n".join(line for line in text().split("\n") if line) + "\n\n",
    ],
    ids=["plain", "dos", "mark", "utf-16", "decimal commas", "semicolons", "tabs", "spaces", "no end", "blank end"],
)
def test_dialects_of_one_table(content: str | bytes, tmp_path: Path) -> None:
    columns = Columns(("sales",), ("promo",))
    corpus, plain = load(tmp_path, content, columns), load(tmp_path, text(), columns)
    assert torch.equal(corpus.train.inputs, plain.train.inputs) and torch.equal(corpus.test.targets, plain.test.targets)
    assert corpus.train.format == plain.train.format and corpus.train.ids == ["north", "south"]


def test_columns_are_inferred_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "noisin_pyro"):
        format = load(tmp_path, text()).train.format
    assert format.columns == Columns(("sales", "promo"), (), "shop", "date", "D")
    assert "values sales, promo; covariates none; series by shop; time by date" in caplog.text
    assert "the values suggest the emission gaussian" in caplog.text
    named = load(tmp_path, text().replace("sales", "y")).train.format
    assert named.columns.values == ("y",)
    given = load(tmp_path, text(), Columns(("promo",)), by="time", emission="bernoulli").train.format
    assert given.columns.values == ("promo",) and given.layout.value_scaling.scale == (1.0,)


DAYS = pd.date_range("2024-01-01", periods=21)
Y = np.random.default_rng(0).normal(size=21)
BY_SERIES = {"year": [*range(2000, 2010), *range(2001, 2012)], "shop": ["n"] * 10 + ["s"] * 11}


@pytest.mark.parametrize(
    ("table", "values", "id", "time"),
    [
        ({"date": DAYS, "y1": Y, "weekday": DAYS.strftime("%a")}, ("y1",), None, "date"),
        ({"date": [*DAYS[:10], *DAYS[:11]], "y1": Y, "city": BY_SERIES["shop"]}, ("y1",), "city", "date"),
        ({"y1": Y, "city": BY_SERIES["shop"]}, ("y1",), "city", None),
        ({"y1": Y, "weekday": DAYS.strftime("%a")}, ("y1",), None, None),
        ({"Unnamed: 0": range(21), "date": DAYS, "sales": Y}, ("sales",), None, "date"),
        ({"year": range(1990, 2011), "sales": Y}, ("sales",), None, "year"),
        (BY_SERIES | {"sales": Y}, ("sales",), "shop", "year"),
        ({"month": DAYS.day % 12, "sales": Y}, ("month", "sales"), None, None),
    ],
)
def test_roles_of_columns(
    table: dict, values: tuple, id: str | None, time: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "noisin_pyro"):
        columns = infer_columns(pd.DataFrame(table), Columns(()), Path("t.csv"))
    assert (columns.values, columns.id, columns.time) == (values, id, time)
    left_out = [name for name in table if name not in (*values, id, time)]
    assert not left_out or f"unused: {', '.join(left_out)}" in caplog.text


@pytest.mark.parametrize("name", ["day", "series"])
def test_a_series_for_each_row_is_refused(name: str) -> None:
    table = pd.DataFrame({name: DAYS.strftime("%d.%m.%Y"), "sales": Y})
    with pytest.raises(ValueError, match=f"column '{name}' names another series in each of 21 rows; .* 2026-01-31"):
        infer_columns(table, Columns(()), Path("t.csv"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Columns(()), "columns 'day', 'shop' are text, and none .* name the series by id and the time by time"),
        (Columns((), time="day"), "column 'day' must hold times .* 2026-01-31"),
        (Columns((), id="shop"), None),
    ],
)
def test_texts_without_a_role_are_refused(given: Columns, message: str | None, tmp_path: Path) -> None:
    """Otherwise the series would be joined end to end."""
    content = "day,shop,sales\n" + "".join(
        f"{day:02}.12.2025,{shop},{day / 2}\n" for shop in "ab" for day in range(1, 9)
    )
    if message is None:
        assert load(tmp_path, content, given).train.ids == ["a", "b"]
        return
    with pytest.raises(ValueError, match=message):
        load(tmp_path, content, given)


HALVES = [str(x / 2) for x in range(16)]
ONE_DASH = ["0.5", "-", *HALVES[2:]]


@pytest.mark.parametrize(
    ("sales", "has_shops", "columns", "message"),
    [
        (ONE_DASH, False, Columns(()), r"column 'sales', row 1: '-' is not a number; convert or remove it; or name"),
        (ONE_DASH, True, Columns(()), r"column 'sales', row 1: '-' is not a number; convert or remove it; or name"),
        (["1,234", *HALVES[1:]], False, Columns(()), "column 'sales', row 0: '1,234' is not a number; .*thousands=','"),
        (["1,23", *HALVES[1:]], False, Columns(()), "column 'sales', row 0: '1,23' is not a number; .*decimal=','"),
        (["1,234"] * 16, False, Columns(()), r"'1,234' is not a number \(and 15 others\)"),
        (
            ["1", "2", "2", "2B"] * 4,
            True,
            Columns(()),
            "row 3: '2B' .*; if the column names series, name it",
        ),
        (ONE_DASH, False, Columns(("promo",)), None),
        (ONE_DASH, False, Columns((), ("sales",)), None),
        (["a", "b"] * 8, False, Columns(()), None),
    ],
)
def test_numbers_with_text_in_some_cells_are_refused(
    sales: list[str], has_shops: bool, columns: Columns, message: str | None
) -> None:
    """Otherwise the column would be left out, or taken for the series."""
    table = pd.DataFrame({"date": DAYS[:16], "sales": sales, "promo": np.arange(16) / 4})
    if has_shops:
        table = table.assign(date=[*DAYS[:8]] * 2, shop=["a"] * 8 + ["b"] * 8)
    if message is None:
        assert infer_columns(table, columns, Path("t.csv")).values == ("promo",)
        return
    with pytest.raises(ValueError, match=message):
        infer_columns(table, columns, Path("t.csv"))


def test_values_by_name_are_not_left_out(tmp_path: Path) -> None:
    rows = "".join(f"{t},{t / 2},{t % 2 == 0}\n" for t in range(8))
    with pytest.raises(ValueError, match="column 'y', row 8: '-' is not a number"):
        load(tmp_path, "t,y,z\n" + rows.replace("True", "1").replace("False", "0") + "8,-,1\n")
    bits: Any = load(tmp_path, "t,z,y\n8,4.0,\n" + rows).test
    assert bits.format.columns.values == ("y",) and bits.format.emission == "bernoulli"
    assert bits.values[0, :, 0].nan_to_num(9).tolist() == [9] + [1, 0] * 4


def test_ids_are_read_as_text(tmp_path: Path) -> None:
    rows = [(label, x / 2) for label in ("001", "1", " NA ", "1.0") for x in range(1, 5)]
    for name in ("id", "shop"):
        content = f"{name},y\n" + "".join(f"{label},{x}\n" for label, x in rows)
        given = Columns((), id=None if name == "id" else name)
        assert load(tmp_path, content, given).train.ids == ["001", "1", "NA", "1.0"]
    inferred = load(tmp_path, "region,y\n" + "".join(f"{label},{x / 2}\n" for label in ("US", "NA") for x in range(4)))
    assert inferred.train.ids == ["US", "NA"]
    with pytest.raises(ValueError, match="column 'id': 1 of 17 rows name no series"):
        load(tmp_path, "id,y\n" + "".join(f"{label},{x}\n" for label, x in rows) + " ,3\n")


@pytest.mark.parametrize(("values", "is_reported"), [(("y",), True), (("sales", "shop"), True), (("shop",), False)])
def test_numbers_that_may_be_ids_are_reported(
    values: tuple, is_reported: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = pd.DataFrame({name: np.arange(12) // 6 + 1 if name == "shop" else Y[:12] for name in {*values, "shop"}})
    assert load(tmp_path, table[sorted(table)].to_csv(index=False)).train.format.columns.values == values
    assert ("column 'shop' has equal numbers in blocks; if it names series" in caplog.text) == is_reported


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float64])
def test_numbers_have_torch_s_default_type_or_the_given_one(dtype: torch.dtype | None, tmp_path: Path) -> None:
    corpus = load(tmp_path, text(), Columns(("sales",)), dtype=dtype)
    for part in (corpus.train, corpus.valid, corpus.test):
        assert part.inputs.dtype == part.targets.dtype == (dtype or torch.get_default_dtype())
    with pytest.raises(ValueError, match=r"dtype must be a floating-point type, got torch\.int64"):
        load(tmp_path, text(), Columns(("sales",)), dtype=torch.int64)


def test_scaling_is_fitted_to_the_training_steps(tmp_path: Path) -> None:
    corpus = load(tmp_path, text(), Columns(("sales",)), valid=0.25, test=0.25)
    steps = 1.25 * np.arange(1, 7)
    scaling = corpus.train.format.layout.value_scaling
    assert (scaling.loc[0], scaling.scale[0]) == (pytest.approx(steps.mean()), pytest.approx(steps.std()))
    assert corpus.valid.format == corpus.test.format == corpus.train.format
    assert [part.num_steps for part in (corpus.train, corpus.valid, corpus.test)] == [12, 6, 6]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the first line must name the columns, each differently, got an empty one"),
        ("1.5,2.5\n3.5,4.5\n", "the first line must name the columns, each differently, got '1.5'"),
        ("a,a\n1,2\n", "got 'a' twice"),
        ("a,b\n", "frame must have at least one row"),
        ("a,b\n1,2\n1,2,3\n", "is not a table with one line of column names and rows as long"),
        ("a,b\n1,2,3\n1,2,3\n", "is not a table with one line of column names and rows as long"),
        ("a,b\nx,z\n", "has no column of numbers to predict"),
        ("y\n1\n2\n", "split in time needs at least 3 steps, got 2; give a longer series"),
        ("y\n" + "1\n" * 5 + "x\n", "column 'y', row 5: 'x' is not a number"),
        ("y\n" + ",\n" * 5, "column 'y' has no values among 3 steps"),
        (b"y\n\xe4\n", "t.csv, line 2: not UTF-8"),
        (b"\x1f\x8b\x08", "is compressed with gzip"),
        ("y,\n" + "1,\n" * 5, None),
    ],
)
def test_files_that_are_refused(content: str | bytes, message: str | None, tmp_path: Path) -> None:
    columns = (
        Columns(("y",)) if (content if isinstance(content, str) else content.decode("latin1"))[:1] == "y" else None
    )
    if message is None:
        assert load(tmp_path, content, columns).train.num_steps == 3
        return
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path, content, columns)
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"t\.csv cannot be read"):
        load_table(tmp_path / "t.csv")
    with pytest.raises(ValueError, match=r"t\.parquet (cannot be read|: reading Parquet needs)"):
        pytest.importorskip("pyarrow")
        load_table(tmp_path / "t.parquet")


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(ValueError, match=r"reading Parquet needs pyarrow; install the extra"):
            read_table(path)
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(ROWS, columns=["date", "shop", "sales", "promo"])
    frame.to_parquet(path)
    assert load_table(path).train.format == load(tmp_path, text()).train.format
    days = pd.date_range("2024-01-01", periods=9).delete([3, 4])
    for index in (days, days.rename("when"), days.to_period("D").rename("when")):
        pd.DataFrame({"y": np.arange(7.0) + 0.5}, index=index).to_parquet(path)
        train: Any = load_table(path).train
        assert train.format.columns == Columns(("y",), (), None, index.name or "time", "D")
        assert train.values[0, :, 0].isnan().tolist() == [False] * 3 + [True] * 2 + [False] * 2


LINES = st.sampled_from(["1,2,3", "a,b,c", "y,s,t", "2024-01-01,x,1", "1;2", '"a,1,2', ",,", "\0", "\ufeff", "é"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.lists(LINES, max_size=6).map("\n".join).map(str.encode), st.binary(max_size=40)))
def test_any_file_is_read_or_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    try:
        corpus = load(tmp_path, content)
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) > 20
    else:
        assert corpus.train.inputs.isfinite().all()


def test_labels_of_digits_and_text_name_series() -> None:
    days = [*DAYS[:6]] * 3
    table = pd.DataFrame({"date": days, "store": ["101"] * 6 + ["102"] * 6 + ["A4"] * 6, "sales": np.arange(18) / 4})
    assert infer_columns(table, Columns(()), Path("t.csv")).id == "store"
    table.insert(0, "Unnamed: 0", [*map(str, range(17)), "total"])
    assert infer_columns(table.drop(columns="store")[:6], Columns(()), Path("t.csv")).values == ("sales",)
