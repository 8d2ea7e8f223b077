"""The convolution: torch's own values, and a weight gradient that is a matrix product on small maps in bfloat16."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nenya.kernels import FastConv2d, convolution, use_fast_convolutions
from nenya.kernels.convolution import weight_gradient
from nenya.models.resnet_big import SupConResNet

LAYOUTS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}
BF16 = torch.autocast("cpu", dtype=torch.bfloat16)


def fast(*sizes, **geometry):
    """A convolution of torch's that has been made fast."""
    layer = nn.Conv2d(*sizes, bias=False, **geometry)
    use_fast_convolutions(layer)
    assert type(layer) is FastConv2d
    return layer


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def products(monkeypatch):
    """Shapes of the inputs whose weight gradient was taken as a product."""
    shapes = []

    def noted(x, *arguments):
        shapes.append(tuple(x.shape))
        return weight_gradient(x, *arguments)

    monkeypatch.setattr(convolution, "weight_gradient", noted)
    return shapes


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(
    ("shape", "outputs", "size", "stride", "padding"),
    [
        ((2, 3, 8, 8), 5, 3, 1, 1),
        ((2, 3, 8, 8), 5, 3, 2, 1),
        ((3, 4, 7, 5), 2, 3, 2, 1),  # odd sides: the last row and column of pixels are not reached
        ((2, 4, 6, 9), 3, 1, 1, 0),
        ((2, 4, 6, 9), 3, 1, 2, 0),
        ((1, 1, 1, 1), 1, 3, 1, 1),
        ((2, 2, 9, 9), 3, 5, 3, 2),
        ((0, 2, 4, 4), 3, 3, 1, 1),
    ],
)
def test_the_product_is_the_gradient(shape, outputs, size, stride, padding, layout):
    x = torch.randn(shape, dtype=torch.float64).to(memory_format=layout)
    weight = torch.randn(outputs, shape[1], size, size, dtype=torch.float64, requires_grad=True)
    output = F.conv2d(x, weight, stride=stride, padding=padding)
    gradient = torch.randn_like(output).to(memory_format=layout)
    (expected,) = torch.autograd.grad(output, weight, gradient)
    found = weight_gradient(x, gradient, size, stride, padding)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("side", "stride", "size"), [(8, 1, 3), (16, 2, 3), (4, 1, 3), (8, 1, 1), (16, 2, 1)])
