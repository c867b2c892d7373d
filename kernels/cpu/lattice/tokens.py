"""Sums over the paths of a lattice by the number of tokens that they read as, and paths drawn given that number.

The lattice is that of lattice/sums.py, document by document, for a run of unknown arcs crosses cuts: within a chunk it
is one token, or where `spells` each unknown arc is as many as it has bytes. A cell is a position and a number of
tokens: those of document i begin at cell_offsets[i], widths[i] for each of its positions. `known` sums the paths whose
last arc is not unknown, or that end where a chunk does, `unknown` the others. Sums are mantissas with exponents,
initially 0. kernels/cuda/lattice/tokens.cu does the same operations in the same order.
"""

import numpy as np

from gpu_lattice.kernels.arcs import UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.lattice.build import CHUNK
from gpu_lattice.kernels.cpu.philox import uniform
from gpu_lattice.kernels.cpu.scaled import add, greater, scaled


@compiled
def token_sums(low, high, doc_positions, arc_offsets, arcs, lengths, weights, marks, unk_id, spells, widths,
               cell_offsets, known, known_exponents, unknown, unknown_exponents):  # fmt: skip
    """Sum the paths to every position by their tokens. known and unknown float64, with exponents int64."""
    for i in range(low, high):
        start, width, cells = doc_positions[i], widths[i], cell_offsets[i]
        known[cells], known_exponents[cells] = scaled(1.0, np.int64(0))
        for e in range(start + 1, doc_positions[i + 1]):
            at = cells + (e - start) * width
            for j in range(arc_offsets[e], arc_offsets[e + 1]):
                is_unknown = arcs[j] == UNKNOWN or arcs[j] == unk_id
                goes_on = is_unknown and not spells
                for source in range(2):
                    n_tokens = np.int64(lengths[j]) if is_unknown and spells else np.int64(not (goes_on and source))
                    before = at - lengths[j] * width - n_tokens
                    for t in range(n_tokens, width):
                        cell, to = before + t, at + t
                        if source:
                            term, exponent = scaled(unknown[cell] * weights[j], unknown_exponents[cell])
                        else:
                            term, exponent = scaled(known[cell] * weights[j], known_exponents[cell])
                        if goes_on:
                            unknown[to], unknown_exponents[to] = add(unknown[to], unknown_exponents[to], term, exponent)
                        else:
                            known[to], known_exponents[to] = add(known[to], known_exponents[to], term, exponent)
            if marks[e] & CHUNK or e + 1 == doc_positions[i + 1]:
                for to in range(at, at + width):
                    known[to], known_exponents[to] = add(known[to], known_exponents[to], unknown[to],
                                                         unknown_exponents[to])  # fmt: skip
                    unknown[to], unknown_exponents[to] = 0.0, 0


@compiled
def draw_by_tokens(low, high, doc_positions, n_docs, arc_offsets, arcs, lengths, weights, marks, unk_id, spells, widths,
                   cell_offsets, known, known_exponents, unknown, unknown_exponents, num_tokens, seed, doc_ids,
                   n_positions, path):  # fmt: skip
    """Mark a path of exactly num_tokens[i] tokens, int64 [n_docs], of which there are some; unit i is document
    i % n_docs of sample i // n_docs.

    At e the terms are those that `token_sums` added, in its order; the first whose running sum exceeds u times their
    sum is taken, else the last that adds. u is from the counter (e, sample, document).
    """
    for i in range(low, high):
        i_doc, i_sample = i % n_docs, i // n_docs
        start, width, cells = doc_positions[i_doc], widths[i_doc], cell_offsets[i_doc]
        e, t, asks_unknown, is_end = doc_positions[i_doc + 1] - 1, num_tokens[i_doc], False, True
        while e > start:
            is_end |= marks[e] & CHUNK != 0
            at = cells + (e - start) * width
            u = uniform(seed, e - start, i_sample, doc_ids[i_doc])
            if asks_unknown and not is_end:
                target, target_exponent = scaled(u * unknown[at + t], unknown_exponents[at + t])
            else:
                target, target_exponent = scaled(u * known[at + t], known_exponents[at + t])
            running, exponent = 0.0, np.int64(0)
            arc, t_next, from_unknown, found = np.int64(-1), t, False, False
            for k in range(2 * arc_offsets[e], 2 * arc_offsets[e + 1]):
                j, is_second = k >> 1, k & 1
                is_unknown = arcs[j] == UNKNOWN or arcs[j] == unk_id
                goes_on = is_unknown and not spells
                n_tokens = np.int64(lengths[j]) if is_unknown and spells else np.int64(not (goes_on and is_second))
                t_before = t - n_tokens
                if found or t_before < 0 or not (is_end or goes_on == asks_unknown):
                    continue
                cell = at - lengths[j] * width + t_before
                if is_second:
                    term, term_exponent = scaled(unknown[cell] * weights[j], unknown_exponents[cell])
                else:
                    term, term_exponent = scaled(known[cell] * weights[j], known_exponents[cell])
                if term == 0.0:
                    continue
                arc, t_next, from_unknown = j, t_before, is_second != 0
                running, exponent = add(running, exponent, term, term_exponent)
                found = greater(running, exponent, target, target_exponent)
            path[i_sample * n_positions + e] = arc - arc_offsets[e]
            t, asks_unknown, is_end = t_next, from_unknown, False
            e -= lengths[arc]
