"""Random numbers that are a function of what they are for, not of what was drawn before.

A view has to come out the same whatever process, batch or device makes it, and a resumed run must go on with the draws
that the killed run would have made. A generator with a state cannot promise that; a hash of (seed, stream, epoch,
sample, view, position) can (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The hash is the
finaliser of SplitMix64 (Steele, Lea & Flood 2014), in integer arithmetic that gives the same bits on every device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The 64-bit pattern as torch's signed integer."""
    return value - 2**64 if value >= 2**63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MULTIPLIERS = (_signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB))
_FRACTION_BITS = 24  # of a float32
_ULP = 1.0 / 2**_FRACTION_BITS


def keys(*parts: int | Tensor) -> Tensor:
    """Hash integers to keys of independent streams.

    Args:
        parts: Integers or int64 tensors that broadcast, e.g. seed, epoch, sample [B], view. Their order matters.

    Returns:
        Keys of the broadcast shape, int64.
    """
    key = torch.zeros((), dtype=torch.int64)
    for part in parts:
        # as a tensor, whose products wrap around at 2^64 as the hash wants them to
        number = torch.as_tensor(part, dtype=torch.int64)
        key = _mix(key + _mix((number + 1) * _GOLDEN))
    return key


def uniform(key: Tensor, count: int) -> Tensor:
    """Draw uniform numbers.

    Args:
        key: Keys [...], int64.
        count: Numbers per key.

    Returns:
        float32 [..., count] in [0, 1), multiples of 2^-24.
    """
    high_bits = _shift_right(_words(key, count), 64 - _FRACTION_BITS)
    drawn: Tensor = high_bits.to(torch.float32) * _ULP
    return drawn


def normal(key: Tensor, count: int) -> Tensor:
    """Draw standard normal numbers (Box & Muller 1958), two from each 64-bit word.

    Args:
        key: Keys [...], int64.
        count: Numbers per key.

    Returns:
        float32 [..., count]; the largest possible magnitude is sqrt(2 * 24 ln 2) = 5.8.
    """
    words = _words(key, -(-count // 2))
    first = (_shift_right(words, 64 - _FRACTION_BITS) + 1).to(torch.float32) * _ULP  # (0, 1]: its log is finite
    second = (words & (2**_FRACTION_BITS - 1)).to(torch.float32) * _ULP
    radius = torch.sqrt(-2 * torch.log(first))
    angle = 2 * math.pi * second
    pairs: Tensor = torch.cat((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    numbers: Tensor = pairs[..., :count]
    return numbers


def _words(key: Tensor, count: int) -> Tensor:
    """Numbers 1 to `count` of the SplitMix64 sequence that starts at each key: int64 [..., count]."""
    steps = torch.arange(1, count + 1, device=key.device, dtype=torch.int64)
    return _mix(key[..., None] + steps * _GOLDEN)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MULTIPLIERS[0]
    x = (x ^ _shift_right(x, 27)) * _MULTIPLIERS[1]
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift; torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
