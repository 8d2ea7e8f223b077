"""The encoder and its head: names, shapes, counts, channels, errors."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nenya.errors import DataError, OptionError
from nenya.models import assemble_model, build_model
from nenya.models.resnet_big import BACKBONES, BasicBlock, Bottleneck, SupConResNet

DEPTHS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
ENCODER_DIMS = {"resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048, "resnet152": 2048}

# Every name and shape that is not a batch normalisation's, as historical files have them.
RESNET18_SHAPES = {
    "encoder.conv1.weight": (64, 3, 3, 3),
    "encoder.layer1.0.conv1.weight": (64, 64, 3, 3),
    "encoder.layer1.0.conv2.weight": (64, 64, 3, 3),
    "encoder.layer1.1.conv1.weight": (64, 64, 3, 3),
    "encoder.layer1.1.conv2.weight": (64, 64, 3, 3),
    "encoder.layer2.0.conv1.weight": (128, 64, 3, 3),
    "encoder.layer2.0.conv2.weight": (128, 128, 3, 3),
    "encoder.layer2.0.shortcut.0.weight": (128, 64, 1, 1),
    "encoder.layer2.1.conv1.weight": (128, 128, 3, 3),
    "encoder.layer2.1.conv2.weight": (128, 128, 3, 3),
    "encoder.layer3.0.conv1.weight": (256, 128, 3, 3),
    "encoder.layer3.0.conv2.weight": (256, 256, 3, 3),
    "encoder.layer3.0.shortcut.0.weight": (256, 128, 1, 1),
    "encoder.layer3.1.conv1.weight": (256, 256, 3, 3),
    "encoder.layer3.1.conv2.weight": (256, 256, 3, 3),
    "encoder.layer4.0.conv1.weight": (512, 256, 3, 3),
    "encoder.layer4.0.conv2.weight": (512, 512, 3, 3),
    "encoder.layer4.0.shortcut.0.weight": (512, 256, 1, 1),
    "encoder.layer4.1.conv1.weight": (512, 512, 3, 3),
    "encoder.layer4.1.conv2.weight": (512, 512, 3, 3),
    "head.0.weight": (512, 512),
    "head.0.bias": (512,),
    "head.2.weight": (128, 512),
    "head.2.bias": (128,),
}
RESNET18_NORMS = {
    "encoder.bn1": 64,
    "encoder.layer1.0.bn1": 64,
    "encoder.layer1.0.bn2": 64,
    "encoder.layer1.1.bn1": 64,
    "encoder.layer1.1.bn2": 64,
    "encoder.layer2.0.bn1": 128,
    "encoder.layer2.0.bn2": 128,
    "encoder.layer2.0.shortcut.1": 128,
    "encoder.layer2.1.bn1": 128,
    "encoder.layer2.1.bn2": 128,
    "encoder.layer3.0.bn1": 256,
    "encoder.layer3.0.bn2": 256,
    "encoder.layer3.0.shortcut.1": 256,
    "encoder.layer3.1.bn1": 256,
    "encoder.layer3.1.bn2": 256,
    "encoder.layer4.0.bn1": 512,
    "encoder.layer4.0.bn2": 512,
    "encoder.layer4.0.shortcut.1": 512,
    "encoder.layer4.1.bn1": 512,
    "encoder.layer4.1.bn2": 512,
}

# resnet50 has 161 convolutions and norms; the first block of each stage, its second, and the ends pin the pattern.
RESNET50_SHAPES = {
    "encoder.conv1.weight": (64, 3, 3, 3),
    "encoder.layer1.0.conv1.weight": (64, 64, 1, 1),
    "encoder.layer1.0.conv2.weight": (64, 64, 3, 3),
    "encoder.layer1.0.conv3.weight": (256, 64, 1, 1),
    "encoder.layer1.0.shortcut.0.weight": (256, 64, 1, 1),
    "encoder.layer1.1.conv1.weight": (64, 256, 1, 1),
    "encoder.layer1.2.conv3.weight": (256, 64, 1, 1),
    "encoder.layer2.0.conv1.weight": (128, 256, 1, 1),
    "encoder.layer2.0.conv2.weight": (128, 128, 3, 3),
    "encoder.layer2.0.conv3.weight": (512, 128, 1, 1),
    "encoder.layer2.0.shortcut.0.weight": (512, 256, 1, 1),
    "encoder.layer2.3.conv1.weight": (128, 512, 1, 1),
    "encoder.layer3.0.conv1.weight": (256, 512, 1, 1),
    "encoder.layer3.0.conv2.weight": (256, 256, 3, 3),
    "encoder.layer3.0.conv3.weight": (1024, 256, 1, 1),
    "encoder.layer3.0.shortcut.0.weight": (1024, 512, 1, 1),
    "encoder.layer3.5.conv1.weight": (256, 1024, 1, 1),
    "encoder.layer4.0.conv1.weight": (512, 1024, 1, 1),
    "encoder.layer4.0.conv2.weight": (512, 512, 3, 3),
    "encoder.layer4.0.conv3.weight": (2048, 512, 1, 1),
    "encoder.layer4.0.shortcut.0.weight": (2048, 1024, 1, 1),
    "encoder.layer4.2.conv1.weight": (512, 2048, 1, 1),
    "encoder.layer4.2.conv3.weight": (2048, 512, 1, 1),
    "encoder.layer1.0.bn3.weight": (256,),
    "encoder.layer1.0.shortcut.1.running_var": (256,),
    "encoder.layer4.2.bn3.running_mean": (2048,),
    "head.0.weight": (2048, 2048),
    "head.0.bias": (2048,),
    "head.2.weight": (128, 2048),
    "head.2.bias": (128,),
}


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(0)
    return SupConResNet("resnet18").eval()


def with_random_statistics(model):
    """A model whose normalisations do something, so that an error upstream of one shows."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model


