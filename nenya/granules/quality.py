"""Quality levels and flags of a granule: what their numbers mean is read from their attributes.

Producers disagree: GHRSST's `quality_level` rises to the best level, 5, but some use only some of the levels; NASA's
`qual_sst` falls to the best level, 0. A flag is a property, such as day or land or microwave, and no fault as such, so
only flags that the user names take pixels away.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nenya.data.attributes import meaning_of
from nenya.errors import DataError
from nenya.granules.containers import Array, Container, Variable
from nenya.granules.packing import stored_type

Mask = npt.NDArray[np.bool_]

_RISING = re.compile(r"quality_level|pixel_quality_level|l2p_quality|sst_quality(_level)?")
_FALLING = re.compile(r"qual_sst4?|sst4?_qual(ity_flag)?|qual")
_BEST = re.compile(r"best(_?quality)?|clear|excellent|good(_?quality)?|high(est)?(_?quality)?")
_USELESS = re.compile(r"not_?used|unused|no_?data|bad(_?data)?|spare|reserved|missing|worst.*|not_?processed|fail.*")


@dataclass(frozen=True)
class Levels:
    """The quality levels of a granule.

    Attributes:
        variable: The variable that holds them.
        rising: Whether a higher level is better.
        best: The best level.
        meanings: What each level means, where the granule says so.
    """

    variable: Variable
    rising: bool
    best: int
    meanings: dict[int, str]

    def accepted(self, wanted: int | str) -> tuple[int, bool]:
        """The level that is just good enough, and whether higher ones are better.

        Args:
            wanted: A level, or "best".
        """
        return (self.best if isinstance(wanted, str) else wanted, self.rising)

    def good(self, stored: Array, wanted: int | str) -> Mask:
        """Which pixels are good enough; a fill value is not."""
        limit, rising = self.accepted(wanted)
        fine: Mask = stored >= limit if rising else stored <= limit
        for fill in _fills(self.variable):
            fine &= stored != fill
        return fine

    def describe(self, wanted: int | str) -> str:
        """The rule in words, for the log."""
        limit, rising = self.accepted(wanted)
        sign = ">=" if rising else "<="
        meaning = f" ({self.meanings[limit]})" if limit in self.meanings else ""
        return f"{self.variable.name} {sign} {limit}{meaning}"


def find_levels(container: Container, variable: Variable) -> Levels | None:
    """Find the quality levels that go with a variable; None where there are none.

    Args:
        container: What the granule holds.
        variable: The variable.

    Raises:
        DataError: Several could be meant, or those beside the variable are of other pixels.
    """
    ancillary = set(str(variable.attributes.get("ancillary_variables", "")).split())
    called = [
        other
        for other in container.variables.values()
        if other.dtype.kind in "iuf" and other.name != variable.name and len(other.shape) >= 2
        and (_RISING.fullmatch(_last(other)) or _FALLING.fullmatch(_last(other)))
    ]  # fmt: skip
    fitting = [other for other in called if _of_the_same_pixels(other, variable)]
    strange = [other for other in called if other.name.rpartition("/")[0] == variable.name.rpartition("/")[0]]
    if strange and not fitting:
        raise DataError(
            f"the quality levels {strange[0].name} {strange[0].shape} are not of the pixels of {variable.name} "
            f"{variable.shape}: --quality any does without."
        )
    named = [other for other in fitting if _last(other) in ancillary or other.name in ancillary]
    own = [other for other in fitting if _last(other) in (f"qual_{_last(variable)}", f"{_last(variable)}_quality")]
    fitting = named or own or fitting
    if not fitting:
        return None
    if len(fitting) > 1:
        names = ", ".join(other.name for other in fitting)
        raise DataError(f"several variables could be the quality of {variable.name}: {names}.")
    levels = fitting[0]
    meanings = _meanings_of_levels(levels)
    rising = bool(_RISING.fullmatch(_last(levels)))
    useful = [level for level, meaning in meanings.items() if not _USELESS.fullmatch(meaning)]
    called_best = [level for level in useful if _BEST.fullmatch(meanings[level])]
    if called_best and len(useful) > 1:
        worse = [level for level in useful if level not in called_best]
        if worse and min(called_best) > max(worse):
            rising = True
        elif worse and max(called_best) < min(worse):
            rising = False
    known = called_best or useful
    best = (max(known) if rising else min(known)) if known else (5 if rising else 0)
    return Levels(levels, rising, best, meanings)


def _of_the_same_pixels(other: Variable, variable: Variable) -> bool:
    """Whether a variable has a number for each pixel of another, or the same ones for each time of it."""
    long, own = ([length for length in item.shape if length != 1] for item in (other, variable))
    if long == own:
        return True
    if not 2 <= len(long) <= len(own):
        return False
    named = dict(zip(variable.dimensions(), variable.shape, strict=True))
    mine = zip(other.dimensions(), other.shape, strict=True)
    return all(named.get(name) == length for name, length in mine if length != 1)


def _meanings_of_levels(levels: Variable) -> dict[int, str]:
    words = _words(levels)
    values = _integers(levels.attributes.get("flag_values"))
    if not words or len(values) != len(words):
        return {}
    return dict(zip(values, words, strict=True))


@dataclass(frozen=True)
class Flag:
    """One meaning of a flag variable: where (number & mask) == value, or != 0 where there is no value."""

    variable: Variable
    mask: int | None
    value: int | None

    def is_set(self, stored: Array) -> Mask:
        """Where the flag is set; not where the variable has its fill value."""
        known = np.isfinite(stored)  # flags that went through xarray are floats, NaN where there was a fill value
        if stored.dtype.kind in "iu":
            bits = stored.view(stored_type(self.variable))
            numbers = bits.astype(np.int64) if bits.dtype.kind == "i" else bits.astype(np.uint64).astype(np.int64)
        else:
            numbers = np.where(known, stored, 0).astype(np.int64)
        if self.mask is None:
            found: Mask = numbers == self.value
        elif self.value is None:
            found = (numbers & self.mask) != 0
        else:
            found = (numbers & self.mask) == self.value
        found &= known
        for fill in _fills(self.variable):
            found &= stored != fill
        return found


def find_flags(container: Container, beside: Variable, names: tuple[str, ...], source: str) -> list[Flag]:
    """Find flags by their meaning, in every flag variable of the granule that has it.

    Args:
        container: What the granule holds.
        beside: The variable that they go with; a flag variable may lack its axes of one value, or of time.
        names: Meanings, in any case; ``variable:meaning`` names a variable too.
        source: The granule's name, for messages.

    Raises:
        DataError: A meaning is not there; the message lists those that are.
    """
    variables = [
        other for other in container.variables.values()
        if "flag_meanings" in other.attributes and other.dtype.kind in "iuf" and _of_the_same_pixels(other, beside)
    ]  # fmt: skip
    flags: list[Flag] = []
    for name in names:
        wanted_variable, _, wanted = name.rpartition(":")
        found = [
            flag for variable in variables if wanted_variable.lower() in ("", _last(variable), variable.name.lower())
            for meaning, flag in _flags(variable, source) if meaning == wanted.lower()
        ]  # fmt: skip
        if not found:
            there = "; ".join(
                f"{variable.name}: {', '.join(dict.fromkeys(_words(variable)))}" for variable in variables
            )
            raise DataError(f"{source} has no flag {name!r}. It has {there or 'no flags'}.")
        flags += found
    return flags


def _flags(variable: Variable, source: str) -> list[tuple[str, Flag]]:
    words = _words(variable)
    masks, values = (_integers(variable.attributes.get(name)) for name in ("flag_masks", "flag_values"))
    if any(numbers and len(numbers) != len(words) for numbers in (masks, values)) or not (masks or values):
        raise DataError(
            f"{source}: {variable.name} has {len(words)} flag_meanings, {len(masks)} flag_masks and {len(values)} "
            "flag_values; expected as many masks or values as meanings."
        )
    if stored_type(variable).kind == "u":  # the attribute may be of the signed twin of an unsigned variable
        masks = [mask % 2 ** (8 * variable.dtype.itemsize) for mask in masks]
    return [
        (
            word,
            Flag(
                variable,
                masks[place] if masks else None,
                values[place] if values else None,
            ),
        )
        for place, word in enumerate(words)
    ]  # fmt: skip


def _words(variable: Variable) -> list[str]:
    return re.split(r"[\s,;]+", variable.text("flag_meanings").strip(" ,;")) if variable.text("flag_meanings") else []


def _integers(value: object) -> list[int]:
    """The numbers of an attribute, also where a producer wrote them as text: ``0b, 1b, 2b``."""
    if value is None:
        return []
    if isinstance(value, str):
        return [int(number, 0) for number in re.findall(r"0x[0-9a-fA-F]+|-?\d+", value)]
    return [int(number) for number in np.atleast_1d(np.asarray(value)) if np.isfinite(number)]


def _fills(variable: Variable) -> list[float]:
    """Numbers that stand for gaps, as they are stored."""
    marks = meaning_of(variable.attributes, variable.dtype, f"variable {variable.name}").marks
    return [mark for mark in marks if mark == mark]


def _last(variable: Variable) -> str:
    return variable.name.rpartition("/")[2].lower()
