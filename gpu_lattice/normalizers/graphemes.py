"""Extended grapheme clusters, by the rules GB3 to GB999 of UAX #29, in Unicode 17.0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.utf8 import code_point
from gpu_lattice.normalizers.code_points import class_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A character of the first group followed by one of the first or second is a cluster, whatever comes before.
OTHER, LV, LVT, CONSONANT, PICTOGRAPHIC = range(5)
L, REGIONAL, PREPEND, CONTROL, CR, LF = range(5, 11)
V, T, EXTEND, ZWJ, SPACING_MARK, LINKER, EXTEND_OUTSIDE_CONJUNCTS = range(11, 18)
LAST_ALONE, LAST_FIRST = PICTOGRAPHIC, LF


def grapheme_classes() -> NDArray[np.uint8]:
    """uint8 [0x110000], the class of every code point, from the table that tools/make_grapheme_table.py wrote."""
    return class_table("graphemes.npz")


@compiled
def cluster_end(classes, values, i, stop):  # type: ignore[no-untyped-def]
    """The end of the grapheme cluster that begins at i, in valid UTF-8; bits 5 to 7 of the classes are ignored.

    What comes before i does not matter: a cluster never begins within a conjunct or an emoji sequence, and never after
    an odd number of regional indicators.
    """
    character, length = code_point(values, i)
    before = np.int64(classes[character]) & 31
    i += length
    num_regional = 1 if before == REGIONAL else 0
    # 1 after a consonant and its marks, 2 once one of them was a linker
    conjunct = 1 if before == CONSONANT else 0
    # 1 after a pictograph and its marks, 2 after the joiner that follows
    emoji = 1 if before == PICTOGRAPHIC else 0
    while i < stop:
        character, length = code_point(values, i)
        after = np.int64(classes[character]) & 31
        if _breaks(before, after, num_regional, conjunct, emoji):
            break
        if after == CONSONANT:
            conjunct = 1
        elif after == LINKER:
            conjunct = 2 if conjunct > 0 else 0
        elif after != EXTEND and after != ZWJ:
            conjunct = 0
        if after == PICTOGRAPHIC:
            emoji = 1
        elif after == ZWJ:
            emoji = 2 if emoji == 1 else 0
        elif after not in (EXTEND, LINKER, EXTEND_OUTSIDE_CONJUNCTS) or emoji == 2:
            emoji = 0
        num_regional = num_regional + 1 if after == REGIONAL else 0
        before = after
        i += length
    return i


@compiled
def _breaks(before, after, num_regional, conjunct, emoji):  # type: ignore[no-untyped-def]
    """Whether a cluster ends between characters of these classes."""
    if before == CR and after == LF:
        return False
    if CONTROL <= before <= LF or CONTROL <= after <= LF:
        return True
    if before == L and after in (L, V, LV, LVT):
        return False
    if before in (LV, V) and after in (V, T):
        return False
    if before in (LVT, T) and after == T:
        return False
    if after >= EXTEND or before == PREPEND:
        return False
    if after == CONSONANT:
        return conjunct != 2
    if before == ZWJ and after == PICTOGRAPHIC:
        return emoji != 2
    if before == REGIONAL and after == REGIONAL:
        return num_regional % 2 == 0
    return True
