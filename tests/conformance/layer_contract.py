"""What torch's recurrent layers and NoisyRNN without noise accept and refuse: the table of ``docs/layers.md``.

``test_layers.py`` runs every row on both, and ``docs/generated.py`` prints the rows.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from noisin_pyro.models import NoisyRNN

BATCH, STEPS, FEATURES, UNITS, LAYERS = 4, 5, 3, 6, 2
LENGTHS = torch.tensor([5, 2, 1, 3])
ALL, NONE = ("tanh", "relu", "lstm", "gru"), ()
TORCH_LAYERS: dict[str, Callable[..., nn.RNNBase]] = {
    "tanh": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="tanh", **options),
    "relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
    "lstm": nn.LSTM,
    "gru": nn.GRU,
}

Run = Callable[[Any], Any]


@dataclass(frozen=True)
class Row:
    """One thing that a user may do with a layer.

    Attributes:
        what: in words.
        run: does it with a layer, and returns tensors, which are equal where both accept it. In ``CONSTRUCTION`` it
            gets the class instead.
        torch: the cells whose layers of torch accept it.
        refused: a part of NoisyRNN's error, if it refuses.
        note: for the table.
        reference: what NoisyRNN's result equals, where torch's layers refuse or do it in another way.
        tolerance: relative and absolute, of the comparison.
        backends: those that accept it.
        once: whether ``backend="auto"`` is enough, since the backend is not used.
        slow: the cells for which it is a slow test.
    """

    what: str
    run: Run
    torch: Collection[str] = ALL
    refused: str = ""
    note: str = ""
    reference: Run | None = None
    tolerance: float = 2e-5
    backends: Collection[str] = ("auto", "fused", "scan", "loop")
    once: bool = False
    slow: Collection[str] = ()

    def as_cells(self) -> list[str]:
        """The row of the table."""
        but = ", ".join(f"`nn.{cell.upper()}`" for cell in ALL if cell not in self.torch)
        theirs = "accepted" if self.torch == ALL else f"accepted, but not by {but}" if self.torch else "refused"
        ours = "refused" if self.refused else "equal" if self.torch == ALL else "accepted"
        return [self.what, theirs, ours, self.note]


def inputs(*batch: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(*(batch or (BATCH,)), STEPS, FEATURES)


def state(rnn: Any, batch: int = BATCH) -> Any:
    torch.manual_seed(2)
    z, c = (torch.randn(LAYERS, batch, UNITS) for _ in range(2))
    return (z, c) if has_memory(rnn) else z


def has_memory(rnn: Any) -> bool:
    layers = getattr(rnn, "model", rnn)  # below a view
    return layers.cell.has_memory if isinstance(layers, NoisyRNN) else isinstance(layers, nn.LSTM)


def of_state(change: Callable[[Tensor], Tensor]) -> Run:
    return lambda rnn: tuple(map(change, state(rnn))) if has_memory(rnn) else change(state(rnn))


def flat(result: Any) -> list[Tensor]:
    """The tensors of a nested result."""
    return [result] if isinstance(result, Tensor) else [tensor for part in result for tensor in flat(part)]


def with_gradients(rnn: Any, x: Tensor, *state: Any) -> list[Tensor]:
    """Outputs and final states, and the gradients of a function of all of them."""
    return gradients(rnn, rnn, x, *state)


def gradients(rnn: Any, run: Run, x: Tensor, *state: Any) -> list[Tensor]:
    x = x.detach().requires_grad_()
    result = flat(run(x, *state))
    value = torch.stack([part.sin().sum() for part in result]).sum()
    return [*result, *torch.autograd.grad(value, [x, *rnn.parameters()])]


def packed(rnn: Any) -> Any:
    result, end = rnn(pack_padded_sequence(inputs(), LENGTHS, batch_first=True, enforce_sorted=False))
    return pad_packed_sequence(result, batch_first=True)[0], end


def with_lengths(rnn: Any) -> Any:
    result, end = rnn(inputs(), lengths=LENGTHS)
    real = torch.arange(STEPS) < LENGTHS[:, None]
    return torch.where(real[..., None], result, 0.0), end


def with_length_zero(rnn: Any) -> Tensor:
    _, end = rnn(inputs(), state(rnn), lengths=torch.zeros(BATCH, dtype=torch.int64))
    return torch.stack(flat(end))


def second_derivatives(rnn: Any) -> list[Tensor]:
    x = inputs().requires_grad_()
    (gradient,) = torch.autograd.grad(rnn(x)[0].sin().sum(), x, create_graph=True)
    return list(torch.autograd.grad(gradient.square().sum(), [x, *list(rnn.parameters())[:2]]))


def forward_mode(rnn: Any) -> Tensor:
    return torch.func.jvp(lambda x: rnn(x)[0], (inputs(),), (torch.ones(BATCH, STEPS, FEATURES),))[1]


def row_sums(rnn: Any) -> Tensor:
    """The same derivative by reverse mode: sums of the Jacobian's rows."""
    return torch.autograd.functional.jacobian(lambda x: rnn(x)[0], inputs()).sum((-3, -2, -1))


