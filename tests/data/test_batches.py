from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noisin_pyro.data import Batch, Sequences, Stream

sizes = st.tuples(st.integers(1, 9), st.integers(0, 60), st.integers(1, 12)).map(lambda s: (s[0], s[0] + s[1], s[2]))


def lengths_of(batch: Batch) -> torch.Tensor:
    if batch.lengths is not None:
        return batch.lengths
    return torch.full(batch.targets.shape[:1], batch.targets.shape[1])


def columns(batches: list[Batch], num_columns: int, part: str) -> list[torch.Tensor]:
    """The real steps of each column, over all windows."""
    return [torch.cat([getattr(b, part)[row, : lengths_of(b)[row]] for b in batches]) for row in range(num_columns)]


@given(sizes)
@settings(deadline=None)
def test_stream_predicts_every_token_once_from_the_one_before(size: tuple[int, int, int]) -> None:
    batch_size, num_tokens, window = size
    tokens = torch.arange(1, num_tokens + 1)
    batches = list(Stream(tokens, batch_size, window, start=0).batches())
    targets, inputs = columns(batches, batch_size, "targets"), columns(batches, batch_size, "inputs")
    assert torch.equal(torch.cat(targets), tokens)
    assert torch.equal(torch.cat(inputs), tokens - 1)
    column_sizes = {len(column) for column in targets}
    assert max(column_sizes) - min(column_sizes) <= 1


@given(sizes)
@settings(deadline=None)
def test_stream_windows(size: tuple[int, int, int]) -> None:
    batch_size, num_tokens, window = size
    stream = Stream(torch.arange(num_tokens), batch_size, window)
    batches = list(stream.batches())
    assert [batch.carried for batch in batches] == [False] + [True] * (len(batches) - 1)
    assert all(batch.lengths is None and batch.targets.shape == (batch_size, window) for batch in batches[:-1])
    last = batches[-1]
    assert 1 <= last.targets.shape[1] <= window
    assert last.inputs.shape == last.targets.shape
    assert int(lengths_of(last).max()) == last.targets.shape[1]
    assert (last.lengths is None) == (num_tokens % batch_size == 0)
    assert sum(batch.num_steps for batch in batches) == stream.num_steps == num_tokens
    assert all(torch.equal(a.targets[:, -1], b.inputs[:, 0]) for a, b in pairwise(batches))


