"""The model of a run, built from its options."""

from nenya.errors import OptionError
from nenya.models.resnet_big import STEM_CHANNELS, SupConResNet, stem
from nenya.params import Params

__all__ = ["assemble_model", "build_model"]


def build_model(opt: Params, num_channels: int) -> SupConResNet:
    """Build encoder and projection head for images of `num_channels` channels.

    Args:
        opt: Options with `ssl_model`, `head` and `feat_dim`.
        num_channels: Channels C of the images, at least 1.

    Returns:
        The model, on the CPU, in float32, freshly initialised.

    Raises:
        OptionError: Unknown names, or a number below 1.
    """
    return assemble_model(opt.ssl_model, opt.head, opt.feat_dim, num_channels)


def assemble_model(name: str, head: str, feat_dim: int, num_channels: int) -> SupConResNet:
    """Build encoder and projection head.

    One and three channels use the default stem, of weights [64, 3, 3, 3]: a single channel stands for three equal ones,
    so weights trained on either fit both. Other counts get a stem of their own under the same parameter name.

    Args:
        name: Backbone, one of `nenya.models.resnet_big.BACKBONES`.
        head: "mlp" or "linear".
        feat_dim: Head width D.
        num_channels: Channels C of the images, at least 1.

    Returns:
        The model, on the CPU, in float32, freshly initialised.

    Raises:
        OptionError: Unknown names, or a number below 1.
    """
    if num_channels < 1:
        raise OptionError(f"num_channels is {num_channels}, expected at least 1: give the channel count of the images.")
    model = SupConResNet(name=name, head=head, feat_dim=feat_dim)
    if num_channels not in (1, STEM_CHANNELS):
        model.encoder.conv1 = stem(num_channels)
    return model