def test_on_small_maps_in_bf16_it_is_no_further_from_the_truth_than_torchs(products, side, stride, size):
    ours = fast(24, 16, size, stride, padding=size // 2).to(memory_format=torch.channels_last)
    theirs = nn.Conv2d(24, 16, size, stride, size // 2, bias=False).to(memory_format=torch.channels_last)
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(6, 24, side, side).to(memory_format=torch.channels_last)
    results = {}
    for name, layer in (("ours", ours), ("theirs", theirs)):
        x = image.clone().requires_grad_()
        with BF16:
            output = layer(x)
        torch.manual_seed(1)
        output.backward(torch.randn(output.shape).bfloat16())
        assert x.grad.dtype == layer.weight.grad.dtype == torch.float32
        results[name] = output.detach(), x.grad, layer.weight.grad
    assert len(products) == 1
    torch.testing.assert_close(results["ours"][:2], results["theirs"][:2], rtol=0, atol=0)

    rounded = image.bfloat16().double(), ours.weight.detach().bfloat16().double().requires_grad_()
    output = F.conv2d(*rounded, stride=stride, padding=size // 2)
    torch.manual_seed(1)
    (truth,) = torch.autograd.grad(output, rounded[1], torch.randn(output.shape).bfloat16().double())
    errors = {name: float((result[2] - truth).norm() / truth.norm()) for name, result in results.items()}
    assert errors["ours"] <= 1.2 * errors["theirs"]
    assert errors["ours"] < 2**-8  # one rounding to bfloat16


def test_it_is_torchs_own_elsewhere(products):
    small, large = torch.randn(2, 8, 8, 8), torch.randn(2, 8, 9, 8)
    layer = fast(8, 4, 3, padding=1)
    layer(small).sum().backward()  # float32
    with BF16:
        layer(large).sum().backward()
    assert products == []
    with BF16:
        layer(small).sum().backward()
    assert products == [(2, 8, 8, 8)]
    layer.bfloat16()(small.bfloat16()).sum().backward()  # without autocast
    assert products == [(2, 8, 8, 8)] * 2
    with BF16:  # autocast leaves double precision alone
        assert layer.double()(small.double()).dtype == torch.float64


def test_a_bias_that_a_tool_has_put_in_is_added():
    norm = nn.BatchNorm2d(4)
    nn.init.constant_(norm.bias, 5.0)
    fused = fuse_conv_bn_eval(fast(8, 4, 3, padding=1).eval(), norm.eval())
    with BF16:
        assert float(fused(torch.randn(64, 8, 8, 8)).detach().mean()) == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize("shape", [(8, 4, 4), (2, 8, 4, 4)])
def test_it_takes_what_torchs_takes(shape):
    with BF16:
        assert fast(8, 4, 3, padding=1)(torch.randn(shape)).shape == (*shape[:-3], 4, 4, 4)


@pytest.mark.parametrize("weights", LAYOUTS.values(), ids=LAYOUTS)
def test_the_gradient_of_the_images_keeps_their_layout(products, weights):
    x = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    layer = fast(8, 4, 3, padding=1).to(memory_format=weights)
    with BF16:
        layer(x).sum().backward()
    assert len(products) == 1
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_it_compiles_into_one_graph_with_the_same_gradient():
    layer = fast(8, 4, 3, padding=1)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 8, 4, 4)
    gradients = []
    for function in (layer, compiled):
        layer.weight.grad = None
        with BF16:
            function(x).sum().backward()
        gradients.append(layer.weight.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_nothing_is_computed_for_what_needs_no_gradient(products):
    layer = fast(8, 4, 3, padding=1).requires_grad_(False)
    x = torch.randn(2, 8, 4, 4, requires_grad=True)
    with BF16:
        layer(x).sum().backward()
        with torch.no_grad():
            assert layer(x).dtype == torch.bfloat16
    assert products == []
    assert x.grad is not None


def test_the_network_uses_it_and_its_gradient_stays(products, narrow):
    torch.manual_seed(0)
    model = SupConResNet("resnet18").to(memory_format=torch.channels_last)
    use_fast_convolutions(model)
    other = copy.deepcopy(model)
    images, target = torch.randn(8, 1, 32, 32), torch.randn(8, 128)
    with BF16:
        (model(images) * target).sum().backward()
    assert len(products) == 10  # the last two stages: eight 3x3 and two 1x1 convolutions
    with BF16, pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "MAX_POSITIONS", 0)
        (other(images) * target).sum().backward()
    assert len(products) == 10
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert (ours.grad - theirs.grad).norm() <= 0.03 * theirs.grad.norm(), name


def test_one_call_changes_the_convolutions_of_a_model_and_nothing_else(narrow):
    model, plain = SupConResNet("resnet50"), SupConResNet("resnet50")
    plain.load_state_dict(model.state_dict())
    assert all(type(layer) is nn.Conv2d for layer in plain.modules() if isinstance(layer, nn.Conv2d))
    parameters, random_state = list(model.named_parameters()), torch.get_rng_state()
    use_fast_convolutions(model)
    use_fast_convolutions(model)  # twice is as good as once
    assert all(type(layer) is FastConv2d for layer in model.modules() if isinstance(layer, nn.Conv2d))
    assert all(a is b for (_, a), (_, b) in zip(parameters, model.named_parameters(), strict=True))
    assert list(model.state_dict()) == list(plain.state_dict())
    assert torch.equal(random_state, torch.get_rng_state())
    images = torch.randn(4, 1, 16, 16)
    torch.testing.assert_close(model.eval()(images), plain.eval()(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 8, 3, padding=1),  # with a bias
        nn.Conv2d(8, 8, 3, groups=2, bias=False),
        nn.Conv2d(8, 8, 3, dilation=2, bias=False),
        nn.Conv2d(8, 8, (3, 1), bias=False),
        nn.Conv2d(8, 8, 3, stride=(1, 2), bias=False),
        nn.Conv2d(8, 8, 3, padding="same", bias=False),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular", bias=False),
        nn.ConvTranspose2d(8, 8, 3, bias=False),
    ],
)
def test_layers_of_another_kind_stay_torchs_own(layer):
    kind = type(layer)
    use_fast_convolutions(layer)
    assert type(layer) is kind
