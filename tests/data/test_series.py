"""Series from arrays: inputs, masks, scaling, splits and windows."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.utils.data import DataLoader

import noisin_pyro as nz
from noisin_pyro.data import InputLayout, Scaling, Series, collate, from_arrays
from noisin_pyro.data.series_format import Columns, SeriesFormat, Table, split

NAN = math.nan
FLOAT64 = torch.float64


def ragged(*lengths: int, width: int = 2, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(100, 20, (length, width)) for length in lengths]


def test_the_input_of_a_step_has_the_value_before_an_indicator_and_the_covariates_of_the_step() -> None:
    series = from_arrays(
        [np.array([1.0, NAN, 4.0, 2.5])], [np.array([5.0, 6.0, 7.0, 8.0])], scaling="none", dtype=FLOAT64
    )
    covariates = (torch.tensor([5.0, 6.0, 7.0, 8.0]) - 6.5) / math.sqrt(1.25)
    expected = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [4.0, 0.0]])
    torch.testing.assert_close(series.inputs[0], torch.cat([expected, covariates[:, None]], 1).double())
    assert series.mask.tolist() == [[True, False, True, True]]
    assert series.targets[series.mask].flatten().tolist() == [1.0, 4.0, 2.5] and series.num_steps == 3


@given(arrays(np.float64, (6, 2), elements=st.one_of(st.floats(-1e6, 1e6), st.just(NAN))))
def test_inputs_step_by_step_are_those_of_all_steps(values: np.ndarray) -> None:
    layout = InputLayout(("a", "b"), ("c",), Scaling((1.0, -2.0), (3.0, 0.5)), Scaling((0.5,), (2.0,)))
    covariates = torch.arange(6.0, dtype=FLOAT64)[:, None]
    last, observed = torch.full((2,), NAN, dtype=FLOAT64), torch.zeros(2, dtype=torch.bool)
    steps = []
    for x_t, c_t in zip(torch.from_numpy(values), covariates, strict=True):
        steps.append(layout.step(last, observed, c_t))
        last, observed = torch.where(x_t.isnan(), last, x_t), ~x_t.isnan()
    torch.testing.assert_close(layout.along(torch.from_numpy(values), covariates), torch.stack(steps), rtol=0, atol=0)
    assert layout.input_size == steps[0].shape[-1]


@pytest.mark.parametrize("kind", ["standard", "mean", "none"])
@given(column=arrays(np.float64, 5, elements=st.one_of(st.floats(-1e300, 1e300), st.just(NAN))))
def test_scaling_is_undone(kind: Any, column: np.ndarray) -> None:
    """Up to the rounding of the largest value."""
    scaling = Scaling.fit(column[:, None], [kind])
    back = scaling.undo(scaling.apply(torch.from_numpy(column[:, None]))).numpy()[:, 0]
    largest = max(np.nan_to_num(np.abs(column)).max(), abs(scaling.loc[0]))
    np.testing.assert_allclose(back, column, rtol=0, atol=1e-12 * largest)


def test_scaling_has_mean_0_and_deviation_1_or_mean_1() -> None:
    x = np.random.default_rng(0).gamma(2.0, 3.0, (100, 2))
    x[3, 0] = NAN
    y = Scaling.fit(x, ["standard", "mean"]).apply(torch.from_numpy(x)).numpy()
    assert np.nanmean(y[:, 0]) == pytest.approx(0, abs=1e-12) and np.nanstd(y[:, 0]) == pytest.approx(1)
    assert np.nanmean(y[:, 1]) == pytest.approx(1)
    constant = Scaling.fit(np.full((3, 2), 0.1), ["standard", "none"])
    assert constant.scale == (1.0, 1.0)


def test_arrays_tensors_and_one_array_give_the_same() -> None:
    values = np.random.default_rng(0).normal(size=(3, 5, 2))
    one = from_arrays(values)
    for other in (
        from_arrays([*values]),
        from_arrays(torch.from_numpy(values)),
        from_arrays([*map(torch.tensor, values)]),
    ):
        assert torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)
    assert one.inputs.dtype == torch.float32 and one.mask is None and one.format.emission == "gaussian"


@pytest.mark.parametrize("values", [[1.0, 99.0, 3.0], [1, 99, 3]])
def test_masked_values_are_missing(values: list) -> None:
    masked = from_arrays([np.ma.masked_equal(values, 99)])
    plain = from_arrays([np.array([1.0, NAN, 3.0])])
    assert torch.equal(masked.inputs, plain.inputs) and masked.mask.tolist() == [[True, False, True]]


def test_padding_changes_nothing() -> None:
    """A series alone has the inputs and targets that it has among longer ones."""
    parts = ragged(4, 7, 1)
    parts[0][1, 0] = parts[2][0, 1] = NAN
    together = from_arrays(parts, dtype=FLOAT64)
    for row, part in enumerate(parts):
        alone = from_arrays([part], format=together.format, dtype=FLOAT64)
        assert torch.equal(together.inputs[row, : len(part)], alone.inputs[0])
        torch.testing.assert_close(together.targets[row, : len(part)], alone.targets[0], equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros(4), {}, "values must be a list of arrays .* put a single series into a list"),
        (np.zeros((4, 2)), {}, "values must be a list of arrays"),
        ([], {}, "values must be a list of arrays"),
        ([np.zeros(0)], {}, "at least one step in each series"),
        ([np.zeros((2, 1)), np.zeros((2, 2))], {}, "columns as many in all"),
        ([np.array([1, np.inf])], {}, "column 'value', row 1: infinite"),
        ([np.full(3, NAN)], {}, "column 'value' has no values"),
        ([np.array(["a", "b"])], {}, "column 'value', row 0: 'a' is not a number"),
        ([np.array([1j])], {}, "is not a number"),
        ([np.zeros(3)], {"covariates": [np.zeros(2)]}, "covariates must have as many series and steps"),
        ([np.zeros(3)], {"covariates": [np.array([1, NAN, 2])]}, "column 'covariate_1', row 1: a covariate is missing"),
        ([np.zeros(3)], {"ids": ["a", "b"]}, "ids must be 1 different labels"),
        ([np.zeros((3, 2))], {"value_names": ["a", "a"]}, "value_names must be 2 different names"),
        ([np.array([1e39])], {}, "beyond the range of torch.float32"),
        ([np.array([1e-50, 2e-50])], {}, "beyond the range of torch.float32"),
        (
            [np.zeros(3)],
            {"scaling": "Standard"},
            "scaling must be one of standard, mean, none, got 'Standard'; did you",
        ),
        ([np.zeros(3)], {"covariates": [np.ma.masked_equal([1, 0, 2], 0)]}, "row 1: a covariate is missing"),
        ([np.zeros(3)], {"dtype": torch.long}, "dtype must be a floating-point type, got torch.int64"),
    ],
)
def test_refusals(values: Any, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_arrays(values, **options)


def test_a_format_belongs_to_its_columns() -> None:
    format = from_arrays(ragged(5)).format
    with pytest.raises(ValueError, match="values and covariates must be those of the format"):
        from_arrays(ragged(5, width=1), format=format)
    with pytest.raises(ValueError, match="scaling 'mean' has no effect with a format"):
        from_arrays(ragged(5), format=format, scaling="mean")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([2**53 + 1, 0]), "whole numbers beyond 2**53 are rounded"),
        (1e9 + np.arange(5.0) / 7, "vary by .* lose digits in torch.float32"),
    ],
)
def test_lost_digits_are_reported(values: np.ndarray, message: str, caplog: pytest.LogCaptureFixture) -> None:
    from_arrays([values])
    assert any(np.all([part in record.getMessage() for part in message.split(" .* ")]) for record in caplog.records)
    caplog.clear()
    from_arrays([np.array([3, 5, 8])])
    from_arrays([1e9 + np.arange(5.0) / 7], dtype=FLOAT64)
    assert not caplog.records


@pytest.mark.parametrize(
    ("values", "emission"),
    [
        ([0, 1, NAN], "bernoulli"),
        ([0, 3, NAN], "poisson"),
        ([0, 9, NAN], "negative-binomial"),
        ([1.5e30, 2.5e30], "gaussian"),
        ([0, -3], "gaussian"),
        ([0.5, 1], "gaussian"),
    ],
)
def test_the_emission_and_the_scaling_follow_from_the_values(values: list[float], emission: str) -> None:
    format = from_arrays([np.array(values)]).format
    assert format.emission == emission
    scaling = format.layout.value_scaling
    expected = {"bernoulli": 1.0, "poisson": 1.5, "negative-binomial": 4.5, "gaussian": np.std(values)}
    assert scaling.scale[0] == pytest.approx(expected[emission])
    assert (scaling.loc[0] != 0) == (emission == "gaussian")


def table(*lengths: int) -> Table:
    return Table(ragged(*lengths), [np.arange(n, dtype=float)[:, None] for n in lengths], [*"abcdefgh"[: len(lengths)]])


def test_splits_in_time_score_each_step_once_and_read_all_before() -> None:
    whole = table(10, 23, 3)
    parts = split(whole, "time", 0.2, 0.3)
    format = SeriesFormat.fit(parts[0][0], Columns(("x", "y"), ("c",)))
    train, valid, test = (Series(part, format, history) for part, history in parts)
    assert [s.num_steps for s in (train, valid, test)] == [5 + 11 + 1, 2 + 5 + 1, 3 + 7 + 1]
    everything = Series(whole, format)
    for part in (train, valid, test):
        for row, length in enumerate(part.lengths.tolist()):
            assert torch.equal(part.inputs[row, :length], everything.inputs[row, :length])
    scored = torch.cat([part.targets[m] for part in (train, valid, test) for m in [scored_mask(part)]])
    assert sorted(scored.flatten().tolist()) == sorted(everything.targets[scored_mask(everything)].flatten().tolist())


def scored_mask(series: Series) -> torch.Tensor:
    real = torch.arange(series.targets.shape[1]) < series.lengths[:, None]
    return real if series.mask is None else series.mask


def test_splits_by_series() -> None:
    (train, _), (valid, _), (test, _) = split(table(4, 5, 6, 7, 8), "series", 0.2, 0.4)
    assert (train.ids, valid.ids, test.ids) == (["a", "b"], ["c"], ["d", "e"])
    with pytest.raises(ValueError, match="split by series needs at least 3 series, got 2"):
        split(table(4, 5), "series", 0.2, 0.4)
    with pytest.raises(ValueError, match="split in time needs at least 3 steps of each series, but b has fewer"):
        split(table(9, 2), "time", 0.1, 0.1)
    with pytest.raises(ValueError, match="fraction must be above 0 and below 1 together"):
        split(table(9), "time", 0.5, 0.5)


@pytest.mark.parametrize("size", [1, 3, 4, 50])
def test_windows_have_every_step_once(size: int) -> None:
    parts = ragged(7, 3, 8)
    parts[0][2] = NAN
    series = from_arrays(parts, dtype=FLOAT64)
    windows = series.windows(size)
    assert windows.num_steps == series.num_steps == 17 and windows.targets.shape[1] == size
    together = {tuple(row) for row in windows.inputs[scored_mask(windows)].tolist()}
    assert together == {tuple(row) for row in series.inputs[scored_mask(series)].tolist()}
    (batch,) = windows.batches()
    assert batch.num_steps == 17


def test_sequences_index_iterate_and_load() -> None:
    series = from_arrays(ragged(4, 7, 1, 6), dtype=FLOAT64)
    assert [batch.targets.shape for batch in series] == [(1, 4, 2), (1, 7, 2), (1, 1, 2), (1, 6, 2)]
    assert torch.equal(series[-1].inputs[0], series.inputs[3, :6])
    with pytest.raises(IndexError):
        series[4]
    loaded = list(DataLoader(series, batch_size=3, collate_fn=collate))  # type: ignore[arg-type]
    for batch, expected in zip(loaded, series.batches(3), strict=True):
        assert (batch.num_steps, batch.lengths is None) == (expected.num_steps, expected.lengths is None)
        model = nz.SequenceModel(nz.NoisyRNN(4, 3, spread=0.0), "gaussian", 2).double()
        loss = nz.PriorAsGuide_ELBO()(model)
        one, other = (loss(b.inputs, b.targets, **b.keywords) for b in (batch, expected))
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "index", [slice(1, 3), [1, 2], torch.tensor([1, 2]), np.array([1, 2]), torch.tensor([False, True, True, False])]
)
def test_several_sequences_are_a_data_set(index: Any) -> None:
    parts = ragged(4, 7, 1, 6)
    series = from_arrays(parts, ids="abcd", dtype=FLOAT64)
    expected = from_arrays(parts[1:3], ids="bc", format=series.format, dtype=FLOAT64)
    part = series[index]
    assert isinstance(part, Series) and (part.ids, part.num_steps) == (["b", "c"], 8)
    batch, other = next(part.batches()), next(expected.batches())
    assert torch.equal(batch.inputs, other.inputs) and torch.equal(batch.real_lengths, other.real_lengths)
    assert torch.equal(series[[2]].targets, series[torch.tensor([2])].targets) and len(series[[2]]) == 1
    for one in (1, np.int64(1), torch.tensor(1)):
        assert torch.equal(series[one].inputs, series.inputs[1:2, :7])
    with pytest.raises(IndexError):
        series[[4]]
    for none in (slice(0), [], torch.zeros(4, dtype=torch.bool)):
        with pytest.raises(ValueError, match="index must select at least one of 4 sequences, got"):
            series[none]


def test_sizes_are_shown() -> None:
    series = from_arrays(ragged(4, 7), [np.zeros(4), np.zeros(7)], value_names=["a", "b"], dtype=FLOAT64)
    assert repr(series) == (
        "Series(2 of 4 to 7 steps, 11 scored; inputs torch.float64 (2, 7, 5), targets torch.float64 (2, 7, 2); values "
        "a, b; covariates covariate_1)"
    )
    notes = nz.data.Sequences(torch.zeros(1, 3, 2), torch.zeros(1, 3, 2))
    assert "Sequences(1 of 3 steps, 3 scored; inputs torch.float32 (1, 3, 2)" in repr(notes)


def test_collate_joins_masks() -> None:
    inputs, mask = torch.randn(2, 3, 1), torch.tensor([[True, False, True]])
    some = nz.data.Sequences(inputs[:1], inputs[:1], mask=mask)
    every = nz.data.Sequences(inputs[:, :2], inputs[:, :2])
    batch = collate([some[0], every[0], every[1]])
    assert batch.mask.tolist() == [[True, False, True], [True, True, False], [True, True, False]]
    assert batch.lengths.tolist() == [3, 2, 2] and batch.num_steps == 6


def test_rows_and_copies_have_all_that_belongs_to_them() -> None:
    series = from_arrays(ragged(4, 7, 5), [np.zeros(n) for n in (4, 7, 5)], ids=["a", "b", "c"])
    part = series.rows(slice(1, 3)).to("cpu", FLOAT64)
    assert (part.ids, len(part), part.num_steps) == (["b", "c"], 2, 12)
    assert part.values.dtype == part.covariates.dtype == part.inputs.dtype == FLOAT64
    assert series.values.dtype == torch.float32 and part.layout == series.layout
