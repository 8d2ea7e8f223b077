"""A small synthetic ocean: SST cutouts of known regime, for the demo and the tests.

Real imagery comes without a truth to hold a representation against. Here the regime of every cutout is known because
the cutout was made that way, and it shows in the pattern alone: contrast, direction, sign and place are drawn at
random, and a broad field that says nothing about the regime lies over each cutout.

The recipe, in the order of this file:

    flow     a random stream function with a given spectral slope, and coherent eddies in one of the regimes
             (`nenya.demo.flow`)
    tracer   the water of each pixel is followed back to where it came from, and has the temperature of that place
    sensor   footprint, white noise, stripes, clouds
    cutout   all of it from one seed; cutout i is the same whatever the number of cutouts
    file     training and validation sets in HDF5

Legend: the plane is complex, points x + iy in km from the middle of the cutout, velocities u + iv in km per day.
Fields are indexed [y, x]; a field of the flow, [n, n], is periodic and its first value belongs to the point 0.
"""

import math
import os
from dataclasses import dataclass
from functools import lru_cache

import h5py
import numpy as np
import numpy.typing as npt

from nenya.demo.flow import (
    CUTOUT_WIDTH,
    RECIPES,
    REGIMES,
    Eddies,
    Field,
    Plane,
    Regime,
    draw_flow,
    plane,
    sample,
    stream_function,
    trace_back,
)
from nenya.errors import DataError
from nenya.files import atomic_hdf5

Labels = npt.NDArray[np.int64]

EDDY_CORE = (0.6, 1.2)  # temperature of the water an eddy carries, in units of the background's change over the cutout

FOOTPRINT_PASSES = 2  # of a 1-2-1 mean: a pixel sees some of its neighbours, and threads below a pixel are mixed away
BROAD_DEGREE = 3  # highest power of x and y in the broad field: sun and wind act on scales above the eddies
BROAD_DECAY = 0.6  # amplitude of one degree of the broad field over that of the degree below
BROAD_SHARE = (0.05, 0.3)  # part of a cutout's variance that is in the broad field and says nothing about the regime
CONTRAST = (0.15, 1.0)  # K, standard deviation of a cutout, log-uniform and the same in all regimes: quiet to busy seas
CLOUD_SLOPE = -1.0  # energy slope of the stream function whose heights are cloud: blobs of many sizes with ragged edges

SMALLEST_SIZE = 16  # pixels: in a smaller cutout an eddy is a single pixel
CHUNK = 16  # cutouts in a chunk of the HDF5 file: 256 KiB at 64 x 64


# ---------------------------------------------------------------- tracer


def background(rng: np.random.Generator, origin: Plane, front: float | None) -> Field:
    """Temperature of the sea before it was stirred, without unit.

    Args:
        rng: Source of randomness, for direction and place.
        origin: Where to look [km].
        front: Half-width of a front [km] that crosses the middle half of the cutout; None: an even gradient.

    Returns:
        Float32 in the shape of `origin`: from -1 to 1 across a front, or a change of 1 over the width of a cutout.
    """
    direction = np.exp(np.complex64(1j) * np.float32(rng.uniform(0.0, 2 * math.pi)))
    across: Field = (origin * direction).real / CUTOUT_WIDTH
    if front is not None:
        across = np.tanh((across - rng.uniform(-0.25, 0.25)) * (CUTOUT_WIDTH / front))
    return across


def eddy_cores(rng: np.random.Generator, origin: Plane, eddies: Eddies) -> Field:
    """Temperature of the warm or cold water that eddies carry, in units of the background's change over the cutout."""
    count = len(eddies.speed)
    core = rng.uniform(*EDDY_CORE, count) * rng.choice([-1, 1], count)
    return eddies.total(core.astype(np.float32), origin)


