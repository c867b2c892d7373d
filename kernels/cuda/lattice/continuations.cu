// Where a text can be resumed: best paths to given positions, and the pieces that begin with the rest of a text.
//
// In:  the lattice (lattice.cuh) with back i32 [P] of best_paths; text u8; the pieces sorted by bytes, ragged.
// A thread per row, which it owns; no memory besides its output. kernels/cpu/lattice/continuations.py does the same.
// Does not: choose the positions, read ids (lattice/emit.cu).
#include "common/sorted.cuh"

// Mark the path that back leads along from ends[i] to starts[i]; path[firsts[i] + p] is position starts[i] + p.
extern "C" __global__ void mark_back(i64 n, const i64* __restrict__ starts, const i64* __restrict__ ends,
                                     const i64* __restrict__ arc_offsets, const int* __restrict__ lengths,
                                     const int* __restrict__ back, const i64* __restrict__ firsts,
                                     int* __restrict__ path) {
    const i64 i = thread_index();
    if (i >= n) return;
    for (i64 e = ends[i]; e > starts[i]; e -= lengths[arc_offsets[e] + back[e]])
        path[firsts[i] + e - starts[i]] = back[e];
}

// How many pieces come before the bytes or equal them; with_longer: those that begin with them too.
__device__ __forceinline__ i64 count_up_to(const u8* bytes, i64 length, const u8* values, const i64* offsets, i64 n,
                                           bool with_longer) {
    i64 low = 0, high = n;
    while (low < high) {
        const i64 middle = (low + high) / 2, whole = offsets[middle + 1] - offsets[middle];
        const i64 compared = with_longer && length < whole ? length : whole;
        if (compare(values + offsets[middle], compared, bytes, length) <= 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

// The pieces firsts[i]..lasts[i] are those that begin with text[starts[i]..stops[i]) and are longer.
extern "C" __global__ void find_longer(i64 n, const i64* __restrict__ starts, const i64* __restrict__ stops,
                                       const u8* __restrict__ text, const u8* __restrict__ sorted_values,
                                       const i64* __restrict__ sorted_offsets, i64 n_sorted, i64* __restrict__ firsts,
                                       i64* __restrict__ lasts) {
    const i64 i = thread_index();
    if (i >= n) return;
    const u8* rest = text + starts[i];
    const i64 length = stops[i] - starts[i];
    firsts[i] = count_up_to(rest, length, sorted_values, sorted_offsets, n_sorted, false);
    lasts[i] = count_up_to(rest, length, sorted_values, sorted_offsets, n_sorted, true);
}
