// Different paths of each document, drawn one after another by weight: sampling without replacement.
//
// In:  the lattice of lattice.cuh with the forward scores z of whole documents; seed, doc_ids u64 [n]; row_offsets and
//      cell_offsets i64 [n + 1], the rows of each document and where their cells begin.
// Out: path i32 [cells], the marks of lattice/paths.cu; rest f64 [rows] with exponents, what is left after each row.
//
// A path is drawn from its end. The suffixes drawn so far form a tree; what is left of a node, a position with the suffix
// that follows it, is the summed weight of the paths from the document's start to there that are not yet drawn: z of the
// position if no drawn path contains the node. It is summed again over the node's arcs after each draw, never subtracted
// from, so it reaches exactly 0. A row is a drawn path, with a cell for each of the document's positions; the first row
// to reach a node owns it. A row leaves the tree at one node, its branch, and owns those before it.
//
// A thread per document, which it owns; rows follow one another, and so do the positions of a row. 24 bytes per cell, 28
// per row and 16 per position. kernels/cpu/lattice/without_replacement.py does the same operations in the same
// order. Does not: count paths (there must be as many as rows), compute inclusion probabilities.
#include "common/lattice.cuh"
#include "common/philox.cuh"

// The tree of one document; pointers are to the cell of the document's start in its first row.
struct Tree {
    i64 n_cells;
    int* path;
    int* siblings;  // the next row that takes another arc into the same node; begins with the owner, ends with -1
    double* left;
    i64* exponents;

    __device__ i64 cell(i64 row, i64 p) const { return row * n_cells + p; }

    // The owner of the node where the arc of this rank starts, into the node at p of this owner; -1 outside the tree.
    __device__ i64 child(i64 owner, i64 p, int rank) const {
        while (owner >= 0 && path[cell(owner, p)] != rank) owner = siblings[cell(owner, p)];
        return owner;
    }
};

struct Choice {
    int rank;
    int child;
    Scaled sum;
};

// The document's arcs; offsets and z are those of its start.
struct Document {
    const i64* arc_offsets;
    const int* lengths;
    const double* weights;
    const double* z;
    const i64* exponents;

    // Add what is left of the arcs into the node at e, shortest first, until the sum exceeds the target.
    __device__ Choice add_arcs(const Tree& tree, i64 e, i64 owner, Scaled target) const {
        Choice choice = {0, -1, {0.0, 0}};
        const i64 low = arc_offsets[e], high = arc_offsets[e + 1];
        for (i64 j = low; j < high; ++j) {
            const i64 s = e - lengths[j];
            const int rank = static_cast<int>(j - low);
            const i64 child = tree.child(owner, e, rank);
            Scaled term = {0.0, 0};
            if (child < 0) {
                term = through(z, exponents, s, 0, weights[j]);
            } else if (s > 0) {
                const i64 cell = tree.cell(child, s);
                term = scaled(tree.left[cell] * weights[j], tree.exponents[cell]);
            }
            if (term.mantissa == 0.0) continue;
            choice = {rank, static_cast<int>(child), add(choice.sum, term)};
            if (greater(choice.sum, target)) break;
        }
        return choice;
    }
};

// parents i32, branches i64 [rows]: the owner of the node where each row leaves the tree, and its position.
extern "C" __global__ void draw_without_replacement(i64 n, const i64* __restrict__ doc_positions,
                                                    const i64* __restrict__ arc_offsets,
                                                    const int* __restrict__ lengths, const double* __restrict__ weights,
                                                    const double* __restrict__ z, const i64* __restrict__ z_exponents,
                                                    u64 seed, const u64* __restrict__ doc_ids,
                                                    const i64* __restrict__ row_offsets,
                                                    const i64* __restrict__ cell_offsets, int* path, int* siblings,
                                                    double* left, i64* left_exponents, int* parents, i64* branches,
                                                    double* __restrict__ rest, i64* __restrict__ rest_exponents) {
    const i64 i = thread_index();
    if (i >= n) return;
    const Scaled unreached = {0.5, static_cast<i64>(1) << 62};  // more than any sum
    const i64 start = doc_positions[i], stop = doc_positions[i + 1] - 1 - start;
    const i64 first = cell_offsets[i], first_row = row_offsets[i];
    const Document document = {arc_offsets + start, lengths, weights, z + start, z_exponents + start};
    const Tree tree = {stop + 1, path + first, siblings + first, left + first, left_exponents + first};
    parents += first_row;
    branches += first_row;
    for (i64 row = 0; row < row_offsets[i + 1] - first_row; ++row) {
        i64 owner = row > 0 ? 0 : -1;
        parents[row] = -1;
        branches[row] = -1;
        for (i64 e = stop; e > 0;) {
            const i64 node = tree.cell(owner, e);
            const Scaled mass = owner < 0 ? Scaled{document.z[e], document.exponents[e]}
                                          : Scaled{tree.left[node], tree.exponents[node]};
            const double u = uniform(seed, static_cast<u32>(e), static_cast<u32>(row), doc_ids[i]);
            const Choice choice = document.add_arcs(tree, e, owner, scaled(u * mass.mantissa, mass.exponent));
            const i64 cell = tree.cell(row, e);
            tree.path[cell] = choice.rank;
            if (owner >= 0 && choice.child < 0) {
                tree.siblings[cell] = tree.siblings[node];
                tree.siblings[node] = static_cast<int>(row);
                parents[row] = static_cast<int>(owner);
                branches[row] = e;
            }
            owner = choice.child;
            e -= lengths[document.arc_offsets[e] + choice.rank];
        }
        owner = row;
        for (i64 e = 1; e <= stop; ++e) {
            if (tree.path[tree.cell(row, e)] < 0) continue;
            if (e == branches[owner]) owner = parents[owner];
            const Scaled sum = document.add_arcs(tree, e, owner, unreached).sum;
            const i64 node = tree.cell(owner, e);
            tree.left[node] = sum.mantissa;
            tree.exponents[node] = sum.exponent;
        }
        rest[first_row + row] = tree.left[stop];
        rest_exponents[first_row + row] = tree.exponents[stop];
    }
}
