"""The making of a map: one pass for the principal components, the landmarks' layout, one pass to place all others."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from nenya import __version__
from nenya.errors import DataError, OptionError
from nenya.maps import classes, landmarks, trust, umapping
from nenya.maps.components import BLOCK, NUM_COMPONENTS, directions, mixed, of_length_one, project, survey
from nenya.maps.layout import Layout
from nenya.maps.placing import NEIGHBOURS, Nearest, Places, Placing, reach_of
from nenya.maps.store import ALL, About, Map, Placed
from nenya.progress import RunProgress, clock
from nenya.search.facts import Facts
from nenya.search.threads import in_threads
from nenya.search.vectors import Block, Vectors

logger = logging.getLogger(__name__)

Method = Literal["umap", "pca"]

DEFAULT_LANDMARKS = 50_000
#: A latent is far whose distance from its nearest landmark exceeds that of this share of the landmarks from theirs.
FAR_BEYOND = 0.999
_STEP = 2**10  # landmarks whose neighbours are looked for together

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Made:
    """A map that is not written yet.

    Attributes:
        about: What it tells of itself.
        placed: Where the latents are.
        layouts: What places others, class by class.
    """

    about: About
    placed: Placed
    layouts: list[Layout]


def make(
    vectors: Vectors,
    facts: Facts | None,
    *,
    method: Method = "umap",
    by_dt: bool = False,
    num_landmarks: int = DEFAULT_LANDMARKS,
    seed: int = 0,
) -> Made:
    """Make a map of latents.

    Args:
        vectors: The latents.
        facts: Their table; landmarks are spread over its places and months. None for landmarks drawn at random.
        method: "umap", or "pca" for the first two principal components.
        by_dt: A map for each class of DT (`nenya.maps.classes`).
        num_landmarks: At most so many landmarks for each map.
        seed: Of all that is random.

    Raises:
        OptionError: umap-learn is not installed, or an option is out of its range.
        DataError: There is no usable latent, one is not finite, or the table has no DT.
    """
    if num_landmarks < 1:
        raise OptionError(f"--landmarks: found {num_landmarks}, expected 1 or more.")
    if not 0 <= seed < 2**32:
        raise OptionError(f"--seed: found {seed}, expected 0 to {2**32 - 1}.")
    if method == "umap":
        logger.info("loading umap-learn: some seconds")
        umapping.require()
    bins = classes.of_rows(facts) if by_dt and facts is not None else np.zeros(len(vectors), np.int64)
    names, of_class = _present(np.where(vectors.usable, bins, -1), list(classes.BINS) if by_dt else [ALL])
    if not names:
        raise DataError(f"{vectors.latents.path} has no usable latent{' with a DT' if by_dt else ''}: nothing to map.")
    with RunProgress(len(vectors), 0, "principal components") as progress:
        found = survey(vectors, of_class, len(names), seed, progress.advance)
    cell = landmarks.cells(facts, len(vectors)) if method == "umap" else None
    layouts = []
    for place, name in enumerate(names):
        basis = found.moments[place].basis(NUM_COMPONENTS)
        rows = np.empty(0, np.int64)
        if cell is not None:
            members = np.flatnonzero(of_class == place)
            rows = landmarks.choose(members, found.marks[members], cell[members], num_landmarks)
        layouts.append(_layout(vectors, name, basis, rows, seed))
    placed = _place(vectors, layouts, of_class)
    for layout in layouts:
        placed.landmark[layout.rows] = True
        placed.coordinates[layout.rows] = layout.coordinates
        placed.far[layout.rows] = False
    parameters = {
        "components": NUM_COMPONENTS,
        "landmarks": num_landmarks,
        "spread_over": [] if facts is None else [*["place"] * facts.has_places, *["month"] * facts.has_times],
        "neighbours": umapping.NEIGHBOURS,
        "min_dist": umapping.MIN_DISTANCE,
        "placed_between": NEIGHBOURS,
        "far_beyond": FAR_BEYOND,
    }  # fmt: skip
    return Made(_about(vectors, placed, layouts, of_class, method, seed, parameters), placed, layouts)


def onto(vectors: Vectors, facts: Facts | None, old: Map) -> Made:
    """Place latents on a map that was made of others, by the same model.

    Args:
        vectors: The latents.
        facts: Their table, for a map by classes of DT.
        old: The map.

    Raises:
        DataError: The latents are of another model or space, none belongs on the map, or its files are damaged.
    """
    if vectors.latents.about.model_digest != old.about.model_digest:
        raise DataError(
            f"{vectors.latents.path} was made by another model than the latents of {old.path}: their numbers mean "
            "other things. Make the latents with the model of the map, or a map of their own."
        )
    layouts = old.layouts()
    if (vectors.space, vectors.num_dims) != (old.about.space, len(layouts[0].mean)):
        raise DataError(
            f"{old.path} is a map of latents {old.about.space} of {len(layouts[0].mean)} numbers; found "
            f"{vectors.space} of {vectors.num_dims} in {vectors.latents.path}: give latents of that kind."
        )
    of_class = np.where(vectors.usable, 0, -1).astype(np.int64)
    if old.classes != [ALL]:
        assert facts is not None
        places = [old.classes.index(name) if name in old.classes else -1 for name in classes.BINS]
        of_class = np.where(vectors.usable, np.array([*places, -1])[classes.of_rows(facts)], -1)
    if not (of_class >= 0).any():
        raise DataError(f"{vectors.latents.path} has no usable latent that belongs on {old.path}.")
    placed = _place(vectors, layouts, of_class)
    about = _about(vectors, placed, layouts, of_class, old.about.method, old.about.seed, old.about.parameters)
    return Made(
        dataclasses.replace(about, onto={"name": old.path.name, "layout_digest": old.about.layout_digest}),
        placed,
        layouts,
    )


def _present(bins: Integers, names: Sequence[str]) -> tuple[list[str], Integers]:
    """The classes that have rows, and the place of each row among these; -1 for none."""
    present = [place for place in range(len(names)) if (bins == place).any()]
    places = np.full(len(names) + 1, -1, np.int64)
    places[present] = np.arange(len(present))
    return [names[place] for place in present], places[bins]


def _layout(
    vectors: Vectors,
    name: str,
    components: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    rows: Integers,
    seed: int,
) -> Layout:
    """Lay the landmarks of a class out; without landmarks the components are the map."""
    mean, basis = components
    empty = np.empty((0, basis.shape[1]), np.float32)
    layout = Layout(name, mean, basis, rows, empty, empty[:, 0], np.empty((0, 2), np.float32), 0.0)
    if not len(rows):
        return layout
    steps = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    pieces = list(
        in_threads(lambda some: project(of_length_one(vectors, vectors.pick(some)), mean, basis), steps)
    )  # fmt: skip
    inside = np.concatenate([piece[0] for piece in pieces])
    rest = np.concatenate([piece[1] for piece in pieces])
    if len(rows) < umapping.FEWEST:
        logger.warning(
            "%s: too few different latents (%d) for UMAP: their map is that of the first two principal components",
            classes.label(name), len(rows),
        )  # fmt: skip
        return dataclasses.replace(layout, rows=rows[:0])
    nearest, distances = _neighbours(inside, classes.label(name))
    began = time.monotonic()
    logger.info("UMAP of %s landmarks (%s): one thread, so that it is the same each time",
                f"{len(rows):,}", classes.label(name))  # fmt: skip
    coordinates = umapping.lay_out(inside, nearest, distances, seed)
    logger.info("UMAP: done in %s", clock(time.monotonic() - began))
    reach = reach_of(rest, nearest[:, 1], distances[:, 1], FAR_BEYOND)
    return dataclasses.replace(layout, vectors=inside, rest=rest, coordinates=coordinates, reach=reach)


def _neighbours(landmarks_: npt.NDArray[np.float32], what: str) -> tuple[Integers, npt.NDArray[np.float64]]:
    """The nearest landmarks of each landmark, the first of them itself [L, k], and their distances."""
    finder = Nearest(landmarks_)
    count = min(umapping.NEIGHBOURS, len(landmarks_))
    steps = [slice(start, start + _STEP) for start in range(0, len(landmarks_), _STEP)]
    found, distances = [], []
    with RunProgress(len(landmarks_), 0, f"neighbours of the landmarks ({what})") as progress:
        for one, apart in in_threads(lambda some: finder.find(landmarks_[some], count), steps):
            found.append(one)
            distances.append(apart)
            progress.advance(len(one))
    nearest, lengths = np.concatenate(found), np.concatenate(distances)
    # No two landmarks are the same latent, but two may be so alike that rounding makes them so: each is its own first.
    own = np.arange(len(nearest))
    other = np.flatnonzero(nearest[:, 0] != own)
    for row in other:
        place = np.flatnonzero(nearest[row] == row)
        nearest[row, place[0] if len(place) else -1] = nearest[row, 0]
        nearest[row, 0] = row
    return nearest, lengths


def _place(vectors: Vectors, layouts: Sequence[Layout], of_class: Integers) -> Placed:
    """Place all latents of all classes, in one pass."""
    placed = Placed.nowhere(len(vectors))
    placed.of_class[:] = of_class
    placings = [Placing(layout) for layout in layouts]

    def work(block: Block) -> tuple[Block, list[tuple[Integers, Places]]]:
        mine = of_class[block.place : block.place + block.stop - block.start]
        found = []
        for place, (layout, placing) in enumerate(zip(layouts, placings, strict=True)):
            here = mine == place
            if here.any():
                rows = project(directions(vectors, block, here), layout.mean, layout.basis)
                found.append((np.flatnonzero(here) + block.place, placing.place(*rows)))
        return block, found

    with RunProgress(len(vectors), 0, "placing") as progress:
        for block, found in in_threads(work, vectors.blocks(BLOCK)):
            for numbers, places in found:
                placed.coordinates[numbers] = places.coordinates
                placed.far[numbers] = places.far
            progress.advance(block.stop - block.start)
    return placed


def _about(
    vectors: Vectors,
    placed: Placed,
    layouts: Sequence[Layout],
    of_class: Integers,
    method: str,
    seed: int,
    parameters: Any,  # noqa: ANN401  # of JSON
) -> About:
    told = []
    for place, layout in enumerate(layouts):
        members = np.flatnonzero(of_class == place)
        told.append(
            {
                "name": layout.name,
                "label": classes.label(layout.name),
                "count": len(members),
                "landmarks": int(placed.landmark[members].sum()),
                "far": int(placed.far[members].sum()),
                "method": "umap" if len(layout.rows) else "pca",
                "trust": _trust(vectors, placed, members, classes.label(layout.name)),
            }
        )
    versions = {"nenya": __version__, "numpy": np.__version__, "torch": str(torch.__version__)}
    if any(len(layout.rows) for layout in layouts) and placed.landmark.any():
        versions |= umapping.versions()
    return About(
        method=method,
        parameters=parameters,
        seed=seed,
        versions=versions,
        latents=vectors.latents.path.name,
        latents_digest=vectors.latents.digest(),
        space=vectors.space,
        model_digest=vectors.latents.about.model_digest,
        classes=told,
        unplaced=int((vectors.usable & (of_class < 0)).sum()),
    )


def _trust(vectors: Vectors, placed: Placed, members: Integers, what: str) -> dict[str, Any]:
    """Figures for the landmarks of a class and for the other rows on its map; null where there are none."""
    is_landmark = placed.landmark[members]
    kinds = {"landmarks": np.flatnonzero(is_landmark), "placed": np.flatnonzero(~is_landmark)}
    chosen = {}
    for kind, places in kinds.items():
        order = np.argsort(mixed(members[places].astype(np.uint64)))
        chosen[kind] = np.sort(places[order[: trust.ANCHORS]])
    anchors = np.concatenate(list(chosen.values()))
    with RunProgress(len(vectors), 0, f"trust ({what})") as progress:
        ranks = trust.measure(vectors, members, placed.coordinates[members], anchors, progress.advance)
    figures: dict[str, Any] = {}
    start = 0
    for kind, some in chosen.items():
        found = trust.summary(None if ranks is None else ranks[start : start + len(some)], len(members))
        figures[kind] = None if found is None else dataclasses.asdict(found)
        start += len(some)
    return figures
