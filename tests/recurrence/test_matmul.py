"""Products of bfloat16 factors, against float64 products of factors that were rounded beforehand."""

import pytest
import torch
from torch import Tensor

from noisin_pyro.models import CELLS, LanguageModel, NoisyRNN, SequenceModel
from noisin_pyro.models.emissions import Categorical
from noisin_pyro.recurrence.matmul import PackedMatrix, fast_linear, has_bfloat16, matmul, tf32, weight_gradient
from noisin_pyro.recurrence.scan import scan
from noisin_pyro.recurrence.scan_base import ScanArguments

needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="this processor has no bfloat16")


def rounded(x: Tensor) -> Tensor:
    return x.detach().bfloat16().double()


@needs_bfloat16
@pytest.mark.parametrize(("rows", "width", "classes"), [(160, 96, 700), (2, 3, 5)])
def test_value_and_gradients_equal_those_of_rounded_factors(rows: int, width: int, classes: int) -> None:
    torch.manual_seed(0)
    x, weight, bias, upstream = (
        torch.randn(4, rows, width),
        torch.randn(classes, width),
        torch.randn(classes),
        torch.randn(4, rows, classes),
    )
    for leaf in (x, weight, bias):
        leaf.requires_grad_()
    value = fast_linear(x, weight, bias, "bfloat16")
    value.backward(upstream)
    x_64, weight_64, up_64 = rounded(x), rounded(weight), rounded(upstream)
    flat = up_64.flatten(0, 1)
    assert value.dtype == torch.float32
    # each sum is rounded to bfloat16, which has 8 binary digits; the bias is added, or summed, in float32
    for result, expected in (
        (value, x_64 @ weight_64.T + bias.detach().double()),
        (x.grad, up_64 @ weight_64),
        (weight.grad, flat.T @ x_64.flatten(0, 1)),
        (bias.grad, upstream.double().flatten(0, 1).sum(0)),
    ):
        assert result is not None
        torch.testing.assert_close(result.double(), expected, rtol=2**-8, atol=0.02)
    exact = x.detach().double() @ weight.detach().double().T + bias.detach().double()
    assert (value.double() - exact).abs().max() > 2e-3  # it was rounded: the test can tell


@needs_bfloat16
@pytest.mark.parametrize(("rows", "width", "units"), [(80, 130, 260), (2, 3, 5)])  # rearranged for oneDNN, and not
def test_rounded_factor_used_in_several_products(rows: int, width: int, units: int) -> None:
    torch.manual_seed(0)
    matrix, plus = torch.randn(width, units), torch.randn(rows, units)
    factor = PackedMatrix(matrix, rows, "bfloat16")
    assert (factor.packed is not None) == (rows == 80)
    for x in torch.randn(2, rows, width):
        expected = rounded(x) @ rounded(matrix)
        torch.testing.assert_close((factor.matmul(x, plus) - plus).double(), expected, rtol=2**-8, atol=1e-5)


@needs_bfloat16
@pytest.mark.parametrize("name", CELLS)
def test_layer_agrees_with_rounded_products(name: str) -> None:
    """Rounding to 8 binary digits changes a number by at most 2^-8 of it. No state grows faster than its projections,
    but the GRU's: one of its gates multiplies z, and one a projection."""
    torch.manual_seed(0)
    cell, rows, units = CELLS[name](), 6, 16
    hh, bias = torch.randn(cell.gates * units, units), torch.randn(cell.gates * units)
    a, z = torch.randn(1, rows, cell.gates * units), torch.randn(rows, units)
    c = torch.zeros(rows, units) if cell.has_memory else None
    plus = bias if name == "gru" else None
    args = ScanArguments(a=a, weight_hh=hh, bias_hh=plus, z_0=z, c_0=c, mask=None, factor=None, shift=None)
    path, _ = scan(cell, args, "bfloat16")
    product_64 = rounded(z) @ rounded(hh).T
    r = product_64 if plus is None else product_64 + plus.double()
    expected, _ = cell.step(a[0].double(), r, z.double(), None if c is None else c.double())
    slope = 1 + z.abs() + r[:, -units:].abs() if name == "gru" else 1
    most = 2**-8 * product_64.abs().unflatten(-1, (cell.gates, units)).sum(-2) * slope
    assert ((path[0].double() - expected).abs() <= most + 1e-5).all()
    exact, _ = scan(cell, args)
    assert (path - exact).abs().max() > 1e-3  # it was rounded: the test can tell


@needs_bfloat16
@pytest.mark.parametrize("noise", ["gaussian", "gaussian:multiplicative"])
@pytest.mark.parametrize("name", CELLS)
def test_gradients_of_layers_with_rounded_products_are_close(name: str, noise: str) -> None:
    result = {}
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        rnn = NoisyRNN(12, 16, 2, name, noise, backend="scan", matmul_precision=precision)
        x = torch.randn(5, 7, 12, requires_grad=True)
        (rnn(x)[0] * torch.randn(5, 7, 16)).sum().backward()
        result[precision] = {"x": x.grad, **{key: parameter.grad for key, parameter in rnn.named_parameters()}}
    for key, exact in result["float32"].items():
        near = result["bfloat16"][key]
        assert exact is not None and near is not None
        within = 2**-2 if name == "relu" else 2**-5  # a relu unit close to 0 changes sides
        assert 0 < (near - exact).norm() < within * exact.norm()