def surface_buoyancy(psi: Field) -> Field:
    """Temperature that a surface quasi-geostrophic flow makes for itself, without unit.

    Args:
        psi: Stream function [n, n].

    Returns:
        |k| psi in Fourier space, on a grid twice as fine so that linear interpolation leaves no facets: [2 n, 2 n]
        float32.
    """
    n = len(psi)
    k = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :]).astype(np.float32)
    waves = np.fft.rfft2(psi) * k
    finer = np.insert(waves, [n // 2] * n, 0, axis=0)  # the short waves that the finer grid has room for
    return np.fft.irfft2(finer, s=(2 * n, 2 * n)).astype(np.float32, copy=False)


def stirred_water(rng: np.random.Generator, regime: Regime, size: int) -> Field:
    """Temperature of the water in one cutout, stirred by the flow of its regime.

    Args:
        rng: Source of randomness.
        regime: The kind of sea.
        size: Side of the cutout in pixels.

    Returns:
        [P, P] float32 without unit, P = size + 2 * FOOTPRINT_PASSES: the sensor's footprint takes the rim away.
    """
    flow = draw_flow(rng, regime)
    origin = trace_back(_pixels(size, rim=FOOTPRINT_PASSES), flow, days=rng.uniform(*regime.days))
    water = background(rng, origin, regime.front)
    if flow.eddies is not None:
        water = water + eddy_cores(rng, origin, flow.eddies)
    if regime.buoyant:
        water = _mix(sample(surface_buoyancy(flow.psi), origin), water, regime.buoyant)
    return water


def _pixels(size: int, rim: int = 0) -> Plane:
    """Centres of the pixels of a cutout and of a rim around it [km], [size + 2 * rim] squared."""
    axis = (np.arange(-rim, size + rim) - (size - 1) / 2) * (CUTOUT_WIDTH / size)
    return plane(axis.astype(np.float32))


def _standardise(field: Field) -> Field:
    """The same field with mean 0 and standard deviation 1."""
    centred: Field = field - field.mean()
    centred /= centred.std()
    return centred


def _mix(one: Field, other: Field, share: float) -> Field:
    """Sum of two fields of which the first has `share` of the variance."""
    return math.sqrt(share) * _standardise(one) + math.sqrt(1 - share) * _standardise(other)


# ---------------------------------------------------------------- sensor


def footprint(field: Field) -> Field:
    """What a pixel sees: a 1-2-1 mean along both axes, repeated. Loses `FOOTPRINT_PASSES` pixels on each side."""
    for _ in range(FOOTPRINT_PASSES):
        field = 0.25 * field[:-2] + 0.5 * field[1:-1] + 0.25 * field[2:]
        field = 0.25 * field[:, :-2] + 0.5 * field[:, 1:-1] + 0.25 * field[:, 2:]
    return field


@lru_cache(maxsize=8)
def _broad_shapes(size: int) -> Field:
    """Products of Legendre polynomials in x and y without the constant, of falling amplitude: [shapes, size, size]."""
    t, degrees = np.linspace(-1, 1, size), range(BROAD_DEGREE + 1)
    lines = [math.sqrt(2 * d + 1) * np.polynomial.Legendre.basis(d)(t) for d in degrees]
    pairs = [(a, b) for a in degrees for b in degrees if 0 < a + b <= BROAD_DEGREE]
    return np.stack([BROAD_DECAY ** (a + b) * np.outer(lines[a], lines[b]) for a, b in pairs]).astype(np.float32)


def broad_field(rng: np.random.Generator, size: int) -> Field:
    """The field that lies over every regime alike: a random slope and bend, [size, size] float32 without unit."""
    shapes = _broad_shapes(size)
    field: Field = np.einsum("s,syx->yx", rng.standard_normal(len(shapes), dtype=np.float32), shapes)
    return field


def sensor_noise(rng: np.random.Generator, size: int, noise: float, stripes: float) -> Field:
    """White noise plus one offset per scan line (row), standard deviations in K: [size, size] float32 K."""
    white = rng.standard_normal((size, size), dtype=np.float32)
    return noise * white + stripes * rng.standard_normal((size, 1), dtype=np.float32)


def cloud_mask(rng: np.random.Generator, size: int, fraction: float) -> npt.NDArray[np.bool_]:
    """True under cloud, [size, size]: the highest `fraction` (rounded down) of a smooth random field."""
    height = sample(stream_function(rng, CLOUD_SLOPE, CUTOUT_WIDTH), _pixels(size)).ravel()
    mask = np.zeros(size**2, np.bool_)
    mask[np.argsort(height)[size**2 - int(fraction * size**2) :]] = True
    return mask.reshape(size, size)


# ---------------------------------------------------------------- cutout


@dataclass(frozen=True)
class Settings:
    """What a series of cutouts shares; the arguments of `synthetic_ocean` but for the number.

    Raises:
        DataError: A value is out of its range; the message names all that are.
    """

    size: int = 64
    seed: int = 0
    noise: float = 0.03
    cloud_fraction: float = 0.0
    stripes: float = 0.0
    stream: int = 0

    def __post_init__(self) -> None:
        allowed = {
            f"size={self.size}: at least {SMALLEST_SIZE} pixels": self.size >= SMALLEST_SIZE,
            f"seed={self.seed}: 0 or more": self.seed >= 0,
            f"stream={self.stream}: 0 or more": self.stream >= 0,
            f"noise={self.noise}: 0 K or more, finite": 0 <= self.noise < math.inf,
            f"stripes={self.stripes}: 0 K or more, finite": 0 <= self.stripes < math.inf,
            f"cloud_fraction={self.cloud_fraction}: from 0 to below 1": 0 <= self.cloud_fraction < 1,
        }
        _refuse([name for name, fits in allowed.items() if not fits])

    def rng(self, *key: int) -> np.random.Generator:
        """Source of randomness of its own for each key, whatever else was drawn."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(self.stream, *key)))


def _refuse(problems: list[str]) -> None:
    if problems:
        raise DataError("the synthetic ocean cannot be made with " + "; ".join(problems))


def _label(settings: Settings, index: int) -> int:
    """Regime of cutout `index`: each group of as many cutouts as there are regimes has all of them, shuffled."""
    group, place = divmod(index, len(REGIMES))
    return int(settings.rng(0, group).permutation(len(REGIMES))[place])


def _cutout(settings: Settings, index: int, label: int) -> Field:
    """Cutout `index`, [size, size] float32 K: the recipe from the flow to the clouds."""
    size, rng = settings.size, settings.rng(1, index)
    water = footprint(stirred_water(rng, RECIPES[REGIMES[label]], size))
    pattern = _standardise(_mix(broad_field(rng, size), water, rng.uniform(*BROAD_SHARE)))
    contrast = math.exp(rng.uniform(*np.log(CONTRAST)))
    image = contrast * pattern + sensor_noise(settings.rng(2, index), size, settings.noise, settings.stripes)
    image -= image.mean()
    if settings.cloud_fraction:
        image[cloud_mask(settings.rng(3, index), size, settings.cloud_fraction)] = np.nan
    return image


def _cutouts(settings: Settings, indices: range) -> tuple[Field, Labels]:
    """Cutouts of the given indices, [N, 1, size, size] float32 K, and their labels [N] int64."""
    labels = np.array([_label(settings, i) for i in indices], np.int64)
    images = np.empty((len(indices), 1, settings.size, settings.size), np.float32)
    for image, index, label in zip(images, indices, labels, strict=True):
        image[0] = _cutout(settings, index, label)
    return images, labels


def synthetic_ocean(
    num_cutouts: int,
    size: int = 64,
    seed: int = 0,
    noise: float = 0.03,
    cloud_fraction: float = 0.0,
    stripes: float = 0.0,
    stream: int = 0,
) -> tuple[Field, Labels]:
    """Make SST cutouts of known regime.

    The same arguments give the same bytes on the same machine. Cutout i and its label depend on `seed`, `stream` and
    i, not on `num_cutouts`; noise, stripes and clouds leave the water below as it is, and `size` its flow.

    Args:
        num_cutouts: Number of cutouts N, 1 or more.
        size: Side of a cutout in pixels, 16 or more. It spans 128 km in any case.
        seed: Seed of everything, 0 or more.
        noise: Standard deviation of the sensor's white noise [K], 0 or more.
        cloud_fraction: Part of each cutout that is lost to clouds (NaN), 0 to below 1.
        stripes: Standard deviation of the offset of a scan line [K], 0 or more.
        stream: Number of an independent series of cutouts under the same seed, 0 or more.

    Returns:
        Images [N, 1, size, size] float32: temperature anomaly from the mean of the cutout [K], within a few K of 0.
        Labels [N] int64, indices into `REGIMES`: cutouts 0 to 4 have one of each in random order, so have 5 to 9, ...

    Raises:
        DataError: An argument is out of its range.
    """
    _refuse([] if num_cutouts >= 1 else [f"num_cutouts={num_cutouts}: 1 or more"])
    settings = Settings(size, seed, noise, cloud_fraction, stripes, stream)
    return _cutouts(settings, range(num_cutouts))


# ---------------------------------------------------------------- file


def write_ocean(
    path: str | os.PathLike[str],
    num_train: int,
    num_valid: int,
    size: int = 64,
    seed: int = 0,
    noise: float = 0.03,
    cloud_fraction: float = 0.0,
    stripes: float = 0.0,
) -> None:
    """Write a training and a validation set of synthetic cutouts to an HDF5 file, whole or not at all.

    The file has `train` and `valid` [N, 1, size, size] float32 (attribute `units` = "K") in compressed chunks of 16
    cutouts, `train_labels` and `valid_labels` [N] int64, and the attributes `class_names` (the regimes in the order of
    their labels) and `description`. Training and validation are streams 0 and 1 of `synthetic_ocean`: they share no
    field.

    Args:
        path: The file; missing folders are created, an older file is replaced.
        num_train: Number of training cutouts, 1 or more.
        num_valid: Number of validation cutouts, 1 or more.
        size: Side of a cutout in pixels, 16 or more.
        seed: Seed of everything, 0 or more.
        noise: Standard deviation of the sensor's white noise [K], 0 or more.
        cloud_fraction: Part of each cutout that is lost to clouds (NaN), 0 to below 1.
        stripes: Standard deviation of the offset of a scan line [K], 0 or more.

    Raises:
        DataError: An argument is out of its range.
        NenyaError: The file cannot be written.
    """
    numbers = {"train": num_train, "valid": num_valid}
    _refuse([f"num_{name}={number}: 1 or more" for name, number in numbers.items() if number < 1])
    streams = [Settings(size, seed, noise, cloud_fraction, stripes, stream) for stream in range(len(numbers))]
    with atomic_hdf5(path) as file:
        file.attrs["class_names"] = REGIMES
        file.attrs["description"] = (
            f"Synthetic sea-surface-temperature anomaly, cutouts of {CUTOUT_WIDTH:g} km; made by nenya.demo.ocean with "
            f"seed={seed}, noise={noise} K, cloud_fraction={cloud_fraction}, stripes={stripes} K"
        )
        for (name, number), settings in zip(numbers.items(), streams, strict=True):
            _write_stream(file, name, number, settings)


def _write_stream(file: h5py.File, name: str, number: int, settings: Settings) -> None:
    """Write one series of cutouts and its labels, a chunk at a time."""
    shape, chunk = (number, 1, settings.size, settings.size), min(CHUNK, number)
    images = file.create_dataset(
        name, shape, np.float32, chunks=(chunk, *shape[1:]), compression="gzip", compression_opts=1, shuffle=True
    )
    images.attrs["units"] = "K"
    images.attrs["long_name"] = "sea surface temperature, anomaly from the mean of the cutout"
    labels = file.create_dataset(f"{name}_labels", (number,), np.int64)
    for first in range(0, number, CHUNK):
        block = range(first, min(first + CHUNK, number))
        images[block.start : block.stop], labels[block.start : block.stop] = _cutouts(settings, block)
