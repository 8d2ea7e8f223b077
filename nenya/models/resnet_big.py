"""ResNet encoders for small images, and the contrastive model made of an encoder and a projection head.

The residual networks of He et al. 2016 (arXiv:1512.03385) in their form for small images, as contrastive learning uses
them on CIFAR (Khosla et al. 2020, arXiv:2004.11362; Chen et al. 2020, arXiv:2002.05709, appendix B.9): a 3x3 stem of
stride 1 and no max-pool, so a cutout of 64 x 64 pixels still has 8 x 8 positions in the last stage.

Parameter names and shapes are public: files of trained weights are kept for years.

Axes: B images, C channels, H x W pixels, F encoder width (`encoder_dim`), D head width (`feat_dim`).
"""

import difflib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nenya.errors import DataError, OptionError

STEM_CHANNELS = 3
STAGE_WIDTHS = (64, 128, 256, 512)
HEADS = ("mlp", "linear")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, fig. 5 left).

    Args:
        in_channels: channels of the input.
        width: channels of both convolutions, and of the output.
        stride: stride of the first convolution: 2 halves the resolution.
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(in_channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in_channels, H, W] to [B, width, H/stride, W/stride]."""
        # In place, here and below: the backward of batch-norm needs its input only, and its output need not be copied.
        out = F.relu_(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu_(out)


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a widening 1x1 convolution, and a shortcut (He et al. 2016, fig. 5 right).

    Args:
        in_channels: channels of the input.
        width: channels of the 3x3 convolution; the output has four times as many.
        stride: stride of the 3x3 convolution: 2 halves the resolution.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv1x1(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv1x1(width, width * self.expansion)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.shortcut = _shortcut(in_channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in_channels, H, W] to [B, 4 width, H/stride, W/stride]."""
        out = F.relu_(self.bn1(self.conv1(x)))
        out = F.relu_(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += self.shortcut(x)
        return F.relu_(out)


# Block and number of blocks in each stage (He et al. 2016, table 1).
_ARCHITECTURES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}
BACKBONES: tuple[str, ...] = tuple(_ARCHITECTURES)


class ResNet(nn.Module):
    """The encoder: images to features.

    Convolutions start from Kaiming-normal weights (fan out, He et al. 2015, arXiv:1502.01852, eq. 14), batch
    normalisations from the identity.

    Args:
        name: one of `BACKBONES`.

    Attributes:
        out_dim: encoder width F: 512 for 18 and 34 layers, 2048 for 50, 101 and 152.

    Raises:
        OptionError: `name` is not a known backbone.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        block, depths = _ARCHITECTURES[_known("backbone", name, BACKBONES)]
        self.conv1 = stem(STEM_CHANNELS)
        self.bn1 = nn.BatchNorm2d(STAGE_WIDTHS[0])
        widths_in = (STAGE_WIDTHS[0], *(block.expansion * width for width in STAGE_WIDTHS))
        self.layer1 = _stage(block, widths_in[0], STAGE_WIDTHS[0], depths[0], stride=1)
        self.layer2 = _stage(block, widths_in[1], STAGE_WIDTHS[1], depths[1], stride=2)
        self.layer3 = _stage(block, widths_in[2], STAGE_WIDTHS[2], depths[2], stride=2)
        self.layer4 = _stage(block, widths_in[3], STAGE_WIDTHS[3], depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.out_dim = widths_in[4]
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to features h [B, F].

        Raises:
            DataError: `x` is not [B, C, H, W], or its C does not fit the stem.
        """
        out = F.relu_(self.bn1(self._stem_response(x)))  # [B, 64, H, W]
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))  # [B, F, H/8, W/8]
        return torch.flatten(self.avgpool(out), 1)  # [B, F]

    def _stem_response(self, x: Tensor) -> Tensor:
        """Convolve with the stem; a single channel stands for three equal ones.

        Convolution is linear, so an image repeated over the channels meets the sum of the weights over the channels.
        """
        expected = self.conv1.in_channels
        if x.ndim != 4:
            raise DataError(f"images have shape {list(x.shape)}, expected [B, C, H, W]: add the missing axes")
        if x.shape[1] == expected:
            return self.conv1(x)  # type: ignore[no-any-return]
        if x.shape[1] == 1 and expected == STEM_CHANNELS:
            weight = self.conv1.weight  # [64, 3, R, R]
            if weight.stride(1) == 1:  # channels last
                # With one channel both layouts are the same memory: torch tells them by these strides alone.
                weight = weight.permute(0, 2, 3, 1).sum(dim=3, keepdim=True).permute(0, 3, 1, 2)  # [64, 1, R, R]
            else:
                weight = weight.sum(dim=1, keepdim=True)
            return F.conv2d(x, weight, stride=self.conv1.stride, padding=self.conv1.padding)
        allowed = f"{expected} (or 1)" if expected == STEM_CHANNELS else f"{expected}"
        raise DataError(
            f"images have {x.shape[1]} channels, the stem takes {allowed}: give images with that many, "
            f"or build the model with nenya.models.build_model(opt, num_channels={x.shape[1]})"
        )


