"""Whether the file for other programs gives the latents that torch gives, up to what rounding makes of them.

The tolerance is derived, not chosen: from the same equations in float64, torch's own float32 differs by some amount,
which is what rounding costs here. Another program rounds in other places and may differ from float64 as much, so that
the two differ by twice that; a maximum over few cutouts varies, so that `_ROUNDINGS` times are allowed.

That float64 is a judge rests on its pixels being those that training shows the network: they are compared with
`Views.plain`, within a bound on the rounding of that.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nenya.data.augment import Views
from nenya.data.cutouts import Cutouts
from nenya.data.pixels import Packing
from nenya.errors import CheckpointError
from nenya.export.graph import INPUT, OUTPUTS
from nenya.export.preprocessing import Preprocessing, WholeNetwork
from nenya.params import Params

#: Cutouts that are compared, and as many more with gaps made in them: fewer where the network sees many pixels.
_MOST_CUTOUTS, _MOST_PIXELS = 16, 2**18
#: Pixels that go through the network at once.
_PIXELS_AT_ONCE = 2**16

_ROUNDINGS = 8
_UNIT = 2.0**-24  # half the distance of float32 numbers next to 1


@dataclass(frozen=True)
class Samples:
    """Cutouts to compare with.

    Attributes:
        pixels: As they go into the file for other programs [N, C, H, W], float32.
        filled: The same as training reads them: gaps filled, scaled [N, C, H, W], float32.
        usable: Which of them training would take [N], bool.
        origin: Where they are from, in words.
    """

    pixels: Tensor
    filled: Tensor
    usable: Tensor
    origin: str


@dataclass(frozen=True)
class Agreement:
    """How the file for other programs and torch agree.

    Attributes:
        difference: Largest difference, by output.
        tolerance: What is allowed.
        magnitude: Largest magnitude of the output.
        origin: Of the cutouts, in words.
    """

    difference: dict[str, float]
    tolerance: dict[str, float]
    magnitude: dict[str, float]
    origin: str

    def __str__(self) -> str:
        parts = [
            f"{self.difference[name]:.2g} in {name} (allowed {self.tolerance[name]:.2g}, values up to "
            f"{self.magnitude[name]:.2g})"
            for name in OUTPUTS
        ]
        return f"largest difference to torch {' and '.join(parts)}, on {self.origin}"


def real_samples(images: Cutouts, of: Preprocessing) -> Samples:
    """Cutouts of a file, spread evenly over it, and the same with gaps made in them.

    Raises:
        DataError: They cannot be read.
    """
    rows = np.unique(np.linspace(0, len(images) - 1, _num_cutouts(of)).astype(np.int64))
    stored = torch.from_numpy(images.read_stored(rows))
    pixels = dataclasses.replace(images.packing, scale=1.0).unpacked(stored)
    missing = images.packing.missing(stored)
    if missing is not None:
        pixels = pixels.masked_fill(missing, float("nan"))
    return _samples(pixels, images.to_float(stored), of, f"cutouts of {images.path.name}")


def made_samples(of: Preprocessing) -> Samples:
    """Smooth random fields and the same with gaps, where no cutouts are at hand; scaled, they vary by 1 around 15."""
    count = _num_cutouts(of)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0 : of.height, 0 : of.width] / max(of.height, of.width)
    fields = np.full((count, of.channels, of.height, of.width), 15.0)
    for wave in range(6):
        size, phase = rng.normal(size=(2, count, of.channels, 1, 1))
        fields += 0.6 * size * np.sin(2 * np.pi * ((wave % 3 + 1) * x + (wave // 3) * 2 * y) + 6 * phase)
    pixels = torch.from_numpy((fields / of.scale).astype(np.float32))
    return _samples(pixels, _filled(pixels, of.scale), of, "made cutouts")


def _num_cutouts(of: Preprocessing) -> int:
    return max(2, min(_MOST_CUTOUTS, _MOST_PIXELS // (of.size[0] * of.size[1])))


def _samples(pixels: Tensor, filled: Tensor, of: Preprocessing, what: str) -> Samples:
    """Cutouts, and the same with gaps made in them."""
    gapped = _with_gaps(pixels)
    both = torch.cat((pixels, gapped))
    return Samples(
        pixels=both,
        filled=torch.cat((filled, _filled(gapped, of.scale))),
        usable=torch.from_numpy(of.usable(~torch.isfinite(both).numpy())),
        origin=f"{len(pixels)} {what}, and again with gaps made in them",
    )


def _with_gaps(pixels: Tensor) -> Tensor:
    """The cutouts with a corner missing, every other one with a single pixel, the last with all."""
    gapped = pixels.clone()
    gapped[::2, :, : -(-pixels.shape[2] // 4), : -(-pixels.shape[3] // 4)] = float("nan")
    gapped[1::2, 0, -1, -1] = float("inf")
    gapped[-1] = float("nan")
    return gapped


def _filled(pixels: Tensor, scale: float) -> Tensor:
    return Packing(floating=True, scale=scale).to_float(pixels)


def compare(content: bytes, network: WholeNetwork, opt: Params, samples: Samples) -> Agreement:
    """Compute latents by the file for other programs and by torch.

    Args:
        content: Of the file.
        network: What it was made of.
        opt: The options of the training.
        samples: The cutouts.

    Returns:
        How they agree.

    Raises:
        CheckpointError: They do not.
    """
    views = Views.from_options(opt, network.of.height, network.of.width)
    judge = copy.deepcopy(network).double()
    usable = samples.usable
    with torch.no_grad():
        seen = views.plain(samples.filled)
        _require_same_pixels(judge.prepare(samples.pixels.double())[0], seen, samples, network.of)
        h = _in_parts(network.model.encode, seen, network.of)
        by_torch = {"h": h, "z": network.model.project(h)}
        exact_h = _in_parts(lambda part: judge(part)[0], samples.pixels.double(), network.of)
        exact = {"h": exact_h, "z": judge.model.project(exact_h)}
    found = _run(content, samples.pixels)
    difference, tolerance, magnitude = {}, {}, {}
    for name in OUTPUTS:
        ours, theirs, truth = by_torch[name].double(), found[name].double(), exact[name]
        unusable = torch.isnan(theirs).all(dim=1)
        if not (torch.equal(unusable, ~usable) and bool(torch.isfinite(theirs[usable]).all())):
            raise _disagreement(f"{name} is NaN for other cutouts than those that are not usable", samples)
        magnitude[name] = _largest(truth[usable])
        cost = max(_largest((ours - truth)[usable]), _UNIT * magnitude[name])
        difference[name], tolerance[name] = _largest((ours - theirs)[usable]), _ROUNDINGS * cost
        if not difference[name] <= tolerance[name]:
            raise _disagreement(
                f"{name} differs from torch's by {difference[name]:.3g}, where rounding explains {tolerance[name]:.3g}",
                samples,
            )
    return Agreement(difference, tolerance, magnitude, samples.origin)


def _in_parts(function: Callable[[Tensor], Tensor], cutouts: Tensor, of: Preprocessing) -> Tensor:
    """Apply a function to few cutouts at a time: in float64 a network takes much memory."""
    at_once = max(1, _PIXELS_AT_ONCE // (of.size[0] * of.size[1]))
    return torch.cat([function(part) for part in torch.split(cutouts, at_once)])


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _require_same_pixels(exact: Tensor, seen: Tensor, samples: Samples, of: Preprocessing) -> None:
    """See that the pixels in float64 are those of training, up to the rounding of the latter.

    The bound counts roundings, each of at most `_UNIT`: of the place of a sample, a number of -1..1 that becomes pixels
    (8 of half the side), which moves a value by no more than its cutout varies from pixel to pixel, along both axes; of
    the four weights and their sum (12); of the mean of s x s samples; of mean and difference where it is demeaned (32).
    """
    usable = samples.usable
    largest = _largest(samples.filled[usable])
    steps = [samples.filled[usable].diff(dim=axis) for axis in (2, 3)]
    step = max((_largest(pair) for pair in steps), default=0.0)
    bound = _UNIT * ((44 + of.samples**2) * largest + 8 * max(of.height, of.width) * step)
    difference = _largest((exact - seen.double())[usable])
    if not difference <= bound:
        raise _disagreement(
            f"crop, resize or filling differ from those of training by {difference:.3g}, where rounding explains "
            f"{bound:.3g}",
            samples,
        )


def _disagreement(what: str, samples: Samples) -> CheckpointError:
    return CheckpointError(
        f"model.onnx would give other latents than Nenya ({what}; on {samples.origin}), so nothing was written. "
        "Update the packages of nenya[onnx], or leave it out with --no-onnx."
    )


def _run(content: bytes, pixels: Tensor) -> dict[str, Tensor]:
    """Compute latents of some cutouts by onnxruntime, in batches of several sizes."""
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    parts: list[list[npt.NDArray[np.float32]]] = [
        session.run(list(OUTPUTS), {INPUT: part.contiguous().numpy()})
        for part in (pixels[:1], pixels[1:4], pixels[4:])
        if len(part)
    ]
    return {
        name: torch.from_numpy(np.concatenate([part[place] for part in parts])) for place, name in enumerate(OUTPUTS)
    }