def shapes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def test_resnet18_has_the_public_names_and_shapes(resnet18):
    norms = {f"{name}.{part}": (width,) for name, width in RESNET18_NORMS.items() for part in ("weight", "bias")}
    norms |= {f"{name}.running_{part}": (width,) for name, width in RESNET18_NORMS.items() for part in ("mean", "var")}
    norms |= {f"{name}.num_batches_tracked": () for name in RESNET18_NORMS}
    assert shapes(resnet18) == RESNET18_SHAPES | norms


def test_resnet50_has_the_public_names_and_shapes():
    with torch.device("meta"):
        found = shapes(SupConResNet())
    assert {name: found.get(name) for name in RESNET50_SHAPES} == RESNET50_SHAPES
    # 1 stem, 16 blocks of 3 and 4 shortcuts, each a weight and a norm's 5 entries; 4 entries of the head
    assert len(found) == (1 + 16 * 3 + 4) * 6 + 4


def parameter_count(name, feat_dim):
    """Weights by hand: a convolution k^2 in out, its norm 2 out, a linear layer (in + 1) out."""

    def conv(k, in_channels, out_channels):
        return k * k * in_channels * out_channels + 2 * out_channels

    bottleneck = name in ("resnet50", "resnet101", "resnet152")
    count, channels = conv(3, 3, 64), 64
    for width, depth in zip((64, 128, 256, 512), DEPTHS[name], strict=True):
        for _ in range(depth):
            out = 4 * width if bottleneck else width
            if bottleneck:
                count += conv(1, channels, width) + conv(3, width, width) + conv(1, width, out)
            else:
                count += conv(3, channels, width) + conv(3, width, width)
            count += conv(1, channels, out) if channels != out else 0
            channels = out
    return count + (channels + 1) * channels + (channels + 1) * feat_dim


@pytest.mark.parametrize("name", list(DEPTHS))
def test_parameter_count_is_that_of_a_hand_computation(name):
    with torch.device("meta"):
        model = SupConResNet(name, feat_dim=16)
    assert sum(p.numel() for p in model.parameters()) == parameter_count(name, 16)


def test_resnet18_encoder_has_the_published_number_of_parameters(resnet18):
    # 11,689,512 of the ImageNet model, less its classifier (513,000) and its 7x7 stem, plus a 3x3 stem
    assert sum(p.numel() for p in resnet18.encoder.parameters()) == 11_689_512 - 513_000 - 64 * 3 * (49 - 9)


def test_backbones_are_the_five_depths():
    assert tuple(DEPTHS) == BACKBONES


@pytest.mark.parametrize("name", list(ENCODER_DIMS))
def test_every_backbone_gives_its_width(name):
    with torch.device("meta"):  # shapes alone: no time spent on drawing weights
        model = SupConResNet(name, feat_dim=7).eval()
        h = model.encode(torch.randn(2, 3, 8, 8))
    assert model.encoder_dim == ENCODER_DIMS[name]
    assert h.shape == (2, ENCODER_DIMS[name])
    assert model.project(h).shape == (2, 7)


