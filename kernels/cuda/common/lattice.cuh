// A lattice as its operations see it: ragged arcs and weights, and ranges of positions whose ends no arc spans.
//
// arc_offsets i64 [P + 1]: the arcs into position p are arc_offsets[p] to arc_offsets[p + 1], shortest first; lengths
// i32 [A]; weights f64 [A], 0 or within 2^-1000 to 2^1000. A range starts[i]..stops[i] is one thread's; its forward
// scores are 1 at its start, its backward scores 1 at its stop. z[p] belongs to the range that ends at p or contains it,
// b[p] to the one that begins at p or contains it.
#pragma once
#include "common/scaled.cuh"

// What the paths to s add to the forward score of the end of an arc from there of this weight.
__device__ __forceinline__ Scaled through(const double* z, const i64* exponents, i64 s, i64 start, double weight) {
    return s == start ? scaled(weight, 0) : scaled(z[s] * weight, exponents[s]);
}
