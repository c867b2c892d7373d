// The terms of log-probabilities: the sum of log-weights of each part, and its partition.
//
// In:  path i32 [num_samples, n]; cuts u8 [n + 1]; z and exponents (forward_sample.cu); part_offsets i64 [n_parts + 1],
//      from 0 to n (kernels/cpu/bulk/parts.py); log_weights f64 [V], unk_log_weight.
// Out: part_logs f64 [n_parts, num_samples]; part_z f64 and part_exponents i64 [n_parts].
// A thread owns a part of one sample, and adds and multiplies from its first byte to its last, as the CPU does.
#include "common/scaled.cuh"

extern "C" __global__ void weigh_parts(const u8* __restrict__ cuts, i64 n, i64 num_samples, const int* __restrict__ path,
                                       const double* __restrict__ z, const i64* __restrict__ exponents,
                                       const i64* __restrict__ part_offsets, i64 n_parts,
                                       const double* __restrict__ log_weights, double unk_log_weight,
                                       double* __restrict__ part_logs, double* __restrict__ part_z,
                                       i64* __restrict__ part_exponents) {
    const i64 i_part = thread_index() / num_samples, i_sample = thread_index() % num_samples;
    if (i_part >= n_parts) return;
    const i64 start = part_offsets[i_part], stop = part_offsets[i_part + 1];
    double total = 0.0;
    for (i64 p = start; p < stop; ++p) {
        const int arc = path[i_sample * n + p];
        if (arc >= 0) total += log_weights[arc];
        else if (arc == UNKNOWN) total += unk_log_weight;
    }
    part_logs[thread_index()] = total;
    if (i_sample > 0) return;
    Scaled product = scaled(1.0, 0);
    for (i64 e = start + 1; e <= stop; ++e)
        if ((cuts[e] & CUT) && !(cuts[e - 1] & TOKEN))
            product = scaled(product.mantissa * z[e - 1], product.exponent + (cuts[e] & LONG ? exponents[e - 1] : 0));
    part_z[i_part] = product.mantissa;
    part_exponents[i_part] = product.exponent;
}
