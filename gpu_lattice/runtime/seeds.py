"""Seeds of epochs, so that one seed stands for a whole training run."""

from __future__ import annotations

MASK = 2**64 - 1


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch: the seed itself for 0, else SplitMix64's output number `epoch` from that state.

    seed, epoch: 0 to 2^64 - 1. Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators".

    Example:
        >>> epoch_seed(7, 0), epoch_seed(0, 1) == 0xE220A8397B1DCDAF
        (7, True)
    """
    if epoch == 0:
        return seed
    z = seed + epoch * 0x9E3779B97F4A7C15 & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31
