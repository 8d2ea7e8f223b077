"""The flow of the synthetic ocean: a random stream function, coherent eddies, and water followed back in time.

Legend: the plane is complex, points x + iy in km from the middle of the cutout, velocities u + iv in km per day.
Fields are indexed [y, x]; a field of the flow, [n, n], is periodic and its first value belongs to the point 0.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Plane = npt.NDArray[np.complex64]


CUTOUT_WIDTH = 128.0  # km, whatever the number of pixels: room for a few eddies, as in 64 pixels of 2 km from MODIS
DOMAIN_WIDTH = 256.0  # km, of the periodic domain: opposite edges of a cutout are strangers
FLOW_CELLS = 64  # along the domain, of 4 km; a power of two, for fast transforms and for wrapping by a mask
SHORTEST_WAVE = 10.0  # km, of the flow: differences and linear interpolation on its grid cannot carry shorter ones
FLOW_MEMORY = (
    5.0  # days until the random flow is another one: in a steady flow water only circles, and draws no filament
)
STRIDE = 8.0  # km that water of rms speed moves in one time step, short against the waves that carry it
TURN = 0.7  # radians that the centre of an eddy turns in one time step: water must stay on its circle
KM_PER_DAY = 86.4  # in one m/s

EDDY_RADIUS = (9.0, 17.0)  # km, where the water of an eddy is fastest
EDDY_SPEED = (0.1, 0.3)  # m/s, of that water
EDDY_DISTANCE = 1.2  # least distance of two eddies, in sums of their radii: they stay apart
EDDY_TRIES = 4  # places that are tried for each eddy


@dataclass(frozen=True)
class Regime:
    """What tells one kind of sea from another.

    Attributes:
        slope: Exponent of the flow's kinetic-energy spectrum over wavenumber, beyond the peak.
        wavelength: Wavelength [km] of the peak.
        speed: Root-mean-square speed [m/s] of the random flow.
        days: Shortest and longest time for which the flow has stirred the water.
        eddies: Least and largest number of coherent eddies laid over the random flow.
        front: Half-width [km] of a sharp front in the water before it is stirred; None for an even gradient.
        buoyant: Part of the temperature's variance that is the flow's own surface buoyancy; the rest is background.
    """

    slope: float
    wavelength: float
    speed: float
    days: tuple[float, float]
    eddies: tuple[int, int] = (0, 0)
    front: float | None = None
    buoyant: float = 0.0


RECIPES: dict[str, Regime] = {
    # Hardly any flow: an even gradient, a little bent.
    "quiescent": Regime(slope=-3.0, wavelength=80.0, speed=0.02, days=(1.0, 4.0)),
    # Vortices that brought water from elsewhere and wind the background around themselves.
    "eddies": Regime(slope=-3.0, wavelength=80.0, speed=0.03, days=(2.0, 4.0), eddies=(1, 4)),
    # Two water masses, and a flow that bends the line between them.
    "front": Regime(slope=-4.0, wavelength=80.0, speed=0.12, days=(2.0, 4.0), front=1.5),
    # Steep spectrum, as quasi-geostrophic turbulence with eddies has it: large motions shear the tracer into threads.
    "filaments": Regime(slope=-4.0, wavelength=90.0, speed=0.25, days=(5.0, 7.0)),
    # Shallow spectrum (surface quasi-geostrophic): the temperature is the flow's own, and alive at all scales.
    "submesoscale": Regime(slope=-5 / 3, wavelength=90.0, speed=0.15, days=(1.5, 3.0), buoyant=0.9),
}


REGIMES: tuple[str, ...] = tuple(RECIPES)
"""Names of the regimes; a label is an index into it."""


@lru_cache(maxsize=16)
def _energy_filter(slope: float, wavelength: float) -> Field:
    """Factor that turns complex unit noise into a flow with E(k) ~ k^slope and an expected rms speed of 1 km per day.

    Its layout [FLOW_CELLS, FLOW_CELLS // 2 + 1] is that of `rfft2`.
    """
    n, cell = FLOW_CELLS, DOMAIN_WIDTH / FLOW_CELLS
    kx, ky = np.fft.rfftfreq(n, cell)[None, :], np.fft.fftfreq(n, cell)[:, None]  # cycles per km
    k = np.maximum(np.hypot(kx, ky), 1 / DOMAIN_WIDTH)
    energy = k**slope * np.exp(-((wavelength * k) ** -4.0)) * (k <= 1 / SHORTEST_WAVE)
    psi = np.sqrt(energy / k**3)  # E(k) dk = k^2 |psi|^2 over a ring of length 2 pi k
    psi[0, 0] = 0.0
    waves = np.where(kx == 0, 1.0, 2.0)  # each stands for itself and its conjugate, which this layout leaves out
    psi *= n**2 / np.sqrt(np.sum(waves * (2 * np.pi * k * psi) ** 2))
    psi[:, 0] *= np.sqrt(2.0)  # the inverse transform uses half of this column's noise
    energy_filter: Field = (psi * np.sqrt(0.5)).astype(np.float32)
    return energy_filter


def stream_function(rng: np.random.Generator, slope: float, wavelength: float) -> Field:
    """Draw a random flow on the periodic domain.

    Args:
        rng: Source of randomness.
        slope: Exponent of the kinetic-energy spectrum beyond its peak, such as -3 or -5/3.
        wavelength: Wavelength of the peak [km].

    Returns:
        [FLOW_CELLS, FLOW_CELLS] float32 km^2 per day, for an expected rms speed of 1 km per day.
    """
    energy: Field = _energy_filter(slope, wavelength)
    noise = rng.standard_normal((*energy.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    return np.fft.irfft2(noise * energy, s=(FLOW_CELLS, FLOW_CELLS)).astype(np.float32, copy=False)


def velocity(psi: Field) -> Plane:
    """Velocity of a stream function on the periodic domain, by central differences.

    Args:
        psi: Stream function [n, n] in km^2 per day.

    Returns:
        u + iv = -dpsi/dy + i dpsi/dx, [n, n] complex64 km per day. Its discrete divergence is zero.
    """
    rows = np.concatenate([psi[-1:], psi, psi[:1]])
    columns = np.concatenate([psi[:, -1:], psi, psi[:, :1]], axis=1)
    flow = np.empty(psi.shape, np.complex64)
    flow.real, flow.imag = rows[:-2] - rows[2:], columns[:, 2:] - columns[:, :-2]
    flow *= len(psi) / DOMAIN_WIDTH / 2
    return flow


@dataclass(frozen=True)
class Eddies:
    """Coherent Gaussian vortices, E of them.

    Attributes:
        centre: [E] complex64 km.
        radius: [E] float32, km from the centre to the fastest water.
        speed: [E] float32, km per day of that water, positive when it turns from x to y.
    """

    centre: Plane
    radius: Field
    speed: Field

    def total(self, weight: Field, points: Plane) -> Field:
        """Sum of Gaussians of height `weight` [E] on the centres, in the shape of `points`, float32."""
        field = np.zeros(points.shape, np.float32)
        for centre, radius, height in zip(self.centre, self.radius, weight, strict=True):
            offset = points - centre
            field += height * np.exp((offset.real**2 + offset.imag**2) / (-2 * radius**2))
        return field

    def stream_function(self, points: Plane) -> Field:
        """Stream function of all eddies, km^2 per day."""
        return self.total(-self.speed * self.radius * math.exp(0.5), points)

    def fastest_turn(self) -> float:
        """Rate at which the centre of the fastest eddy turns, radians per day."""
        return float(np.max(np.abs(self.speed) / self.radius)) * math.exp(0.5)


def draw_eddies(rng: np.random.Generator, least: int, most: int) -> Eddies:
    """Draw eddies that stay apart from each other, the first of them well inside the cutout.

    Args:
        rng: Source of randomness.
        least: Least number to place, 1 or more.
        most: Largest number to place. Where there is no room for as many there are fewer, but always one.

    Returns:
        The eddies, with centres inside the cutout.
    """
    wanted, tries = int(rng.integers(least, most + 1)), EDDY_TRIES * most
    radius = rng.uniform(*EDDY_RADIUS, tries).astype(np.float32)
    speed = (rng.uniform(*EDDY_SPEED, tries) * rng.choice([-1, 1], tries) * KM_PER_DAY).astype(np.float32)
    place = rng.uniform(-0.45, 0.45, (tries, 2)) * CUTOUT_WIDTH
    place[0] *= 0.6
    centre = place.astype(np.float32).view(np.complex64)[:, 0]
    kept = [0]
    for i in range(1, tries):
        room = np.abs(centre[i] - centre[kept]) - EDDY_DISTANCE * (radius[i] + radius[kept])
        if len(kept) < wanted and room.min() > 0:
            kept.append(i)
    return Eddies(centre[kept], radius[kept], speed[kept])


@dataclass(frozen=True)
class Flow:
    """A flow that turns from one random pattern into another, with or without eddies that last.

    Attributes:
        psi: Stream function [n, n] of the random pattern of today, km^2 per day.
        today: Velocity [n, n] of that pattern.
        earlier: Velocity [n, n] of the pattern of `FLOW_MEMORY` days ago.
        lasting: Velocity [n, n] of the eddies, zero without.
        time_step: Longest time step [days] with which water may be followed.
        eddies: The eddies, None without.
    """

    psi: Field
    today: Plane
    earlier: Plane
    lasting: Plane
    time_step: float
    eddies: Eddies | None

    def at(self, days_ago: float) -> Plane:
        """Velocity [n, n] at a time before now; the expected energy of the random part is the same at all times."""
        phase = math.pi / 2 * days_ago / FLOW_MEMORY
        flow: Plane = math.cos(phase) * self.today + math.sin(phase) * self.earlier + self.lasting
        return flow


def draw_flow(rng: np.random.Generator, regime: Regime) -> Flow:
    """Draw the flow of one cutout."""
    rms = regime.speed * KM_PER_DAY
    psi, earlier_psi = (rms * stream_function(rng, regime.slope, regime.wavelength) for _ in range(2))
    today, earlier, lasting = velocity(psi), velocity(earlier_psi), np.zeros(psi.shape, np.complex64)
    if not regime.eddies[1]:
        return Flow(psi, today, earlier, lasting, STRIDE / rms, None)
    eddies = draw_eddies(rng, *regime.eddies)
    axis = np.fft.fftfreq(FLOW_CELLS, 1 / DOMAIN_WIDTH).astype(np.float32)  # from the middle of the cutout, both ways
    lasting = velocity(eddies.stream_function(plane(axis)))
    return Flow(psi, today, earlier, lasting, min(STRIDE / rms, TURN / eddies.fastest_turn()), eddies)


def plane(axis: Field) -> Plane:
    """Points [len(axis), len(axis)] with x and y from the same axis."""
    plane: Plane = axis[None, :] + np.complex64(1j) * axis[:, None]
    return plane


def sample(field: npt.NDArray[Any], points: Plane) -> npt.NDArray[Any]:
    """Read a periodic field between its values, linearly: never above the largest nor below the least of them.

    Args:
        field: [n, n] float32 or complex64, n a power of two.
        points: km, of any shape.

    Returns:
        Values in the shape of `points` and the dtype of `field`.
    """
    n, flat = len(field), field.ravel()
    x, y = points.real * (n / DOMAIN_WIDTH), points.imag * (n / DOMAIN_WIDTH)
    left, low = np.floor(x), np.floor(y)
    x -= left  # from here on the place within the cell, 0 to 1
    y -= low
    column, row = left.astype(np.intp), low.astype(np.intp)
    next_column, next_row = (column + 1) & (n - 1), ((row + 1) & (n - 1)) * n
    column, row = column & (n - 1), (row & (n - 1)) * n
    lower, upper = flat.take(row + column), flat.take(next_row + column)
    lower += (flat.take(row + next_column) - lower) * x
    upper += (flat.take(next_row + next_column) - upper) * x
    values: npt.NDArray[Any] = lower + (upper - lower) * y
    return values


def trace_back(points: Plane, flow: Flow, days: float) -> Plane:
    """Follow water back in time: semi-Lagrangian advection in one go, by the two-step Adams-Bashforth rule.

    Each drop of water keeps its temperature, so stirring makes no new extremes; and as only the places are computed,
    the gradient across the cutout need not be periodic.

    Args:
        points: Where the water is now [km], of any shape.
        flow: The flow.
        days: How far back.

    Returns:
        Where the water was, in the shape of `points`; not wrapped into the domain.
    """
    steps = math.ceil(days / flow.time_step)
    step = days / steps
    now = sample(flow.at(0.0), points)
    drift = sample(flow.at(step / 2), points - step / 2 * now)  # the first step by the midpoint rule
    for i in range(1, steps):
        points, before = points - step * drift, now
        now = sample(flow.at(i * step), points)
        drift = 1.5 * now - 0.5 * before
    return points - step * drift