def test_stages_halve_the_resolution_three_times_and_the_stem_never(resnet18):
    sizes = []
    hooks = [
        layer.register_forward_hook(lambda _module, _inputs, out: sizes.append(tuple(out.shape[1:])))
        for layer in (resnet18.encoder.bn1, *(getattr(resnet18.encoder, f"layer{i}") for i in (1, 2, 3, 4)))
    ]
    with torch.no_grad():
        resnet18(torch.randn(1, 3, 32, 24))
    for hook in hooks:
        hook.remove()
    assert sizes == [(64, 32, 24), (64, 32, 24), (128, 16, 12), (256, 8, 6), (512, 4, 3)]


def test_forward_is_projection_of_encoding(resnet18):
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(resnet18(x), resnet18.project(resnet18.encode(x)))


def reference_block(block, x, stride):
    """A block from the paper's figure, on the block's own weights."""
    out = x
    names = [name for name in ("1", "2", "3") if hasattr(block, f"conv{name}")]
    for name in names:
        conv, norm = getattr(block, f"conv{name}"), getattr(block, f"bn{name}")
        strided = "2" if len(names) == 3 else "1"
        out = nn.functional.conv2d(
            out, conv.weight, stride=stride if name == strided else 1, padding=conv.weight.shape[-1] // 2
        )
        out = (out - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + 1e-5).sqrt()
        out = out.clamp(min=0) if name != names[-1] else out
    if len(block.shortcut):
        conv, norm = block.shortcut
        x = nn.functional.conv2d(x, conv.weight, stride=stride)
        x = (x - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + 1e-5).sqrt()
    return (out + x).clamp(min=0)


@pytest.mark.parametrize(
    ("block_type", "in_channels", "width", "stride"),
    [
        (BasicBlock, 4, 4, 1),
        (BasicBlock, 4, 8, 2),
        (BasicBlock, 4, 8, 1),
        (Bottleneck, 16, 4, 1),
        (Bottleneck, 4, 4, 1),
        (Bottleneck, 16, 8, 2),
    ],
)
def test_block_computes_the_residual_of_the_paper(block_type, in_channels, width, stride):
    torch.manual_seed(2)
    block = with_random_statistics(block_type(in_channels, width, stride)).eval().double()
    x = torch.randn(2, in_channels, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(block(x), reference_block(block, x, stride), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_layout_of_the_model_is_that_of_its_maps_from_the_stem_on(narrow, channels, layout):
    """Of one channel torch cannot tell the layout, and would convert the largest maps again and again."""
    model = assemble_model("resnet18", "mlp", 6, channels).to(memory_format=layout)
    seen = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].stride()))
    model.encode(torch.randn(2, channels, 16, 16).contiguous(memory_format=layout))
    assert len(seen) == 20
    inner = 1 if layout is torch.channels_last else 3
    assert [strides[inner] for strides in seen] == [1] * 20


def test_initialisation_is_kaiming_fan_out_and_identity_norms():
    torch.manual_seed(3)
    model = SupConResNet("resnet18")
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            out_channels, _, k, _ = (*parameter.shape, 1, 1)[:4]
            assert parameter.std().item() == pytest.approx((2 / (k * k * out_channels)) ** 0.5, rel=0.06), name
            assert abs(parameter.mean().item()) < 0.06 * parameter.std().item(), name
        else:
            assert torch.all(parameter == (1 if name.endswith("weight") else 0)), name


def test_seed_fixes_the_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return SupConResNet("resnet18").encoder.layer4[1].conv2.weight

    first = weights(5)
    assert torch.equal(first, weights(5))
    assert not torch.equal(first, weights(6))


def test_single_channel_equals_three_equal_channels(resnet18):
    torch.manual_seed(4)
    model = with_random_statistics(copy.deepcopy(resnet18)).double()
    x = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model.encode(x), model.encode(x.repeat(1, 3, 1, 1)), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(model(x), model(x.repeat(1, 3, 1, 1)), rtol=1e-12, atol=1e-12)


