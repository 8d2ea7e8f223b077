"""Where cutouts lie on the sphere: centres, pixel sizes and repeated scan lines, at the dateline and the poles too.

Everything is computed from unit vectors, which know neither dateline nor pole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nenya.sphere import Degrees, Float, distance_km, unit_vectors


def wrapped(longitude: npt.NDArray[np.floating]) -> Float:
    """Longitudes in -180 <= longitude < 180."""
    given = np.asarray(longitude, np.float64)
    inside = (given >= -180.0) & (given < 180.0)  # these stay as they are, to the last digit
    result: Float = np.where(inside, given, (given + 180.0) % 360.0 - 180.0)
    return result


@dataclass(frozen=True)
class Places:
    """Where windows lie; one entry for each.

    Attributes:
        latitude: Of the centre, degrees.
        longitude: Of the centre, degrees, -180..180.
        longitude_found: Of the centre as the granule has it; as `longitude` where the centre pixel has none.
        along_km: Median size of a pixel along the rows' direction (from a row to the next), kilometres.
        across_km: Median size from a column to the next.
        repeated_lines: Rows, or columns where these are the scan lines, that show ground a second time.
    """

    latitude: Float
    longitude: Float
    longitude_found: Float
    along_km: Float
    across_km: Float
    repeated_lines: npt.NDArray[np.int64]


def places(latitude: Degrees, longitude: Degrees, is_swath: bool) -> Places:
    """Describe windows by the coordinates of their pixels.

    The centre is the pixel at half of the height and width; where that has no coordinates, the direction of the mean
    of the unit vectors of those that have.

    Args:
        latitude: [n, H, W] degrees, NaN where unknown.
        longitude: [n, H, W].
        is_swath: Whether lines may repeat each other.
    """
    height, width = latitude.shape[1:]
    middle = (height // 2, width // 2)
    centre_latitude = latitude[:, *middle].astype(np.float64)
    found = longitude[:, *middle].astype(np.float64)
    centre_longitude = wrapped(found)
    for index in np.flatnonzero(~(np.isfinite(centre_latitude) & np.isfinite(found))):
        known = np.isfinite(latitude[index]) & np.isfinite(longitude[index])
        mean = unit_vectors(latitude[index][known], longitude[index][known]).sum(axis=0)
        centre_latitude[index] = np.degrees(np.arctan2(mean[2], np.hypot(mean[0], mean[1])))
        centre_longitude[index] = wrapped(np.degrees(np.arctan2(mean[1], mean[0])))
        found[index] = centre_longitude[index]
    column = unit_vectors(latitude[:, :, middle[1]], longitude[:, :, middle[1]])
    row = unit_vectors(latitude[:, middle[0], :], longitude[:, middle[0], :])
    repeated = np.zeros(len(latitude), np.int64)
    if is_swath:
        repeated = np.maximum(_repeated(latitude, longitude, axis=1), _repeated(latitude, longitude, axis=2))
    return Places(
        centre_latitude, centre_longitude, found, _pixel_size(column), _pixel_size(row), repeated
    )  # fmt: skip


def _pixel_size(line: Float) -> Float:
    """Median distance of neighbours on lines of unit vectors [n, m, 3]."""
    distances = distance_km(line[:, 1:], line[:, :-1])
    missing = np.isnan(distances)
    if not missing.any():
        result: Float = np.median(distances, axis=1)
        return result
    return np.array([np.median(d[~m]) if not m.all() else np.nan for d, m in zip(distances, missing, strict=True)])


def _repeated(latitude: Degrees, longitude: Degrees, axis: int) -> npt.NDArray[np.int64]:
    """Count the lines that do not lie ahead of all lines before them: a bow-tie swath shows their ground again.

    At the window's first, middle and last pixel of the lines, the progress of each line is its position along the way
    from the first line to the last. The largest of the three counts is taken.
    """
    other = 3 - axis
    samples = [0, latitude.shape[other] // 2, latitude.shape[other] - 1]
    picked = (slice(None), slice(None), samples) if other == 2 else (slice(None), samples)
    points = unit_vectors(latitude[picked], longitude[picked])
    points = points if axis == 1 else points.swapaxes(1, 2)  # [n, lines, 3 samples, 3]
    start = points[:, :1]
    direction = points[:, -1:] - start
    progress = ((points - start) * direction).sum(axis=-1)  # [n, lines, 3 samples]
    progress = np.where(np.isfinite(progress), progress, -np.inf)
    furthest = np.maximum.accumulate(progress, axis=1)
    behind = (progress[:, 1:] <= furthest[:, :-1]) & np.isfinite(progress[:, 1:])
    counts: npt.NDArray[np.int64] = behind.sum(axis=1).max(axis=1)
    return counts