@given(sizes, st.integers(1, 4))
@settings(deadline=None)
def test_parts_of_a_stream_are_read_in_the_windows_of_all(size: tuple[int, int, int], num_parts: int) -> None:
    batch_size, num_tokens, window = size
    whole = Stream(torch.arange(num_tokens), batch_size, window)
    bounds = [batch_size * part // num_parts for part in range(num_parts + 1)]
    parts = [whole.rows(slice(*ends)) for ends in pairwise(bounds) if ends[0] < ends[1]]
    assert sum(part.num_steps for part in parts) == num_tokens
    for batch, *own in zip(whole.batches(), *(part.batches(part.batch_size) for part in parts), strict=True):
        for name in ("inputs", "targets"):
            assert torch.equal(torch.cat([getattr(each, name) for each in own]), getattr(batch, name))
        assert torch.equal(torch.cat([lengths_of(each) for each in own]), lengths_of(batch))
        assert all((each.lengths is None) == (batch.lengths is None) for each in own)
        assert all(each.carried == batch.carried for each in own)


def test_parts_of_sequences_and_of_batches() -> None:
    values, lengths = torch.rand(7, 5, 2), torch.tensor([5, 2, 3, 1, 4, 2, 5])
    part = Sequences(values, values, lengths).rows(slice(3, 6))
    assert len(part) == 3 and part.num_steps == 7
    (batch,) = part.batches()
    assert torch.equal(batch.inputs, values[3:6, :4])
    assert torch.equal(batch.rows(slice(1, 3)).inputs, values[4:6, :4])
    assert lengths_of(batch.rows(slice(1, 3))).tolist() == [4, 2]


def test_stream_example() -> None:
    first, last = Stream(torch.arange(1, 12), batch_size=3, window=3, start=99).batches()
    assert first.inputs.tolist() == [[99, 1, 2], [4, 5, 6], [8, 9, 10]]
    assert first.targets.tolist() == [[1, 2, 3], [5, 6, 7], [9, 10, 11]]
    assert last.targets[:2].tolist() == [[4], [8]]
    assert last.lengths is not None and last.lengths.tolist() == [1, 1, 0]


@given(sizes)
def test_tokens_of_32_bits_have_the_same_windows(size: tuple[int, int, int]) -> None:
    batch_size, num_tokens, window = size
    tokens = torch.arange(num_tokens)
    pairs = zip(
        Stream(tokens, batch_size, window).batches(), Stream(tokens.int(), batch_size, window).batches(), strict=True
    )
    for long, short in pairs:
        assert short.inputs.dtype == short.targets.dtype == torch.long
        assert torch.equal(long.inputs, short.inputs) and torch.equal(long.targets, short.targets)


def test_a_stream_does_not_copy_its_tokens() -> None:
    tokens = torch.zeros(12, dtype=torch.int32)
    stream = Stream(tokens, batch_size=2, window=3)
    tokens += 1
    assert all(batch.targets.all() for batch in stream.rows(slice(1, 2)).batches())


def test_stream_batches_twice_gives_the_same_and_accepts_its_own_batch_size() -> None:
    stream = Stream(torch.arange(12), batch_size=2, window=5)
    for a, b in zip(stream.batches(), stream.batches(batch_size=2), strict=True):
        assert torch.equal(a.targets, b.targets)


@pytest.mark.parametrize(
    ("tokens", "batch_size", "window", "start", "message"),
    [
        (torch.arange(6).view(2, 3), 2, 3, 0, "one-dimensional torch.long or torch.int32.*got torch.int64 \\(2, 3\\)"),
        (torch.arange(6.0), 2, 3, 0, "torch.long.*got torch.float32"),
        (torch.arange(6).short(), 2, 3, 0, "torch.int32.*got torch.int16"),
        ([1, 2, 3], 2, 3, 0, "torch.long.*got list"),
        (torch.arange(3), 4, 3, 0, "3 tokens do not fill batch_size=4.*at most 3"),
        (torch.arange(0), 1, 3, 0, "0 tokens"),
        (torch.arange(6), 0, 3, 0, "batch_size must be a positive integer, got 0"),
        (torch.arange(6), 2, 0, 0, "window must be a positive integer, got 0"),
        (torch.arange(6), 2, 2.5, 0, "window must be a positive integer"),
        (torch.tensor([1, -1]), 1, 1, 0, "must not be negative.*-1"),
        (torch.arange(6), 2, 3, -1, "must not be negative, got start=-1"),
    ],
)
def test_stream_refuses(tokens, batch_size, window, start, message) -> None:
    with pytest.raises(ValueError, match=message):
        Stream(tokens, batch_size, window, start)


def test_stream_refuses_another_batch_size_and_shuffling() -> None:
    stream = Stream(torch.arange(6), 2, 3)
    with pytest.raises(ValueError, match="batch_size must be that of the stream, 2, got 3"):
        stream.batches(batch_size=3)
    with pytest.raises(ValueError, match="cannot be shuffled"):
        stream.batches(generator=torch.Generator())


def make_sequences(lengths: list[int]) -> Sequences:
    """Step ``t`` of sequence ``n`` is ``100 n + t`` (from 1), its input one less; padding is 0."""
    time = torch.arange(1, max(lengths) + 3)
    targets = 100 * torch.arange(1, len(lengths) + 1)[:, None] + time
    targets = targets * (time <= torch.tensor(lengths)[:, None])
    return Sequences((targets - 1).clamp(min=0), targets, torch.tensor(lengths))


@given(st.lists(st.integers(1, 7), min_size=1, max_size=12), st.integers(1, 14), st.none() | st.integers(0, 99))
@settings(deadline=None)
def test_sequences_lose_nothing(lengths: list[int], batch_size: int, seed: int | None) -> None:
    data = make_sequences(lengths)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    batches = list(data.batches(batch_size, generator))
    rows = []
    for batch in batches:
        real = lengths_of(batch)
        assert not batch.carried
        assert batch.inputs.shape == batch.targets.shape
        assert int(real.max()) == batch.targets.shape[1]
        assert (batch.lengths is None) == bool((real == real.max()).all())
        for inputs, targets, length in zip(batch.inputs, batch.targets, real.tolist(), strict=True):
            assert torch.equal(inputs[:length], targets[:length] - 1)
            rows.append(targets[:length].tolist())
    expected = [[100 * n + t for t in range(1, length + 1)] for n, length in enumerate(lengths, 1)]
    assert (rows if seed is None else sorted(rows)) == expected
    assert sum(batch.num_steps for batch in batches) == data.num_steps == sum(lengths)
    assert [len(batch.targets) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)


def test_sequences_shuffle_by_the_generator_alone() -> None:
    data = make_sequences([3] * 20)

    def order(seed: int) -> list[int]:
        return [int(b.targets[0, 0]) for b in data.batches(1, torch.Generator().manual_seed(seed))]

    assert order(0) == order(0) != order(1)
    assert order(0) != [int(b.targets[0, 0]) for b in data.batches(1)]


def test_sequences_default_to_one_full_batch() -> None:
    data = Sequences(torch.zeros(3, 4, 88), torch.ones(3, 4, 88))
    (batch,) = data.batches()
    assert batch.lengths is None and batch.inputs.shape == (3, 4, 88) and batch.num_steps == len(data) * 4


x = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("inputs", "targets", "lengths", "message"),
    [
        (torch.zeros(3), x, None, "inputs must be a non-empty tensor .*unsqueeze"),
        (x, [[0.0]], None, "targets must be a non-empty tensor .*got list"),
        (torch.zeros(0, 3), torch.zeros(0, 3), None, "non-empty"),
        (x.to(torch.bool), x, None, "inputs must be floating point or integers, got torch.bool"),
        (x, torch.zeros(2, 4), None, "must have the same .*\\(2, 3\\) and \\(2, 4\\)"),
        (x, x.log() * 0, None, "targets must be finite"),
        (x, x, torch.tensor([3.0, 2.0]), "lengths must be an integer tensor of shape \\(2,\\), got torch.float32"),
        (x, x, torch.tensor([3]), "shape \\(2,\\), got torch.int64 \\(1,\\)"),
        (x, x, [3, 3], "integer tensor.*got list"),
        (x, x, torch.tensor([3, 4]), "1..3 .*got 3 to 4"),
        (x, x, torch.tensor([0, 3]), "drop empty sequences"),
    ],
)
def test_sequences_refuse(inputs, targets, lengths, message) -> None:
    with pytest.raises(ValueError, match=message):
        Sequences(inputs, targets, lengths)


