"""Points on the Earth, taken as a sphere: unit vectors, which know neither dateline nor pole, and their distances."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

#: Mean radius of the Earth (IUGG), kilometres.
EARTH_RADIUS_KM = 6371.0088
KM_PER_DEGREE = EARTH_RADIUS_KM * math.pi / 180

Degrees = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Float = npt.NDArray[np.float64]


def unit_vectors(latitude: Degrees, longitude: Degrees) -> Float:
    """Points on the unit sphere.

    Args:
        latitude: Degrees, any shape.
        longitude: Degrees, the same shape, any convention.

    Returns:
        [..., 3].
    """
    phi, lam = np.radians(latitude.astype(np.float64)), np.radians(longitude.astype(np.float64))
    across = np.cos(phi)
    return np.stack([across * np.cos(lam), across * np.sin(lam), np.sin(phi)], axis=-1)


def distance_km(a: Float, b: Float) -> Float:
    """Great-circle distances between unit vectors [..., 3], kilometres; exact for near and far points."""
    chord = np.linalg.norm(a - b, axis=-1)
    result: Float = 2 * EARTH_RADIUS_KM * np.arcsin(np.clip(chord / 2, 0, 1))
    return result