def test_single_channel_gives_the_stem_the_gradient_of_three_equal_channels(resnet18):
    torch.manual_seed(4)
    model = copy.deepcopy(resnet18).double()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    grads = [
        torch.autograd.grad(model.encode(images).square().sum(), model.encoder.conv1.weight)[0]
        for images in (x, x.repeat(1, 3, 1, 1))
    ]
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-10)


def test_linear_head_is_one_linear_layer():
    torch.manual_seed(0)
    model = SupConResNet("resnet18", head="linear", feat_dim=5).eval()
    assert {name for name in model.state_dict() if name.startswith("head")} == {"head.weight", "head.bias"}
    h = torch.randn(3, 512)
    expected = h @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model.project(h), expected / expected.norm(dim=1, keepdim=True))


def test_mlp_head_is_linear_relu_linear(resnet18):
    h = torch.randn(3, 512)
    first, _, second = resnet18.head
    hidden = (h @ first.weight.T + first.bias).clamp(min=0)
    expected = hidden @ second.weight.T + second.bias
    torch.testing.assert_close(resnet18.project(h), expected / expected.norm(dim=1, keepdim=True))


def test_normalisation_is_float32_under_autocast(resnet18):
    h = torch.full((2, 512), 1e3)  # z of a few thousand, whose squares overflow half precision
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.float16):
        z = resnet18.project(h)
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=1), torch.ones(2))


def test_encoder_works_inside_data_parallel(resnet18):
    model = copy.deepcopy(resnet18)
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        bare = model(x)
        model.encoder = nn.DataParallel(model.encoder)
        assert torch.equal(model(x), bare)
    assert "encoder.module.conv1.weight" in model.state_dict()


@pytest.mark.parametrize(
    ("name", "nearest"), [("resnet51", "resnet50"), ("ResNet-101", "resnet101"), ("resnet1", "resnet18")]
)
def test_unknown_backbone_names_the_allowed_and_the_nearest(name, nearest):
    with pytest.raises(OptionError, match=f"{name}.*resnet18, resnet34, .*did you mean '{nearest}'"):
        SupConResNet(name)


def test_unknown_head_names_the_allowed_and_the_nearest():
    with pytest.raises(OptionError, match=r"'lineer'.*mlp, linear.*did you mean 'linear'"):
        SupConResNet("resnet18", head="lineer")


@pytest.mark.parametrize("feat_dim", [0, -3])
def test_feat_dim_below_one_is_refused(feat_dim):
    with pytest.raises(OptionError, match=f"feat_dim is {feat_dim}"):
        SupConResNet("resnet18", feat_dim=feat_dim)


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_that_do_not_fit_the_stem_are_refused(resnet18, channels):
    with pytest.raises(DataError, match=f"{channels} channels, the stem takes 3 \\(or 1\\).*num_channels={channels}"):
        resnet18(torch.zeros(1, channels, 8, 8))


def test_images_without_a_channel_axis_are_refused(resnet18):
    with pytest.raises(DataError, match=r"\[2, 8, 8\], expected \[B, C, H, W\]"):
        resnet18(torch.zeros(2, 8, 8))


def options(**changes):
    return SimpleNamespace(**{"ssl_model": "resnet18", "head": "mlp", "feat_dim": 12} | changes)


@pytest.mark.parametrize(("num_channels", "stem_channels"), [(1, 3), (3, 3), (2, 2), (5, 5)])
def test_build_model_fits_the_stem_to_the_images(num_channels, stem_channels):
    torch.manual_seed(0)
    model = build_model(options(), num_channels).eval()
    assert model.state_dict()["encoder.conv1.weight"].shape == (64, stem_channels, 3, 3)
    assert model.encoder.conv1.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.1)
    with torch.no_grad():
        assert model(torch.randn(2, num_channels, 8, 8)).shape == (2, 12)


def test_build_model_takes_the_head_of_the_options():
    with torch.device("meta"):
        assert shapes(build_model(options(head="linear"), 1))["head.weight"] == (12, 512)
        assert shapes(build_model(options(), 1))["head.2.weight"] == (12, 512)


def test_stem_of_two_channels_refuses_one():
    with pytest.raises(DataError, match="1 channels, the stem takes 2:"):
        build_model(options(), 2)(torch.zeros(1, 1, 8, 8))


def test_build_model_refuses_what_cannot_be_built():
    with pytest.raises(OptionError, match="num_channels is 0"):
        build_model(options(), 0)
    with pytest.raises(OptionError, match="resnet99"):
        build_model(options(ssl_model="resnet99"), 1)