class TestMissingTargets:
    MASK = torch.tensor([[1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]).bool()
    LENGTHS = torch.tensor([4, 2, 3])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.long])
    def test_masks_go_through_batches_rows_and_copies(self, dtype: torch.dtype) -> None:
        targets = torch.arange(1, 13).reshape(3, 4).to(dtype)
        data = Sequences(torch.zeros(3, 4, 2), targets, self.LENGTHS, self.MASK)
        scored = self.MASK & (torch.arange(4) < self.LENGTHS[:, None])
        assert torch.equal(data.mask, scored) and data.num_steps == int(scored.sum()) == 7
        for part in (data, data.to("cpu", torch.float64), data.rows(slice(None))):
            batches = list(part.batches(1))
            assert [batch.num_steps for batch in batches] == [3, 1, 3]
            for row, batch in enumerate(batches):
                assert torch.equal(batch.mask[0], scored[row, : self.LENGTHS[row]])
                assert torch.equal(batch.targets[batch.mask].to(dtype), targets[row][scored[row]])
        (batch,) = data.rows(slice(1, 3)).batches()
        assert torch.equal(batch.mask, scored[1:, :3]) and batch.num_steps == 4
        assert torch.equal(batch.rows(slice(1, 2)).mask, scored[2:, :3])
        assert set(batch.keywords) == {"lengths", "mask"}
        shuffled = torch.cat([each.targets[each.mask] for each in data.batches(2, torch.Generator().manual_seed(1))])
        assert sorted(shuffled.tolist()) == sorted(targets[scored].tolist())

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30])
    def test_missing_values_are_replaced_by_one_that_is_scored(self, value: float) -> None:
        targets = torch.rand(3, 4, 2) + 1
        data = Sequences(torch.zeros(3, 4, 2), targets.where(self.MASK[..., None], value), mask=self.MASK)
        assert torch.equal(data.targets, targets.where(self.MASK[..., None], targets[0, 0]))

    def test_without_a_mask_models_get_no_such_argument(self) -> None:
        (batch,) = make_sequences([2, 3]).batches()
        assert batch.mask is None and list(batch.keywords) == ["lengths"]

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (torch.ones(2, 3), r"mask must be a boolean tensor of shape \(2, 3\).* got torch.float32 \(2, 3\)"),
            (torch.ones(2).bool(), r"mask must be a boolean tensor of shape \(2, 3\).* got torch.bool \(2,\)"),
            ([[True] * 3] * 2, "mask must be a boolean tensor .* got list"),
            (torch.zeros(2, 3).bool(), "at least one target that is not missing"),
        ],
    )
    def test_refusals(self, mask: object, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Sequences(x, x, mask=mask)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"targets must be finite.* mark missing ones by mask"):
            Sequences(x, x / 0, mask=torch.ones(2, 3).bool())


def test_sequences_refuse_a_batch_size_below_one() -> None:
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        make_sequences([1, 2]).batches(0)


@pytest.mark.parametrize("data", [Stream(torch.arange(7), 2, 3), make_sequences([2, 3])])
def test_to_moves_everything_and_leaves_the_original(data: Stream | Sequences) -> None:
    moved = data.to("meta")  # a device that every machine has
    batch = next(moved.batches(2))
    assert batch.inputs.is_meta and batch.targets.is_meta
    assert all(b.lengths is None or b.lengths.is_meta for b in moved.batches(2))
    assert moved.num_steps == data.num_steps
    assert not next(data.batches(2)).targets.is_meta
