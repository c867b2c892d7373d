"""What a call works with: the texts, what is read of a vocabulary, and the scratch of a group of parts.

Reading a field costs two atomic reference counts, so functions that run once for a group take these tuples, and loops
over segments take the arrays themselves.
"""

from typing import NamedTuple

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.machine import ITEMS

# Arcs after the last that the trace may overwrite.
MARGIN = ITEMS


class Batch(NamedTuple):
    """Normalized documents, in chunks.

    values uint8, offsets int64 [D + 1]; chunk_offsets int64 [C + 1], among which are all offsets; chunk_ids int32 [C],
    the id of a chunk that is one token as it stands, else -1.
    """

    values: np.ndarray
    offsets: np.ndarray
    chunk_offsets: np.ndarray
    chunk_ids: np.ndarray


class Pieces(NamedTuple):
    """What samples and best paths alike read of a vocabulary of V ids.

    slots int32 [2 N], piece_at int32 [N]: a trie of reversed pieces (kernels/tables/trie.py); lengths int32 [V]: bytes
    of every piece; longest: bytes of the longest arc
    unk_id: the unknown id or -1; byte_ids int32 [256]: -1 where missing; look_up: whether a run of unknown arcs may be
    a piece; apart: each of them is an unknown id; spells: unknown arcs are always spelled in byte pieces
    is_bytes: positions are bytes, not characters; by_words: no piece holds a "▁" but at its beginning
    pairs, keys, pages, characters, joined: of a CutTable (kernels/tables/cuts.py)
    """

    slots: np.ndarray
    piece_at: np.ndarray
    lengths: np.ndarray
    longest: int
    unk_id: int
    byte_ids: np.ndarray
    look_up: bool
    apart: bool
    spells: bool
    is_bytes: bool
    by_words: bool
    pairs: np.ndarray
    keys: np.ndarray
    pages: np.ndarray
    characters: np.ndarray
    joined: np.ndarray


class Arcs(NamedTuple):
    """An Automaton's lists of arcs (kernels/tables/automaton.py), each arc's value beside it.

    states, lists, count_bits: of the Automaton
    values float64 and words int64 are the same memory: of arc i the value, its weight or score, is at values[2 i],
    length << 32 | piece at words[2 i + 1]
    """

    states: np.ndarray
    lists: np.ndarray
    count_bits: np.uint64
    values: np.ndarray
    words: np.ndarray


class SampleModel(NamedTuple):
    """A vocabulary at one alpha, of which samples are drawn.

    weights float64 [V], unk_weights [5]: of pieces, and of unknown arcs by their bytes, times 2**power for each byte,
    so that scores stay near 1 (to scale by powers of two is exact); inverses, unk_inverses: 1 / weight
    log_weights float64 [V], unk_log_weight: what a path's pieces sum up to. Where byte pieces spell unknown arcs, the
    byte that begins a character has the unknown arc's, and those that go on have 0
    lists_known: no arc in the automaton's lists is unknown, or the unknown id's
    """

    pieces: Pieces
    arcs: Arcs
    weights: np.ndarray
    unk_weights: np.ndarray
    inverses: np.ndarray
    unk_inverses: np.ndarray
    power: int
    log_weights: np.ndarray
    unk_log_weight: float
    lists_known: bool


class BestModel(NamedTuple):
    """A vocabulary whose best paths are looked for; scores have the dtype of the tool's sums.

    scores [V] with byte pieces as in SampleModel, unk_score
    lowest: the score of what no path reaches; reset: the sum at which the tool begins anew
    rounding, extreme: n sums of terms up to `extreme`, from a start up to B, err by at most half of
    n (B + n extreme) rounding
    """

    pieces: Pieces
    scores: np.ndarray
    unk_score: np.floating
    lowest: np.floating
    reset: float
    rounding: float
    extreme: float


class Group(NamedTuple):
    """Scratch of a group of parts of up to n bytes.

    int64 [n + 1], but words and divided [2 n] and part_ends [P]:
    segments, places  the segments' boundaries, and what is known of each (layout.py)
    ends              where a segment's arcs, and at last its ids, end
    units, unit_places  the same of words and chunks (segments.py)
    divided           units of several segments, each next to its first segment
    todo              segments or units that are listed; hashes[i], words[2 i]: of what is listed, by its number
    to_read           segments in which arcs may be other than known pieces
    part_ends         how many segments there are up to the end of each part
    """

    segments: np.ndarray
    places: np.ndarray
    ends: np.ndarray
    units: np.ndarray
    unit_places: np.ndarray
    divided: np.ndarray
    todo: np.ndarray
    hashes: np.ndarray
    to_read: np.ndarray
    words: np.ndarray
    part_ends: np.ndarray


@compiled
def new_group(n, n_parts):
    """Scratch for groups of up to n bytes and n_parts parts."""
    rows = np.empty((8, n + 1), np.int64)
    pairs = np.empty((2, 2 * n + 2), np.int64)
    return Group(rows[0], rows[1], rows[2], rows[3], rows[4], pairs[0], rows[5], rows[6], rows[7], pairs[1],
                 np.empty(n_parts, np.int64))  # fmt: skip


class Draws(NamedTuple):
    """Scratch of the samples of a group: its segments but those of one path that is a piece, and their paths.

    drawn              int64 [n + 1], these segments, then the number of all
    listed             int64, which of them have lists
    positions, doc_ids  int64, uint64, where in its document each ends, and the document's id
    numbers            uint64, the bits of the number that is due there
    found, paths       int32, lists of arcs by position; paths that were traced ahead (lists.py)
    z, z_exponent      float64, int64, scores of segments that need exponents, one after another, then those of one that
                       is worked on block by block (forward.py)
    """

    drawn: np.ndarray
    listed: np.ndarray
    positions: np.ndarray
    doc_ids: np.ndarray
    numbers: np.ndarray
    found: np.ndarray
    paths: np.ndarray
    z: np.ndarray
    z_exponent: np.ndarray


@compiled
def new_draws(n, n_of_blocks=0):
    """Scratch for groups of up to n bytes, and n_of_blocks scores."""
    rows = np.empty((3, n + 1), np.int64)
    numbers = np.empty((2, n), np.uint64)
    return Draws(rows[0], rows[1], rows[2], numbers[0], numbers[1], np.empty(n, np.int32),
                 np.empty(n + MARGIN, np.int32), np.empty(2 * n + 1 + n_of_blocks),
                 np.empty(2 * n + 1 + n_of_blocks, np.int64))  # fmt: skip
