"""Winograd's convolution: torch's own in double precision, about as exact as torch's in single precision."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nenya.models import winograd
from nenya.models.convolution import Conv2d
from nenya.models.resnet_big import SupConResNet

LAYOUTS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}
BF16 = torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def taken(monkeypatch):
    """Shapes of the images that Winograd's algorithm was taken for."""
    shapes = []
    compute = winograd.convolution

    def noted(x, weight):
        shapes.append(tuple(x.shape))
        return compute(x, weight)

    monkeypatch.setattr(winograd, "convolution", noted)
    return shapes


def by_torch(x, weight, gradient):
    """The convolution and its gradients with respect to images and kernels, by torch."""
    x, weight = (tensor.detach().clone().requires_grad_() for tensor in (x, weight))
    outputs = F.conv2d(x, weight, padding=1)
    return outputs.detach(), *torch.autograd.grad(outputs, (x, weight), gradient)


def by_winograd(x, weight, gradient):
    return (
        winograd.convolution(x, weight),
        winograd.image_gradient(gradient, weight),
        winograd.weight_gradient(x, gradient),
    )


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(
    ("shape", "outputs"),
    [
        ((2, 3, 8, 8), 5),
        ((3, 4, 7, 5), 2),  # tiles that reach beyond the image
        ((1, 1, 1, 1), 1),
        ((2, 2, 3, 13), 3),
        ((0, 2, 4, 4), 3),
        ((300, 2, 4, 5), 3),  # more images than are transformed at a time
        ((2, 2, 210, 130), 3),  # larger images than that
    ],
)
def test_it_is_the_convolution_and_its_gradients(shape, outputs, layout, monkeypatch):
    monkeypatch.setattr(winograd, "_PIECE", 0)  # as few tiles at a time as there may be
    x = torch.randn(shape, dtype=torch.float64).to(memory_format=layout)
    weight = torch.randn(outputs, shape[1], 3, 3, dtype=torch.float64).to(memory_format=layout)
    gradient = torch.randn(shape[0], outputs, *shape[2:], dtype=torch.float64).to(memory_format=layout)
    for found, expected in zip(by_winograd(x, weight, gradient), by_torch(x, weight, gradient), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_part_of_a_tensor_is_taken_from_where_it_lies():
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64).to(memory_format=torch.channels_last)[1:3]
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(winograd.convolution(x, weight), F.conv2d(x, weight, padding=1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [128, 512])
def test_in_single_precision_it_loses_little_more_than_torch(channels):
    x, gradient = torch.randn(2, 4, channels, 8, 8).relu()
    weight = torch.randn(channels, channels, 3, 3) / 50
    truth = by_torch(x.double(), weight.double(), gradient.double())
    errors = {
        way.__name__: [
            float((found - expected).norm() / expected.norm())
            for found, expected in zip(way(x, weight, gradient), truth, strict=True)
        ]
        for way in (by_torch, by_winograd)
    }
    assert max(errors["by_winograd"]) < 2e-6
    assert all(ours < 8 * theirs for ours, theirs in zip(errors["by_winograd"], errors["by_torch"], strict=True))


def test_it_can_be_differentiated_twice():
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(winograd.convolution, (x, weight))
    assert torch.autograd.gradgradcheck(winograd.convolution, (x, weight))
    torch.library.opcheck(winograd.convolution, (x, weight))
    torch.library.opcheck(winograd.weight_gradient, (x, gradient))


def test_what_inference_has_prepared_serves_training():
    x, weight = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 3, 3, requires_grad=True)
    winograd._transforms.cache_clear()
    with torch.inference_mode():
        winograd.convolution(x, weight)
    winograd.convolution(x, weight).sum().backward()
    assert weight.grad is not None


def test_the_layer_takes_it_where_it_pays(taken):
    layer = Conv2d(128, 128, 3, padding=1)
    enough, few, far_beyond = (torch.randn(shape) for shape in ((8, 128, 8, 8), (7, 128, 8, 8), (8, 128, 5, 5)))
    for x in (enough, few, far_beyond):
        layer(x)
    Conv2d(128, 128, 3, stride=2, padding=1)(enough)
    Conv2d(128, 128, 1)(enough)
    Conv2d(128, 64, 3, padding=1)(enough)
    copy.deepcopy(layer).double()(enough.double())
    with BF16:
        layer(enough)
    copy.deepcopy(layer).bfloat16()(enough.bfloat16())
    assert taken == [(8, 128, 8, 8)]
    with torch.no_grad():
        layer(enough)
    assert taken == [(8, 128, 8, 8)] * 2


def test_a_layer_of_mixed_types_fails_as_torchs_does(taken):
    x = torch.randn(8, 128, 8, 8)
    with pytest.raises(RuntimeError):
        Conv2d(128, 128, 3, padding=1).double()(x)
    assert taken == []


def test_the_layer_compiles_into_one_graph_with_the_same_gradient():
    layer = Conv2d(128, 128, 3, padding=1)
    x = torch.randn(8, 128, 8, 8)
    gradients = []
    for function in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        layer.weight.grad = None
        function(x).sum().backward()
        gradients.append(layer.weight.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # torch's, of its tracing
def test_an_exported_layer_runs_without_this_package():
    layer, x = Conv2d(128, 128, 3, padding=1).eval(), torch.randn(8, 128, 8, 8)
    assert "nenya::winograd" not in str(torch.jit.trace(layer, x).graph)
    assert "nenya.winograd" not in str(torch.export.export(layer, (x,)).graph)


def test_the_gradients_of_a_network_are_as_exact_as_with_torchs(monkeypatch):
    monkeypatch.setattr(F, "relu_", F.silu)  # without a kink that rounding could cross
    network = SupConResNet("resnet18", head="linear").to(memory_format=torch.channels_last)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eval()  # the statistics of few cutouts amplify rounding
    images, towards = torch.randn(32, 1, 16, 16), torch.randn(32, 128)

    def gradient(model, dtype):
        model.zero_grad()
        F.mse_loss(model(images.to(dtype)), towards.to(dtype)).backward()
        return torch.cat([weights.grad.flatten().double() for weights in model.parameters()])

    truth = gradient(copy.deepcopy(network).double(), torch.float64)
    ours = gradient(network, torch.float32)
    monkeypatch.setattr(winograd, "pays", lambda *_: False)
    theirs = gradient(network, torch.float32)
    assert not torch.equal(ours, theirs)
    for found in (ours, theirs):
        assert float((found - truth).norm() / truth.norm()) < 3e-6
