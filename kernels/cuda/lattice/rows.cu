// What is known of distinct ranges, copied to each range of the lattice, or into a padded tensor.
//
// In and out as in kernels/cpu/lattice/rows.py; a thread per range of the lattice, which owns what it writes.
#include "common/text.cuh"

// out[firsts[i]], ... = the f64 values[starts[rows[i]]:stops[rows[i]]], each plus added[i].
extern "C" __global__ void copy_rows(i64 n, const i64* __restrict__ rows, const i64* __restrict__ starts,
                                     const i64* __restrict__ stops, const double* __restrict__ values,
                                     const double* __restrict__ added, const i64* __restrict__ firsts,
                                     double* __restrict__ out) {
    const i64 i = thread_index();
    if (i >= n) return;
    const i64 row = rows[i], start = starts[row];
    for (i64 k = 0; k < stops[row] - start; ++k) out[firsts[i] + k] = values[start + k] + added[i];
}

// out[firsts[i] + k * width], ... = the f64 values of the arcs into position k of range rows[i], from 1 on.
extern "C" __global__ void pad_arcs(i64 n, const i64* __restrict__ rows, const i64* __restrict__ starts,
                                    const i64* __restrict__ stops, const i64* __restrict__ arc_offsets,
                                    const double* __restrict__ values, const i64* __restrict__ firsts, i64 width,
                                    double* __restrict__ out) {
    const i64 i = thread_index();
    if (i >= n) return;
    const i64 row = rows[i], start = starts[row];
    for (i64 k = 1; k <= stops[row] - start; ++k) {
        const i64 first = arc_offsets[start + k];
        for (i64 j = first; j < arc_offsets[start + k + 1]; ++j) out[firsts[i] + k * width + j - first] = values[j];
    }
}
