"""Series from frames: roles of columns, time grids, and frames of every kind."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noisin_pyro.data import Series, from_frame
from noisin_pyro.data.time_grid import infer_frequency, later, read_times

FLOAT64 = torch.float64


def frame(rows: int = 6, **columns: Any) -> pd.DataFrame:
    first = {"t": pd.date_range("2024-01-01", periods=rows), "y": np.arange(rows) + 0.5, "c": np.arange(rows) * 1.0}
    return pd.DataFrame({**first, **columns})


def values(series: Series, row: int = 0) -> list[float]:
    return series.values[row, : int(series.lengths[row]), 0].tolist()


def test_rows_in_any_order_and_gaps_give_the_series_on_its_grid() -> None:
    whole = pd.concat([frame(5, s="b"), frame(4, s="a")])
    shuffled = whole.sample(frac=1, random_state=1)
    holes = whole.reset_index(drop=True).drop(index=[1, 2])
    roles: dict[str, Any] = {"values": "y", "id": "s", "time": "t", "dtype": FLOAT64}
    series, again = from_frame(whole, covariates="c", **roles), from_frame(shuffled, covariates=["c"], **roles)
    assert [values(again, again.ids.index(name)) for name in "ba"] == [values(series, 0), values(series, 1)]
    gaps = from_frame(holes, covariates="c", **roles)
    np.testing.assert_array_equal(values(gaps), [0.5, math.nan, math.nan, 3.5, 4.5])
    assert gaps.covariates[0, :, 0].tolist() == [0, 0, 0, 3, 4]  # of the row before
    assert gaps.mask[0].tolist() == [True, False, False, True, True] and gaps.ids == ["b", "a"]
    assert gaps.format.columns.frequency == "D" and [*gaps.times[0]] == [*pd.date_range("2024-01-01", periods=5)]


def test_without_times_rows_are_steps_in_order() -> None:
    series = from_frame(frame(), values=["y", "c"], dtype=FLOAT64)
    assert series.values.shape == (1, 6, 2) and series.times is None
    with pytest.raises(ValueError, match="frequency 'D' needs a column of times"):
        from_frame(frame(), values="y", frequency="D")


def test_an_index_that_holds_data_is_columns(caplog: pytest.LogCaptureFixture) -> None:
    gaps = frame().drop(index=[1, 2]).iloc[::-1]
    expected = from_frame(gaps, values="y", time="t")
    indexed = gaps.set_index("t")
    by_period = indexed.set_axis(indexed.index.to_period("D")).rename_axis(None)
    both = indexed.set_axis(pd.MultiIndex.from_product([["a"], indexed.index], names=["s", "t"]))
    for data, roles in (
        (indexed, {"time": "t"}),
        (indexed.rename_axis(None), {"time": "time"}),
        (by_period, {"time": "time"}),
        (gaps.set_index("t", drop=False), {"time": "t"}),
        (both, {"id": "s", "time": "t"}),
        (both.assign(t=gaps.t.to_numpy()), {"id": "s", "time": "t"}),
        (by_period.assign(time=0), {"time": "index"}),
    ):
        series = from_frame(data, values="y", **roles)
        assert torch.equal(series.inputs, expected.inputs) and series.times[0].equals(expected.times[0])
    assert not caplog.records
    assert values(from_frame(indexed, values="y")) == [5.5, 4.5, 3.5, 0.5]
    assert "the times in the index are ignored; name them by time='t'" in caplog.text


@pytest.mark.parametrize(
    ("times", "frequency"),
    [
        (pd.date_range("2024-01-31", periods=8, freq="ME"), "ME"),
        (pd.date_range("2024-01-01", periods=8, freq="MS"), "MS"),
        (pd.date_range("2024-01-15", periods=8, freq=pd.DateOffset(months=1)), "1 month"),
        (pd.date_range("2024-02-28 12:00", periods=8, freq=pd.DateOffset(months=3), tz="Europe/Berlin"), "3 months"),
        (pd.date_range("2021-04-01", periods=8, freq="QS"), "QS-APR"),
        (pd.date_range("2020-01-01", periods=8, freq="YS"), "YS-JAN"),
        (pd.date_range("2024-01-05", periods=8, freq="W-FRI"), "W-FRI"),
        (pd.date_range("2024-01-01", periods=12, freq="B"), "B"),
        (pd.date_range("2024-01-01", periods=5, freq="D"), "D"),
        (pd.date_range("2024-03-25", periods=9, freq="2D", tz="Europe/Berlin"), "2D"),
        (pd.date_range("2024-01-01 00:30", periods=9, freq="15min"), "15min"),
        (pd.date_range("2024-03-25", periods=12, freq="D", tz="Europe/Berlin"), "D"),
        (pd.date_range("2024-03-30", periods=60, freq="h", tz="Europe/Berlin"), "h"),
        (pd.date_range("2024-10-26", periods=60, freq="h", tz="Europe/Berlin"), "h"),
        (pd.Index(np.arange(1990, 2001)), 1),
        (pd.Index(np.arange(8) * 0.1), 0.1),
        (pd.Index(np.round(np.arange(400) * 0.1, 1)), 0.1),
        (pd.Index(1.7e9 + np.arange(2000) * 0.1), 0.1),
        (pd.Index(1.7e9 + np.arange(2000) / 60), 1 / 60),
    ],
    ids=lambda value: "" if isinstance(value, pd.Index) else str(value),
)
def test_frequencies_are_inferred_with_and_without_gaps(times: pd.Index, frequency: Any) -> None:
    assert infer_frequency([times]) == pytest.approx(frequency)
    gaps = times.delete([2, 3])
    assert infer_frequency([gaps, times]) == pytest.approx(frequency)
    data = pd.DataFrame({"t": gaps, "y": 1.0 + np.arange(len(gaps))})
    series = from_frame(data, values="y", time="t")
    assert int(series.lengths) == len(times) and series.num_steps == len(gaps)
    following = later(times[:-2], frequency, 2)
    assert (abs(following - times[-2:]) <= 1e-9 * abs(times[-1] - times[0])).all()


def test_series_of_different_weekdays_have_grids_of_weeks() -> None:
    parts = [frame(8, t=pd.date_range(f"2024-01-0{day}", periods=8, freq="7D"), s=day) for day in (1, 4, 6)]
    series = from_frame(pd.concat(parts).drop(index=3), values="y", time="t", id="s")
    assert series.format.columns.frequency == "7D" and series.lengths.tolist() == [8] * 3 and series.num_steps == 21


def test_days_of_different_months_have_grids_of_months() -> None:
    parts = [frame(5, t=[f"2024-0{month}-{day}" for month in (1, 2, 4, 5, 6)], s=day) for day in (10, 15)]
    series = from_frame(pd.concat(parts), values="y", time="t", id="s")
    assert series.format.columns.frequency == "1 month" and series.lengths.tolist() == [6, 6]
    assert series.values[:, 2, 0].isnan().all() and later(series.times[1], "1 month", 1)[0] == pd.Timestamp(
        "2024-07-15"
    )


def test_irregular_times_are_steps_with_the_time_between_them(caplog: pytest.LogCaptureFixture) -> None:
    data = frame(4, t=["2024-01-01", "2024-01-01 00:00:07", "2024-03-01", "2024-03-02 11:13"])
    series = from_frame(data, values="y", time="t")
    assert int(series.lengths) == 4 and "on no regular grid; each row is a step" in caplog.text
    from_frame(frame(5, t=["2024-01-31", "2024-03-01", "2024-03-31", "2024-05-01", "2024-06-01"]), values="y", time="t")
    assert "gaps are ignored. 2 of 4 steps are 30 days 00:00:00: round the times" in caplog.text
    apart = from_frame(data, values="y", covariates="c", time="t", time_difference=True, dtype=FLOAT64)
    assert apart.layout.covariates == ("c", "time difference")
    assert apart.covariates[0, :2, 1].tolist() == [0, 7] and apart.covariates[0, 3, 1] == 86400 + 11 * 3600 + 13 * 60
    with pytest.raises(ValueError, match="frequency 'D' has no effect with time_difference"):
        from_frame(data, values="y", time="t", frequency="D", time_difference=True)
    with pytest.raises(ValueError, match="time 2024-01-01 00:00:07 of series 0 is not on the grid of frequency 'D'"):
        from_frame(data, values="y", time="t", frequency="D")
    rows = from_frame(frame().drop(index=2), values="y", time="t", frequency="rows")
    assert int(rows.lengths) == 5


def test_decimal_times_are_a_grid_of_decimals() -> None:
    for start, step in ((0.0, 0.1), (5.0, 0.05), (1.7e9, 0.1)):
        times = pd.Index(start + np.arange(300) * step).delete([5, 6, 20])
        assert infer_frequency([times]) == step


def test_frequencies_of_numbers_may_be_text() -> None:
    data = frame(4, t=[0, 2, 4, 8])
    assert from_frame(data, values="y", time="t", frequency="2").format.columns.frequency == 2
    with pytest.raises(ValueError, match="frequency must be"):
        from_frame(data, values="y", time="t", frequency="D")


def test_small_integers_do_not_overflow() -> None:
    series = from_frame(
        pd.DataFrame({"t": np.array([100, 0, -100], np.int8), "y": [3.0, 2.0, 1.0]}), values="y", time="t"
    )
    assert values(series) == [1, 2, 3] and series.format.columns.frequency == 100


def test_names_of_columns_can_be_numbers() -> None:
    table = pd.DataFrame(np.arange(8.0).reshape(4, 2))
    assert values(from_frame(table, values=0, covariates=[1])) == [0, 2, 4, 6]


def test_numbers_that_are_dates() -> None:
    times = read_times("t", pd.Series([20240130, 20240131, 20240201]))
    assert [*times] == [*pd.date_range("2024-01-30", periods=3)]


@pytest.mark.parametrize(
    ("data", "roles", "message"),
    [
        (frame(), {"values": "z"}, "there is no column 'z'; the columns are 't', 'y'"),
        (frame(), {"values": ()}, "values must name at least one column"),
        (frame(), {"values": "y", "covariates": "y"}, "column 'y' must have one role"),
        (frame().set_axis(["t", "y", "y"], axis=1), {"values": "y"}, "column 'y' is there 2 times"),
        (frame(0), {"values": "y"}, "frame must have at least one row"),
        ({"y": [1.0]}, {"values": "y"}, "frame must be a data frame of pandas .* got dict"),
        (frame(2, y=["1,5", "2,5"]), {"values": "y"}, r"'1,5' is not a number \(and 1 others\); read decimal"),
        (frame(2, y=["a", "2"]), {"values": "y"}, "column 'y', row 0: 'a' is not a number; convert or remove it"),
        (frame(2, y=pd.date_range("2024", periods=2)), {"values": "y"}, "row 0: Timestamp.* is not a number"),
        (frame(2, y=[[1], 2]), {"values": "y"}, r"column 'y', row 0: \[1\] is not a number"),
        (frame(2, y=[math.inf, 1]), {"values": "y"}, r"column 'y', row 0: infinite; mark it as missing \(NaN\)"),
        (frame(2, c=[0, -math.inf]), {"values": "y", "covariates": "c"}, "column 'c', row 1: infinite; correct it"),
        (frame(2), {"values": "y", "covariates": "c,t"}, "there is no column 'c,t'; .*; give the names one by one"),
        (frame(2, y=[math.nan, None]), {"values": "y"}, "column 'y' has no values"),
        (frame(2, c=[1.0, None]), {"values": "y", "covariates": "c"}, "column 'c', row 1: a covariate is missing"),
        (frame(2, s=["a", None]), {"values": "y", "id": "s"}, "column 's': 1 of 2 rows name no series"),
        (frame(2, t=["2024-01-01", None]), {"values": "y", "time": "t"}, "column 't': 1 of 2 times are missing"),
        (frame(2, t=["soon", "later"]), {"values": "y", "time": "t"}, "column 't' must hold times"),
        (frame(2, t=["13/01/2024", "01/02/2024"]), {"values": "y", "time": "t"}, "column 't' must hold times"),
        (frame(2, t=["2024-01-01T00+01:00", "2024-06-01"]), {"values": "y", "time": "t"}, "column 't' must hold times"),
        (frame(2, t=[True, False]), {"values": "y", "time": "t"}, "column 't' must hold times"),
        (frame(2, t=["2024-01-01"] * 2), {"values": "y", "time": "t"}, "several rows .* name the column of"),
        (frame(2, t=[3, 3], s="a"), {"values": "y", "time": "t", "id": "s"}, "of series 'a' have the time 3; aggr"),
        (frame(2), {"values": "y", "time": "t", "frequency": "fortnight"}, r"\(Invalid frequency: fortnight\)$"),
        (frame(2, t=[1, 2]), {"values": "y", "time": "t", "frequency": 0}, "frequency must be"),
        (frame(2, t=[1, 2]), {"values": "y", "time": "t", "frequency": "D"}, "frequency must be"),
        (frame(2, t=["2024-01-01", "2024-02-01"]), {"values": "y", "time": "t", "frequency": "1us"}, "2.68e.12 steps"),
        (frame(2, t=[1, 2]), {"values": "y", "time": "t", "frequency": 1e-9}, "a grid of 1e.09 steps"),
    ],
)  # fmt: skip
def test_refusals(data: Any, roles: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        from_frame(data, **roles)
    assert "\n" not in str(error.value)


def test_types_of_columns_that_are_numbers() -> None:
    for y in ([True, False, True], ["1", "2.5", None], pd.array([1, None, 3], "Int64"), np.arange(3, dtype="uint8")):
        series = from_frame(frame(3, y=y), values="y", time="t")
        expected = pd.to_numeric(pd.Series(y), errors="coerce").astype(float).to_numpy(float, na_value=np.nan)
        np.testing.assert_array_equal(values(series), expected)


def test_a_format_reads_new_frames() -> None:
    data = pd.concat([frame(8, s="a"), frame(5, s="b")])
    train = from_frame(data, values="y", id="s", time="t", covariates="c")
    new = from_frame(data[data.s == "b"], format=train.format)
    assert torch.equal(new.inputs[0], train.inputs[1, :5])
    with pytest.raises(ValueError, match="columns and frequency are those of the format"):
        from_frame(data, values="y", format=train.format)


class Interchange:
    def __init__(self, data: pd.DataFrame) -> None:
        self.data = data

    def to_pandas(self) -> pd.DataFrame:
        return self.data


class Lazy:
    def collect(self) -> pd.DataFrame: ...


def test_other_libraries_frames() -> None:
    with pytest.raises(ValueError, match=r"got Lazy; call its collect\(\)"):
        from_frame(Lazy(), values="y")
    assert torch.equal(from_frame(Interchange(frame()), values="y").inputs, from_frame(frame(), values="y").inputs)


CELLS = st.one_of(
    st.floats(), st.integers(-(2**70), 2**70), st.text(max_size=3), st.none(), st.booleans(), st.floats(-10, 10),
    st.sampled_from(["1,5", b"x", pd.NaT, pd.Timestamp("2024"), pd.Timestamp("2024", tz="UTC"), 1e308, -1e308, "2"]),
)  # fmt: skip
TIMES = st.one_of(
    st.integers(-5, 5), st.datetimes(), st.datetimes().map(str), st.dates(), st.floats(), st.text(max_size=4),
    st.none(), st.datetimes(timezones=st.timezones()),
)  # fmt: skip


def columns_of(cells: st.SearchStrategy[Any], rows: int) -> st.SearchStrategy[Any]:
    kinds = [cells, st.floats(-9, 9), st.integers(0, 3), st.dates(), st.datetimes(), st.integers(-9, 9)]
    lists = st.one_of([st.lists(kind, min_size=rows, max_size=rows) for kind in kinds])
    return lists.map(lambda column: pd.Series(column, dtype=None if column else object))


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(0, 5))
    columns = {name: draw(columns_of(TIMES if name == "t" else CELLS, rows)) for name in ("s", "t", "y", "c")}
    data = pd.DataFrame(columns)
    return data.astype({"s": "category"}) if draw(st.booleans()) and rows and data.s.map(type).nunique() == 1 else data


@settings(max_examples=60, deadline=None)
@given(frames(), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([None, "rows", "D", "h", 1, 0.5]))
def test_any_frame_is_read_right_or_refused_in_one_line(
    data: pd.DataFrame, has_id: bool, has_time: bool, has_covariate: bool, frequency: Any
) -> None:
    roles = {"id": "s" if has_id else None, "time": "t" if has_time else None, "covariates": ["c"] * has_covariate}
    try:
        series = from_frame(data, values="y", **roles, frequency=frequency if has_time else None, dtype=FLOAT64)
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) > 20
        return
    assert series.inputs.isfinite().all()
    observed = pd.to_numeric(data.y, errors="coerce").astype(float).dropna()
    assert sorted(series.values[~series.values.isnan()].tolist()) == sorted(observed)
    assert len(series) == (data.s.nunique() if has_id else 1)


def test_a_fine_grid_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    from_frame(frame(3, t=pd.date_range("2024-01-01", periods=3)), values="y", time="t", frequency="1h")
    assert "column 't': frequency 1h makes 49 steps of 3 rows; a coarser one is faster" in caplog.text
