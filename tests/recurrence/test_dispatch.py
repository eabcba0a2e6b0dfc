"""The choice of a backend, and the results of each."""

import pytest
import torch
from pyro import poutine
from torch import nn
from torch.nn import functional as F

import noisin_pyro as nz
from noisin_pyro import NoisyRNN
from noisin_pyro.models import CELLS
from noisin_pyro.noise import Family, get
from noisin_pyro.recurrence.cells import Tanh
from noisin_pyro.recurrence.dispatch import BACKENDS, LSTM_SCAN_MIN_NUMEL, choose_backend
from noisin_pyro.training.run import program_settings

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "noise", "device", "numel", "expected"),
    [
        ("tanh", "gaussian", CPU, 100, "scan"),
        ("tanh", None, CPU, 100, "scan"),
        ("tanh", "gaussian", GPU, 100, "fused"),
        ("tanh", "gaussian:multiplicative", GPU, 100, "scan"),
        ("identity", "gaussian", GPU, 100, "scan"),
        ("gru", "gaussian", CPU, 100, "scan"),
        ("gru", None, GPU, 100, "fused"),
        ("lstm", None, CPU, 10 * LSTM_SCAN_MIN_NUMEL, "fused"),
        ("lstm", "gaussian", CPU, LSTM_SCAN_MIN_NUMEL - 1, "fused"),
        ("lstm", "gaussian", CPU, LSTM_SCAN_MIN_NUMEL, "scan"),
        ("lstm", "gaussian:multiplicative", CPU, 100, "scan"),
    ],
)
def test_auto_selects_the_fastest_backend(
    name: str, noise: str | None, device: torch.device, numel: int, expected: str
) -> None:
    family = None if noise is None else get(noise)
    assert choose_backend("auto", CELLS[name](), family, True, device, numel) == expected
    assert choose_backend("auto", CELLS[name](), family, False, device, numel) == "loop"  # weights that are sampled
    rounding = choose_backend("auto", CELLS[name](), family, True, device, numel, "bfloat16")
    assert rounding == ("scan" if device == CPU else expected)  # which alone rounds; on a GPU kernels are faster


