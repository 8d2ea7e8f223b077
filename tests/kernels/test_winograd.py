"""Winograd's convolution: torch's own in double precision, about as exact as torch's in single precision."""

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

from nenya.kernels import use_fast_convolutions, winograd
from nenya.models.resnet_big import SupConResNet

LAYOUTS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}
BF16 = torch.autocast("cpu", dtype=torch.bfloat16)

NEWER = pytest.mark.skipif(
    not hasattr(torch.compiler, "is_exporting"), reason="torch 2.6 compiles torch.func.grad of no convolution"
)


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
    ],
)
def test_it_is_the_convolution_and_its_gradients(shape, outputs, layout, monkeypatch):
    monkeypatch.setattr(winograd, "_PIECE", 0)  # one row of tiles at a time
    x = torch.randn(shape, dtype=torch.float64).to(memory_format=layout)
    weight = torch.randn(outputs, shape[1], 3, 3, dtype=torch.float64).to(memory_format=layout)
    gradient = torch.randn(shape[0], outputs, *shape[2:], dtype=torch.float64).to(memory_format=layout)
    for found, expected in zip(by_winograd(x, weight, gradient), by_torch(x, weight, gradient), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
        assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("shape", "num_pieces"),
    [
        ((300, 2, 4, 5), 50),
        ((2, 2, 44, 13), 8),
    ],  # six images; parts of an image: three rows of four tiles, and the rest
)
def test_it_is_computed_in_pieces(shape, num_pieces, monkeypatch):
    monkeypatch.setattr(winograd, "_PIECE", 2 * 12)
    pieces, cut = [], winograd._cut

    def noted(x, images, bands, side):
        pieces.append((images.start, bands.start))
        return cut(x, images, bands, side)

    monkeypatch.setattr(winograd, "_cut", noted)
    x, weight = torch.randn(shape, dtype=torch.float64), torch.randn(2, 2, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(winograd.convolution(x, weight), F.conv2d(x, weight, padding=1), rtol=0, atol=1e-11)
    assert len(pieces) == len(set(pieces)) == num_pieces


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


def wide(kernel_size=3, outputs=128, **geometry):
    layer = nn.Conv2d(128, outputs, kernel_size, padding=kernel_size // 2, bias=False, **geometry)
    use_fast_convolutions(layer)
    return layer.to(memory_format=torch.channels_last)


def images(batch=8, side=8, channels=128):
    return torch.randn(batch, channels, side, side).to(memory_format=torch.channels_last)


def test_the_layer_takes_it_where_it_pays(taken):
    x = images()
    wide()(x)
    wide(outputs=192)(x)
    with torch.no_grad():
        wide()(x)
    assert taken == [(8, 128, 8, 8)] * 3


def test_the_layer_is_torchs_elsewhere(taken):
    layer, x = wide(), images()
    wide(stride=2)(x)
    wide(kernel_size=1)(x)
    wide(outputs=127)(x)  # too few channels
    layer(images(batch=7))  # 28 tiles
    layer(images(side=10))  # 0.69 of the tiles
    layer(x.contiguous())
    layer(images(batch=1, side=32)[0])  # without a batch
    wide().to(memory_format=torch.contiguous_format)(x)
    copy.deepcopy(layer).double()(x.double())
    with BF16:
        layer(x)
    copy.deepcopy(layer).bfloat16()(x.bfloat16())
    assert taken == []


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("padding_mode", "circular"), ("dilation", (2, 2)), ("padding", (0, 0)), ("stride", (2, 1))],
)
def test_a_layer_that_was_changed_later_is_torchs(attribute, value, taken):
    layer = wide()
    setattr(layer, attribute, value)
    layer._reversed_padding_repeated_twice = [1, 1, 1, 1]  # what torch pads a circle by
    layer(images())
    assert taken == []


def test_a_bias_that_a_tool_has_put_in_is_added():
    norm = nn.BatchNorm2d(128)
    nn.init.constant_(norm.bias, 5.0)
    fused = fuse_conv_bn_eval(wide().eval(), norm.eval())
    assert float(fused(images()).detach().mean()) == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize("channels", [64, 36 * 128])
def test_wrong_channels_fail_as_torchs_do(channels, taken):
    with pytest.raises(RuntimeError, match=f"to have 128 channels, but got {channels} channels"):
        wide()(images(channels=channels))
    assert taken == []


def test_mixed_types_fail_as_torchs_do(taken):
    with pytest.raises(RuntimeError, match="type"):
        wide().double()(images())
    assert taken == []


