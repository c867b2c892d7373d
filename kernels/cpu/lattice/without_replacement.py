"""Different paths of each document, drawn one after another by weight: sampling without replacement.

A path is drawn from its end. The suffixes drawn so far form a tree; what is left of a node, a position with the suffix
that follows it, is the summed weight of the paths from the document's start to there that are not yet drawn: z of the
position if no drawn path contains the node. It is summed again over the node's arcs after each draw, never subtracted
from, so it reaches exactly 0.

A row is a drawn path; it has a cell for each of the document's n + 1 positions. The first row to reach a node owns it,
and its cell is the node's. A row leaves the tree at one node, its branch, and owns those before it.
    path      int32, initially -1: marks as in lattice/paths.py, of the whole row
    siblings  int32, initially -1: the next of the rows that take other arcs into the same node, its owner first
    left      float64, with exponents, initially 0: what is left of the node
kernels/cuda/lattice/without_replacement.cu does the same operations in the same order.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.philox import uniform
from gpu_lattice.kernels.cpu.scaled import add, greater, scaled

# More than any sum.
UNREACHED = np.int64(1) << np.int64(62)


@compiled
def draw_without_replacement(low, high, doc_positions, arc_offsets, lengths, weights, z, z_exponents, seed, doc_ids,
                             row_offsets, cell_offsets, path, siblings, left, left_exponents, parents, branches, rest,
                             rest_exponents):  # fmt: skip
    """Draw the rows row_offsets[i] to row_offsets[i + 1] of documents low..high, whose cells begin at cell_offsets[i].

    The draw at e is the first arc, shortest first, whose running sum exceeds u times what is left; if none does, the
    last that adds. u's counter has the row's number in the document as its sample.
    parents int32, branches int64: the owner of the node where each row leaves the tree, and its position.
    rest float64, with exponents: what is left of the whole document after each row.
    """
    for i in range(low, high):
        start, stop = doc_positions[i], doc_positions[i + 1] - 1
        n_cells = stop - start + 1
        for i_row in range(row_offsets[i], row_offsets[i + 1]):
            row = i_row - row_offsets[i]
            first = cell_offsets[i] - start
            cells = first + row * n_cells
            owner = np.int64(0) if row > 0 else np.int64(-1)
            parents[i_row], branches[i_row] = -1, -1
            e = stop
            while e > start:
                mass, exponent = z[e], z_exponents[e]
                if owner >= 0:
                    cell = first + owner * n_cells + e
                    mass, exponent = left[cell], left_exponents[cell]
                target, exponent = scaled(uniform(seed, e - start, row, doc_ids[i]) * mass, exponent)
                rank, child, _, _ = _add_arcs(e, start, owner, first, n_cells, arc_offsets, lengths, weights, z,
                                              z_exponents, path, siblings, left, left_exponents, target,
                                              exponent)  # fmt: skip
                path[cells + e] = rank
                if owner >= 0 and child < 0:
                    cell = first + owner * n_cells + e
                    siblings[cells + e], siblings[cell] = siblings[cell], row
                    parents[i_row], branches[i_row] = owner, e
                owner = child
                e -= lengths[arc_offsets[e] + rank]
            owner = row
            for e in range(start + 1, stop + 1):
                if path[cells + e] < 0:
                    continue
                if e == branches[row_offsets[i] + owner]:
                    owner = np.int64(parents[row_offsets[i] + owner])
                _, _, mass, exponent = _add_arcs(e, start, owner, first, n_cells, arc_offsets, lengths, weights, z,
                                                 z_exponents, path, siblings, left, left_exponents, 0.5,
                                                 UNREACHED)  # fmt: skip
                cell = first + owner * n_cells + e
                left[cell], left_exponents[cell] = mass, exponent
            rest[i_row], rest_exponents[i_row] = left[first + stop], left_exponents[first + stop]


@compiled
def _add_arcs(e, start, owner, first, n_cells, arc_offsets, lengths, weights, z, z_exponents, path, siblings, left,
              left_exponents, target, target_exponent):  # fmt: skip
    """Add what is left of the arcs into a node, shortest first, until the sum exceeds the target.

    The node is at e, and belongs to `owner`, -1 if it is outside the tree. Returns the rank of the last arc that adds,
    the owner of the node where it starts, and the sum.
    """
    running, exponent = 0.0, np.int64(0)
    last, last_child = np.int64(0), np.int64(-1)
    for j in range(arc_offsets[e], arc_offsets[e + 1]):
        s, rank = e - lengths[j], j - arc_offsets[e]
        child = owner
        while child >= 0 and path[first + child * n_cells + e] != rank:
            child = np.int64(siblings[first + child * n_cells + e])
        if s == start:
            term, term_exponent = scaled(weights[j] if child < 0 else 0.0, np.int64(0))
        elif child < 0:
            term, term_exponent = scaled(z[s] * weights[j], z_exponents[s])
        else:
            cell = first + child * n_cells + s
            term, term_exponent = scaled(left[cell] * weights[j], left_exponents[cell])
        if term == 0.0:
            continue
        last, last_child = rank, child
        running, exponent = add(running, exponent, term, term_exponent)
        if greater(running, exponent, target, target_exponent):
            break
    return last, last_child, running, exponent
