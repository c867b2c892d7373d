// Sums over the paths of a lattice (lattice.cuh): forward and backward scores, arc posteriors, sums along rows.
//
// A thread per range, or per row; it owns what it writes there. 32 bytes per position and 8 per arc.
// Sums are mantissas in [0.5, 1) with exponents, zero is (0, 0). kernels/cpu/lattice/sums.py does the same operations in
// the same order. Does not: take logs, divide.
#include "common/lattice.cuh"

// z[e] = the sum of z[s] * weight over the arcs into e, from the shortest to the longest.
extern "C" __global__ void forward_sums(i64 n, const i64* __restrict__ starts, const i64* __restrict__ stops,
                                        const i64* __restrict__ arc_offsets, const int* __restrict__ lengths,
                                        const double* __restrict__ weights, double* z, i64* z_exponents) {
    const i64 i = thread_index();
    if (i >= n) return;
    const i64 start = starts[i];
    for (i64 e = start + 1; e <= stops[i]; ++e) {
        Scaled total = {0.0, 0};
        for (i64 j = arc_offsets[e]; j < arc_offsets[e + 1]; ++j)
            total = add(total, through(z, z_exponents, e - lengths[j], start, weights[j]));
        z[e] = total.mantissa;
        z_exponents[e] = total.exponent;
    }
}

// b[s] = the sum of weight * b[e] over the arcs out of s, from the longest to the shortest; b is initially 0.
extern "C" __global__ void backward_sums(i64 n, const i64* __restrict__ starts, const i64* __restrict__ stops,
                                         const i64* __restrict__ arc_offsets, const int* __restrict__ lengths,
                                         const double* __restrict__ weights, double* b, i64* b_exponents) {
    const i64 i = thread_index();
    if (i >= n) return;
    const i64 stop = stops[i];
    for (i64 e = stop; e > starts[i]; --e) {
        if (e < stop && b[e] == 0.0) continue;
        for (i64 j = arc_offsets[e]; j < arc_offsets[e + 1]; ++j) {
            const i64 s = e - lengths[j];
            const Scaled sum = add({b[s], b_exponents[s]}, through(b, b_exponents, e, stop, weights[j]));
            b[s] = sum.mantissa;
            b_exponents[s] = sum.exponent;
        }
    }
}

// posteriors f64 [A]: z[s] * weight * b[e] / z[stop], 0 below 2^FAR_BELOW; inverse f64 [n]: 1 / mantissa of z[stop].
extern "C" __global__ void arc_posteriors(i64 n, const i64* __restrict__ starts, const i64* __restrict__ stops,
                                          const i64* __restrict__ arc_offsets, const int* __restrict__ lengths,
                                          const double* __restrict__ weights, const double* __restrict__ z,
                                          const i64* __restrict__ z_exponents, const double* __restrict__ b,
                                          const i64* __restrict__ b_exponents, const double* __restrict__ inverse,
                                          double* __restrict__ posteriors) {
    const i64 i = thread_index();
    if (i >= n) return;
    const i64 start = starts[i], stop = stops[i];
    for (i64 e = start + 1; e <= stop; ++e)
        for (i64 j = arc_offsets[e]; j < arc_offsets[e + 1]; ++j) {
            const i64 s = e - lengths[j];
            Scaled product = scaled(weights[j], -z_exponents[stop]);
            if (s > start) product = scaled(product.mantissa * z[s], product.exponent + z_exponents[s]);
            if (e < stop) product = scaled(product.mantissa * b[e], product.exponent + b_exponents[e]);
            posteriors[j] = lowered(product.mantissa * inverse[i], product.exponent);
        }
}

// For each of values f64, in rows (offsets): the sums before it and after it in its row; and row totals.
extern "C" __global__ void running_sums(i64 n, const i64* __restrict__ offsets, const double* __restrict__ values,
                                        double* __restrict__ before, double* __restrict__ after,
                                        double* __restrict__ totals) {
    const i64 i = thread_index();
    if (i >= n) return;
    double total = 0.0;
    for (i64 j = offsets[i]; j < offsets[i + 1]; ++j) {
        before[j] = total;
        total += values[j];
    }
    totals[i] = total;
    total = 0.0;
    for (i64 j = offsets[i + 1] - 1; j >= offsets[i]; --j) {
        after[j] = total;
        total += values[j];
    }
}

// others[j] = the sum of the values f64 before j in its row (offsets), plus that of those after it.
extern "C" __global__ void other_sums(i64 n, const i64* __restrict__ offsets, const double* __restrict__ values,
                                      double* __restrict__ others) {
    const i64 i = thread_index();
    if (i >= n) return;
    double total = 0.0;
    for (i64 j = offsets[i]; j < offsets[i + 1]; ++j) {
        others[j] = total;
        total += values[j];
    }
    total = 0.0;
    for (i64 j = offsets[i + 1] - 1; j >= offsets[i]; --j) {
        others[j] += total;
        total += values[j];
    }
}

// The sum of each row of values f64, from the first to the last.
extern "C" __global__ void row_sums(i64 n, const i64* __restrict__ offsets, const double* __restrict__ values,
                                    double* __restrict__ totals) {
    const i64 i = thread_index();
    if (i >= n) return;
    double total = 0.0;
    for (i64 j = offsets[i]; j < offsets[i + 1]; ++j) total += values[j];
    totals[i] = total;
}