@pytest.mark.parametrize("frozen", [False, True])
def test_a_backward_under_autocast_stays_in_single_precision(frozen):
    layer, x = wide().requires_grad_(not frozen), images().requires_grad_()
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    loss = layer(x).square().sum()
    with BF16:
        loss.backward()
    torch.testing.assert_close(x.grad, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("side", [7, 8])
def test_what_follows_may_change_the_output_in_place(side):
    x = images(side=side)
    outputs = nn.Sequential(wide(), nn.ReLU(inplace=True))(x)
    outputs.sum().backward()
    assert float(outputs.detach().min()) == 0


def func_gradient(layer, x):
    return torch.func.grad(lambda images: layer(images).square().sum())(x)


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # torch's, of its own scripts
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=NEWER)])
def test_torch_func_is_torchs(compiled):
    def prepared(function):
        return torch.compile(function, backend="aot_eager") if compiled else function

    layer, x = wide(), images()
    plain = functools.partial(F.conv2d, weight=layer.weight, padding=1)
    along = torch.randn_like(x)
    found = prepared(lambda x, along: torch.func.jvp(layer, (x,), (along,))[1])(x, along)
    torch.testing.assert_close(found, plain(along))  # linear in x
    found = prepared(functools.partial(func_gradient, layer))(x)
    torch.testing.assert_close(found, func_gradient(plain, x), rtol=1e-4, atol=1e-4)
    stack = torch.stack([x, along])
    torch.testing.assert_close(prepared(torch.func.vmap(layer))(stack), torch.stack([plain(x), plain(along)]))


def test_layers_can_be_stacked():
    layer, x = wide(), images()
    weights = torch.stack([layer.weight, 2 * layer.weight]).detach()
    found = torch.func.vmap(lambda weight: torch.func.functional_call(layer, {"weight": weight}, x))(weights)
    torch.testing.assert_close(found[1], 2 * F.conv2d(x, layer.weight.detach(), padding=1))


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
@pytest.mark.parametrize("frozen", [False, True])
def test_forward_mode_is_torchs(frozen):
    layer, x = wide().requires_grad_(not frozen), images()
    along = torch.randn_like(x)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, along))).tangent
    torch.testing.assert_close(found, F.conv2d(along, layer.weight, padding=1))


def test_a_layer_is_traced_by_fx():
    layer, x = wide(), images()
    with torch.no_grad():
        traced = torch.fx.symbolic_trace(nn.Sequential(layer))
        torch.testing.assert_close(traced(x), layer(x))


def test_operations_are_counted_as_torchs_are(taken):
    counts = []
    for layer in (wide(), nn.Conv2d(128, 128, 3, padding=1, bias=False)):
        with FlopCounterMode(display=False) as counter:
            layer(images().requires_grad_()).sum().backward()
        counts.append(counter.get_total_flops())
    assert taken
    assert counts[0] == counts[1] == 3 * 2 * 8 * 64 * 128 * 128 * 9


def test_the_layer_compiles_into_one_graph_with_the_same_gradient():
    layer, x = wide(), images()
    gradients = []
    for function in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        layer.weight.grad = None
        function(x).sum().backward()
        gradients.append(layer.weight.grad)
    exact = hasattr(torch.compiler, "is_exporting")  # before it, compiled layers are torch's own
    torch.testing.assert_close(*gradients, rtol=0 if exact else 1e-4, atol=0 if exact else 1e-4)


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # torch's, of its tracing
def test_an_exported_layer_runs_without_this_package():
    layer, x = wide().eval(), images()
    assert "nenya::winograd" not in str(torch.jit.trace(layer, x).graph)
    assert "nenya.winograd" not in str(torch.export.export(layer, (x,)).graph)


def test_the_gradients_of_a_network_are_as_exact_as_with_torchs(monkeypatch):
    monkeypatch.setattr(F, "relu_", F.silu)  # without a kink that rounding could cross
    network = SupConResNet("resnet18", head="linear").to(memory_format=torch.channels_last)
    use_fast_convolutions(network)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eval()  # the statistics of few cutouts amplify rounding
    cutouts, towards = torch.randn(32, 1, 16, 16), torch.randn(32, 128)

    def gradient(model, dtype):
        model.zero_grad()
        F.mse_loss(model(cutouts.to(dtype)), towards.to(dtype)).backward()
        return torch.cat([weights.grad.flatten().double() for weights in model.parameters()])

    truth = gradient(copy.deepcopy(network).double(), torch.float64)
    ours = gradient(network, torch.float32)
    monkeypatch.setattr(winograd, "pays", lambda *_: False)
    theirs = gradient(network, torch.float32)
    assert not torch.equal(ours, theirs)
    for found in (ours, theirs):
        assert float((found - truth).norm() / truth.norm()) < 3e-6
