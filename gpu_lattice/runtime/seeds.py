"""Numbers derived from a seed or a key: kernels/reference.py (splitmix) defines them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP, FIRST, SECOND = (np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def splitmix(start: int, i: NDArray[np.integer[Any]]) -> NDArray[np.uint64]:
    """Numbers i of SplitMix64 from a start, each 64 bits: different for every i below 2^64.

    start: 0 to 2^64 - 1. Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".

    Example:
        >>> splitmix(0, np.array([0]))[0] == 0xE220A8397B1DCDAF
        np.True_
    """
    x = np.uint64(start) + (i.astype(np.uint64) + np.uint64(1)) * STEP
    x = (x ^ x >> np.uint64(30)) * FIRST
    x = (x ^ x >> np.uint64(27)) * SECOND
    return x ^ x >> np.uint64(31)


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch, counted from 0, whose seed is `seed` itself.

    Example:
        >>> epoch_seed(7, 0)
        7
    """
    return int(splitmix(seed, np.array([epoch]))[0]) if epoch else seed
