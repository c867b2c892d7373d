"""Segments of a stretch of whole parts: what lies between static cuts, or a chunk that is one token as it stands."""

from numba import njit

from gpu_lattice.kernels.cpu.cuts import find_cuts

PLAIN = 0
SCALED = 1
TOKEN = 2


@njit(nogil=True, cache=True)
def find_segments(values, start, stop, chunk_offsets, chunk_ids, i_chunk, pairs, keys, is_bytes, segments,
                  kinds):  # fmt: skip
    """Write the boundaries of the segments of start..stop, those two included, to segments; returns how many segments.

    start, stop: boundaries of parts. i_chunk: the chunk that holds the first byte. segments int64, at least
    stop - start + 1 long; kinds uint8, PLAIN or, for a chunk that is a token, TOKEN (the forward stage makes SCALED of
    PLAIN where it must).
    """
    segments[0] = start
    n = 0
    p = start
    while p < stop:
        chunk_start, chunk_stop = chunk_offsets[i_chunk], chunk_offsets[i_chunk + 1]
        if chunk_ids[i_chunk] >= 0:
            kinds[n] = TOKEN
            n += 1
            segments[n] = chunk_stop
        else:
            found = find_cuts(values, p, stop, chunk_start, chunk_stop, pairs, keys, is_bytes, segments[n + 1 :])
            kinds[n : n + found] = PLAIN
            n += found
        p = segments[n]
        i_chunk += 1
    return n