def test_custom_scales_and_cells_use_the_loop() -> None:
    class Halved(type(get("gaussian"))):
        def scale(self, mean: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
            return 0.5 * spread

    class Own(Tanh):
        def step(
            self, a: torch.Tensor, p: torch.Tensor, z: torch.Tensor, c: torch.Tensor | None
        ) -> tuple[torch.Tensor, None]:
            return torch.tanh(a - p), None

    family: Family = object.__new__(Halved)
    family.__dict__.update(get("gaussian").__dict__)
    assert choose_backend("auto", CELLS["identity"](), family, True, CPU, 100) == "loop"
    assert choose_backend("auto", Own(), get("gaussian"), True, CPU, 100) == "loop"


@pytest.mark.parametrize(("cell", "noise"), [("gru", "gaussian"), ("tanh", "gaussian:multiplicative")])
def test_unsupported_backends_are_refused(cell: str, noise: str) -> None:
    rnn = nz.NoisyRNN(3, 4, cell=cell, noise=noise, backend="fused")
    with pytest.raises(ValueError, match=r"backend='fused' cannot run .* only scan, loop"):
        rnn(torch.randn(2, 5, 3))
    with pytest.raises(ValueError, match="backend must be one of auto, fused, scan, loop, got 'fast'"):
        nz.NoisyRNN(3, 4, backend="fast")


class Plain(nn.Module):
    """The same network in plain PyTorch."""

    def __init__(self, kind: str, words: int, units: int, num_layers: int) -> None:
        super().__init__()
        layers = {"tanh": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[kind]
        self.embedding, self.linear = nn.Embedding(words, units), nn.Linear(units, words)
        self.rnn = layers(units, units, num_layers, batch_first=True)

    def forward(self, x: torch.Tensor, y: torch.Tensor, state):
        z, state = self.rnn(self.embedding(x), state)
        return F.cross_entropy(self.linear(z).flatten(0, 1), y.flatten(), reduction="sum"), state


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["tanh", "lstm", "gru"])
def test_twenty_steps_without_noise_give_the_parameters_of_torch(kind: str, backend: str) -> None:
    torch.manual_seed(0)
    plain = Plain(kind, 13, 6, 2).double()
    with program_settings():
        model = nz.LanguageModel(13, 6, 2, cell=kind, spread=0.0, backend=backend).double()
        model.rnn.load_state_dict(plain.rnn.state_dict())
        model.embedding.load_state_dict(plain.embedding.state_dict())
        model.emission.linear.load_state_dict(plain.linear.state_dict())
        bound = nz.PriorAsGuide_ELBO(max_plate_nesting=1)(model)
        optimizers = [torch.optim.Adam(module.parameters(), 0.01, fused=True) for module in (plain, bound)]
        ours = theirs = None
        for _ in range(20):
            words = torch.randint(13, (4, 8))
            x, y = words[:, :-1], words[:, 1:]
            loss, theirs = plain(x, y, theirs)
            theirs = tuple(part.detach() for part in theirs) if kind == "lstm" else theirs.detach()
            losses = [loss, bound(x, y, state=ours)]
            ours = bound.returned.state
            for loss, optimizer in zip(losses, optimizers, strict=True):
                optimizer.zero_grad()
                (loss / y.numel()).backward()
                optimizer.step()
    result = dict(model.named_parameters())
    for name, expected in plain.named_parameters():
        torch.testing.assert_close(result[name.replace("linear", "emission.linear")], expected, rtol=0, atol=1e-10)


def test_a_network_reports_its_backends() -> None:
    rnn = nz.NoisyRNN(3, 4, 2, noise="gaussian", spread=[0.0, 0.3])
    assert rnn.backends(20) == ["scan", "scan"]
    assert nz.NoisyRNN(3, 4, cell="lstm").backends(20) == ["fused"]
    assert nz.NoisyRNN(3, 4, cell="lstm", backend="loop").backends(20) == ["loop"]
    random = nz.SequenceModel(nz.NoisyRNN(3, 4), "bernoulli", 3, weight_prior="normal")
    assert random.rnn.backends(20) == ["loop"]


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_autocast_and_transforms_use_operations_of_torch(cell: str) -> None:
    torch.manual_seed(0)
    with program_settings():
        model = nz.LanguageModel(13, 6, cell=cell, noise="gaussian:multiplicative")
        words = torch.randint(13, (4, 8))
        bound = nz.PriorAsGuide_ELBO(max_plate_nesting=1)(model)
        with torch.autocast("cpu", torch.bfloat16):
            bound(words[:, :-1], words[:, 1:]).backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    rnn, x = nz.NoisyRNN(3, 4, cell=cell, spread=0.0).double(), torch.randn(2, 5, 3).double()
    expected = torch.autograd.functional.jacobian(lambda x: rnn(x)[0].sum(), x)
    torch.testing.assert_close(torch.func.jacrev(lambda x: rnn(x)[0].sum())(x), expected)


@pytest.mark.parametrize("backend", ["scan", "fused", "loop"])
def test_outputs_of_a_layer_may_be_modified_in_place(backend: str) -> None:
    rnn = nz.NoisyRNN(3, 4, backend=backend)
    z, _ = rnn(torch.randn(2, 5, 3))
    torch.relu_(z).sum().backward()
    assert rnn.weight_hh_l0.grad is not None and rnn.weight_hh_l0.grad.isfinite().all()


@pytest.mark.parametrize("noise", ["gaussian", "gaussian:multiplicative", "gamma:multiplicative", "categorical"])
@pytest.mark.parametrize("cell", ["tanh", "relu", "sigmoid", "lstm", "gru"])
def test_strongly_unbiased_noise_keeps_the_fused_kernel_and_the_clean_state(cell: str, noise: str) -> None:
    torch.manual_seed(0)
    rnn = nz.NoisyRNN(3, 4, 2, cell, noise, spread=0.3, feedback=False, backend="fused").double()
    assert rnn.backends(20) == ["fused", "fused"]
    x = torch.randn(2, 5, 3).double()
    z, state = rnn(x)
    clean, end = nz.noise_off(rnn)(x)
    assert not torch.equal(z, clean)
    for result, expected in zip(state if cell == "lstm" else (state,), end if cell == "lstm" else (end,), strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=0)


@pytest.mark.parametrize("noise", ["bernoulli", "poisson", "exponential"])
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_draws_within_autocast_are_in_the_support_of_their_density(noise: str, cell: str) -> None:
    rnn, x = NoisyRNN(16, 32, cell=cell, noise=noise, spread=0.3), torch.randn(8, 5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        trace = poutine.trace(rnn).get_trace(x)
        trace.compute_log_prob()
    assert trace.nodes["z_1"]["log_prob"].isfinite().all()