class SupConResNet(nn.Module):
    """Encoder and projection head (Chen et al. 2020, fig. 2; Khosla et al. 2020, sec. 3.1).

    Args:
        name: backbone, one of `BACKBONES`.
        head: "mlp" (linear, ReLU, linear) or "linear".
        feat_dim: head width D, at least 1.

    Attributes:
        encoder: the backbone; may be wrapped in `nn.DataParallel`.
        head: the projection head.
        encoder_dim: encoder width F.

    Raises:
        OptionError: unknown `name` or `head`, or `feat_dim` below 1.
    """

    def __init__(self, name: str = "resnet50", head: str = "mlp", feat_dim: int = 128) -> None:
        super().__init__()
        _known("head", head, HEADS)
        if feat_dim < 1:
            raise OptionError(f"feat_dim is {feat_dim}, expected at least 1: 128 is usual")
        backbone = ResNet(name)
        self.encoder_dim = backbone.out_dim
        self.encoder: nn.Module = backbone
        self.head = _projection_head(head, self.encoder_dim, feat_dim).apply(_initialise)

    def encode(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to encoder features h [B, F], not normalised.

        Raises:
            DataError: `x` is not [B, C, H, W], or its C does not fit the stem.
        """
        h: Tensor = self.encoder(x)
        return h

    def project(self, h: Tensor) -> Tensor:
        """Map encoder features [B, F] to z [B, D] of unit length.

        The length is taken in float32 or wider whatever autocast says: squares of half-precision numbers overflow.
        """
        z: Tensor = self.head(h)
        return F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to normalised head outputs z [B, D].

        Raises:
            DataError: `x` is not [B, C, H, W], or its C does not fit the stem.
        """
        return self.project(self.encode(x))


def stem(num_channels: int) -> nn.Conv2d:
    """Build the first convolution: 3x3, stride 1, `num_channels` to 64, initialised as all others are."""
    conv = _conv3x3(num_channels, STAGE_WIDTHS[0])
    _initialise(conv)
    return conv


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def _conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Build the identity where shapes agree, else a 1x1 convolution (He et al. 2016, option B)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(_conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


def _stage(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, width: int, depth: int, stride: int
) -> nn.Sequential:
    """Build `depth` blocks of one resolution; the first changes the resolution and the channels."""
    first = block(in_channels, width, stride)
    return nn.Sequential(first, *(block(width * block.expansion, width, 1) for _ in range(depth - 1)))


def _projection_head(head: str, encoder_dim: int, feat_dim: int) -> nn.Module:
    if head == "linear":
        return nn.Linear(encoder_dim, feat_dim)
    return nn.Sequential(nn.Linear(encoder_dim, encoder_dim), nn.ReLU(inplace=True), nn.Linear(encoder_dim, feat_dim))


def _initialise(module: nn.Module) -> None:
    """Start from Kaiming-normal weights (fan out), zero biases and normalisations that do nothing.

    In the head too: what follows it normalises z, so the length of its weights is no matter for z but sets how far a
    step of given learning rate turns them. torch's own, shorter ones turn too fast at the default rate.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if isinstance(module, nn.BatchNorm2d):
        nn.init.ones_(module.weight)
    if isinstance(module, nn.BatchNorm2d | nn.Linear):
        nn.init.zeros_(module.bias)


def _known(what: str, name: str, allowed: tuple[str, ...]) -> str:
    """Return `name` if it is allowed, else raise an OptionError that names the nearest."""
    if name in allowed:
        return name
    nearest = difflib.get_close_matches(str(name).lower(), allowed, n=1, cutoff=0.0)[0]
    raise OptionError(f"unknown {what} {name!r}, expected one of {', '.join(allowed)}: did you mean {nearest!r}?")
