"""The formats of the CPU's bulk path: what a place and a record are. No other file knows these numbers.

A *record* is what is known of a text, a segment or a unit of several: one run of 8-byte words in the memo's arena,
so that reading it stays within a few cache lines. It is named by its *base*:

    base - 4, -5, ...   the text's third, fourth, ... word of eight bytes
    base - LENGTH       its length in bytes, + WHOLE if it is a chunk of bytes
    base - FIRST        its first word
    base - SECOND       its second word
    base + NUMBER       samples: the segment's partition Z. encode: the lead of its best path (viterbi.py)
    base + KIND         what follows
    base + BODY         the rest

KIND is, for samples,

    1 to MOST_PATHS     a table of that many paths (table.py)
    0                   lists of arcs (lists.py): too many paths for a table, or a text that may not come again
    SINGLE + id         one path, of one arc
    DIVIDED + n         a unit of n segments (segments.py), each in BODY as length << 32 | place; of characters, a unit
                        of one segment has that one's record

and for encode the number of the path's arcs, negative if some may become other ids, or SINGLE or DIVIDED. What each
kind is for shows in the segments of the first 3 MB of text that comes once, per cent (of bytes in brackets):

                                    single    table      lists
    SentencePiece 32k, English      11 (2)    80 (82)    9 (16)
    SentencePiece 8k, Japanese      75 (52)   18 (40)    7 (9)
    SentencePiece 8k, Chinese       72 (58)   28 (42)    0
    Hugging Face 8k, English        12 (2)    82 (86)    7 (13)
    BytePiece 40k, English          22 (1)    22 (4)    56 (95)

A *place* says where a segment's record is, and of what kind, so that nothing is read to tell:

    base                a table; of encode any record
    LISTED + base       lists
    DIRECT + id         one path, of one piece: nothing else is asked of its record
    NOWHERE             no record (yet)
    TOKEN_ARC - id      a chunk that is one token as it stands: no record, but an arc
    SCALED - base       scores with exponents in z and z_exponent from base on (sample.py): no record

A fourth kind of record takes a bit of KIND and one of places here, a module that writes and traces it, and its call in
sample.py.
"""

import numpy as np

from gpu_lattice.kernels.arcs import TOKEN_ARC
from gpu_lattice.kernels.compiled import compiled

LENGTH, FIRST, SECOND = 3, 2, 1
NUMBER, KIND, BODY = 0, 1, 2

# Tells a unit of bytes from a segment with the same text, in which cuts may be elsewhere.
WHOLE = 1 << 20

SINGLE = 1 << 32
DIVIDED = 1 << 33

LISTED = 1 << 30
DIRECT = 1 << 31
NOWHERE = -1
SCALED = -(1 << 40)

# Bytes of the longest text that has a record.
LONGEST_RECORDED = 4096
# Bases are below this, so that a place of a record or a piece is told by its bits, and fits in 32 of them.
MOST_WORDS = LISTED
assert 2 * LISTED == DIRECT == 1 << 31
assert SCALED < TOKEN_ARC - (1 << 31) < NOWHERE


@compiled(forceinline=True)
def place_of(base, kind):
    """The place of the record at base."""
    of_record = base + (LISTED if kind == 0 else np.int64(0))
    return of_record if kind >> 32 != 1 else DIRECT + (kind & 0xFFFFFFFF)


@compiled(forceinline=True)
def base_of(place):
    """Where the record of a place begins, of any kind but DIRECT."""
    return place & (LISTED - 1)


@compiled(forceinline=True)
def words_before(length):
    """The words of a record before its base, for a text of `length` bytes."""
    return LENGTH + max(0, (length - 9) >> 3)