def one_by_one(rnn: Any) -> Tensor:
    return torch.stack([rnn(x)[0] for x in inputs(2, BATCH)])


def traced(rnn: Any) -> list[Tensor]:
    return with_gradients(torch.jit.trace(rnn, (inputs(),)), inputs(BATCH + 1))


def compiled(rnn: Any) -> list[Tensor]:
    torch._dynamo.reset()
    return with_gradients(torch.compile(rnn, backend="aot_eager"), inputs()[:, :2])


def checkpointed(rnn: Any) -> list[Tensor]:
    return gradients(rnn, lambda x: checkpoint(rnn, x, use_reentrant=False), inputs())


def in_autocast(rnn: Any) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return rnn(inputs())[0].float()


def in_inference_mode(rnn: Any) -> Any:
    with torch.inference_mode():
        return rnn(inputs())


def on_meta(rnn: Any) -> Tensor:
    return torch.tensor(copy.deepcopy(rnn).to("meta")(inputs().to("meta"))[0].shape)


def saved(rnn: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(rnn, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)(inputs())


def functional(rnn: Any) -> Tensor:
    weights = {name: 0.5 * parameter.detach() for name, parameter in rnn.named_parameters()}
    return torch.func.functional_call(rnn, weights, (inputs(),))[0]


def parametrized(rnn: Any) -> list[Tensor]:
    own = copy.deepcopy(rnn)
    parametrizations.weight_norm(getattr(own, "model", own), "weight_hh_l0")
    return with_gradients(own, inputs())


def of_dtype(dtype: torch.dtype) -> Run:
    return lambda rnn: [part.float() for part in flat(copy.deepcopy(rnn).to(dtype)(inputs().to(dtype)))]


def of_options(**options: Any) -> Run:
    return lambda rnn: rnn(FEATURES, UNITS, LAYERS, **options)


CALLS: Sequence[Row] = (
    Row("inputs `(B, T, I)`", lambda rnn: with_gradients(rnn, inputs())),
    Row("inputs `(T, I)`", lambda rnn: with_gradients(rnn, inputs()[0]), note="one sequence"),
    Row(
        "inputs `(..., B, T, I)`",
        lambda rnn: rnn(inputs(2, BATCH))[0],
        NONE,
        note="batches in parallel",
        reference=one_by_one,
    ),
    Row("a batch of no sequences", lambda rnn: with_gradients(rnn, inputs()[:0])),
    Row("sequences of no steps", lambda rnn: rnn(inputs()[:, :0]), NONE, "at least one step"),
    Row("inputs of another width", lambda rnn: rnn(inputs()[..., :2]), NONE, "inputs must have shape"),
    Row("integers", lambda rnn: rnn(inputs().long()), NONE, "inputs must be floating-point"),
    Row("NumPy arrays", lambda rnn: rnn(inputs().numpy()), NONE, "use torch.as_tensor", "use `torch.as_tensor`"),
    Row(
        "inputs of another dtype than the weights",
        lambda rnn: rnn(inputs().double()),
        NONE,
        r"inputs must have the dtype of the weights, torch.float32, got torch.float64; convert .*\.to\(torch.float32\)",
        "convert one of them; autocast does",
    ),
    Row("inputs that are not contiguous", lambda rnn: rnn(inputs().mT.contiguous().mT)),
    Row(
        "NaN in one sequence",
        lambda rnn: rnn(inputs().index_fill(0, torch.tensor([1]), torch.nan)),
        note="stays in that sequence",
    ),
    Row(
        "a state `(L, B, H)`, a pair for the LSTM",
        lambda rnn: with_gradients(rnn, inputs(), state(rnn)),
        note="`None` is zeros",
    ),
    Row("a state `(L, H)` of one sequence", lambda rnn: rnn(inputs()[0], of_state(lambda s: s[:, 0])(rnn))),
    Row("a state of another shape", lambda rnn: rnn(inputs(), state(rnn, BATCH + 1)), NONE, "state must have shape"),
    Row(
        "a state of another dtype",
        lambda rnn: rnn(inputs(), of_state(Tensor.double)(rnn)),
        NONE,
        "state must have the dtype of the weights",
        "on every backend",
    ),
    Row(
        "a pair as state where one tensor is expected, or the reverse",
        lambda rnn: rnn(inputs(), state(rnn)[0] if has_memory(rnn) else (state(rnn),) * 2),
        NONE,
        "state of a .* layer must be",
    ),
    Row(
        "a `PackedSequence`",
        packed,
        refused=r"use inputs, lengths = .*pad_packed_sequence\(packed, batch_first=True\).*lengths=lengths",
        note="give the padded tensor and its `lengths`",
    ),
    Row("`lengths`", with_lengths, NONE, note="as a `PackedSequence`", reference=packed),
    Row(
        "a length of 0",
        with_length_zero,
        NONE,
        note="the state stays as it is",
        reference=lambda rnn: torch.stack(flat(state(rnn))),
    ),
    Row("float64, by `.double()`", of_dtype(torch.float64)),
    Row("bfloat16, by `.bfloat16()`", of_dtype(torch.bfloat16), tolerance=0.03),
    Row("float16, by `.half()`", of_dtype(torch.float16), tolerance=0.005),
    Row("`torch.autocast`", in_autocast, tolerance=0.03, backends=("auto", "fused", "loop"), note="not on the scan"),
    Row("`torch.inference_mode`", in_inference_mode),
    Row("second derivatives", second_derivatives),
    Row("activation checkpointing", checkpointed),
    Row("`torch.func.functional_call`", functional),
    Row("`torch.func.jvp`", forward_mode, ("tanh", "relu", "gru"), note="on the loop", reference=row_sums),
    Row(
        "`torch.func.vmap`",
        lambda rnn: torch.func.vmap(lambda x: rnn(x)[0])(inputs(2, BATCH)),
        NONE,
        note="on the loop",
        reference=one_by_one,
    ),
    Row("`torch.jit.trace`", traced, backends=("auto", "fused", "loop"), note="not on the scan"),
    Row("`torch.compile`", compiled, note="on the loop; Pyro's contexts break the graph", once=True, slow=ALL),
    Row(
        "`torch.export.export`",
        lambda rnn: torch.export.export(rnn, (inputs(),)).module()(inputs()),
        note="on the loop; not with `strict=True`",
        once=True,
        slow=("tanh", "relu", "gru"),
    ),
    Row("the meta device", on_meta, note="on the loop"),
    Row("`torch.nn.utils.parametrizations`", parametrized, once=True),
    Row("`torch.save` and `torch.load`", saved, once=True),
    Row("a deep copy", lambda rnn: copy.deepcopy(rnn)(inputs()), once=True),
    Row("`.train()` and `.eval()`", lambda rnn: [rnn.train()(inputs()), rnn.eval()(inputs())], note="no effect"),
)

CONSTRUCTION: Sequence[Row] = (
    Row("integers of NumPy", lambda rnn: rnn(np.int64(FEATURES), np.int32(UNITS), np.int64(LAYERS)), NONE),
    Row("sizes that are not integers", lambda rnn: rnn(3, 2.5), NONE, "hidden_size must be a positive integer"),
    Row("`hidden_size=0`", lambda rnn: rnn(3, 0), NONE, "hidden_size must be a positive integer"),
    Row("`num_layers=0`", lambda rnn: rnn(3, 6, 0), NONE, "num_layers must be a positive integer"),
    Row("`input_size=0`", lambda rnn: rnn(0, 6), NONE, "input_size must be a positive integer"),
    Row("`batch_first=True`", of_options(batch_first=True)),
    Row(
        "`batch_first=False`",
        of_options(batch_first=False),
        refused="batch_first=False .*transpose the inputs",
        note="always batch first",
    ),
    Row("`bias=False`", of_options(bias=False), refused="bias=False .*set them to 0"),
    Row(
        "`bidirectional=True`",
        of_options(bidirectional=True),
        refused="bidirectional=True .*use a second network",
        note="time runs forward",
    ),
    Row("`dropout=`", of_options(dropout=0.5), refused=r"dropout=0\.5 .*use regularizer=", note="use `regularizer=`"),
    Row("`dtype=`", of_options(dtype=torch.float64), refused=r"dtype=.*use \.to\(dtype\)", note="use `.to(dtype)`"),
    Row(
        "`device=`",
        of_options(device="meta"),
        refused=r"device='meta' .*use \.to\(device\), or",
        note="use `.to` or `with torch.device`",
    ),
)