@needs_bfloat16
def test_model_passes_its_precision_to_layers_and_emission() -> None:
    for model in (
        LanguageModel(20, 4, matmul_precision="bfloat16"),
        SequenceModel(NoisyRNN(3, 4, matmul_precision="bfloat16"), "bernoulli", 3),
    ):
        assert model.rnn.matmul_precision == model.emission.matmul_precision == "bfloat16"


@needs_bfloat16
def test_other_products_are_not_rounded() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(160, 96), torch.randn(96, 700)
    before = a @ b
    fast_linear(a, b.T.contiguous(), torch.zeros(700), "bfloat16")
    assert torch.equal(a @ b, before)


@needs_bfloat16
def test_a_language_model_scores_nearly_the_same() -> None:
    torch.manual_seed(0)
    model = LanguageModel(1000, 64, spread=0.0, matmul_precision="bfloat16")
    tokens = torch.randint(1000, (20, 35))
    with torch.no_grad():
        rounded_log_prob = model(tokens, tokens).emission.log_prob(tokens)
        model.emission.matmul_precision = "float32"
        log_prob = model(tokens, tokens).emission.log_prob(tokens)
    difference = (rounded_log_prob - log_prob).abs()
    assert 0 < difference.max() < 0.01


@needs_bfloat16
def test_other_types_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"matmul_precision='bfloat16' needs one matrix of float32 weights, got torch.float64"
    ):
        Categorical(4, 5, "bfloat16").double()(torch.zeros(1, 1, 4).double())
    with pytest.raises(
        ValueError, match=r"matmul_precision='bfloat16' needs one matrix of float32 weights, got torch.float64"
    ):
        NoisyRNN(4, 5, matmul_precision="bfloat16").double()(torch.zeros(1, 1, 4).double())


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="matmul_precision must be one of float32, bfloat16, got 'float16'"):
        Categorical(4, 5, "float16")
    with pytest.raises(ValueError, match="matmul_precision must be one of float32, bfloat16, got 'float16'"):
        NoisyRNN(4, 5, matmul_precision="float16")


def test_processors_without_bfloat16_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False, raising=False)
    for made in (lambda: Categorical(4, 5, "bfloat16"), lambda: NoisyRNN(4, 5, matmul_precision="bfloat16")):
        with pytest.raises(ValueError, match="needs a CPU with AVX-512 or AMX, or a GPU"):
            made()


def test_tf32_setting_is_restored() -> None:
    def now() -> list[object]:
        return [torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.rnn.fp32_precision]

    before = now()
    with tf32(False):
        assert now() == before
    with tf32(True):
        assert now() == ["tf32", "tf32"]
    assert now() == before


@pytest.mark.parametrize("min_size", [0, 2**40])  # all products by oneDNN, and none
def test_packed_factors_give_the_same_products(min_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noisin_pyro.recurrence.matmul.MIN_ONEDNN_SIZE", min_size)
    torch.manual_seed(0)
    assert (PackedMatrix(torch.ones(3, 2), 4).packed is None) == (min_size > 0)
    for dtype, within in ((torch.float32, 1e-5), (torch.float64, 1e-14)):
        x, matrix, plus = (torch.randn(*shape, dtype=dtype) for shape in ((7, 13), (13, 31), (7, 31)))
        expected = x.double() @ matrix.double()
        for result in (
            PackedMatrix(matrix, 7).matmul(x, plus) - plus,
            matmul(x, matrix),
            weight_gradient(x.mT, matrix),
        ):
            torch.testing.assert_close(result.double(), expected, rtol=0, atol=10 * within)
        wide = weight_gradient(matrix, x.mT.contiguous())  # the other way round
        torch.testing.assert_close(wide.double(), matrix.double().mT @ x.double().mT, rtol=0, atol=10 * within)


def test_first_and_second_gradients_of_fast_products() -> None:
    torch.manual_seed(0)
    given = [torch.randn(*shape).double().requires_grad_() for shape in ((2, 3, 4), (5, 4), (5,))]
    assert torch.autograd.gradcheck(fast_linear, given)
    assert torch.autograd.gradgradcheck(fast_linear, given)


def test_private_operators_exist_in_tested_versions_of_torch() -> None:
    """Versions 2.11 to 2.13. Without them every product uses the BLAS, and autograd computes the gradients."""
    assert all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))
    assert hasattr(torch._C, "_are_functorch_transforms_active") and hasattr(torch._C, "_get_mkldnn_enabled")
    assert all(callable(getattr(torch, cell.fused_kernel.name)) for cell in CELLS.values() if cell.fused_kernel)


def test_products_use_blas_without_onednn_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noisin_pyro.recurrence.matmul._HAS_ONEDNN", False)
    matrix = torch.randn(512, 512)
    packed, x = PackedMatrix(matrix, 512), torch.randn(512, 512)
    assert packed.packed is None
    assert torch.equal(packed.matmul(x), x @ matrix) and torch.equal(matmul(x, matrix), x @ matrix)
