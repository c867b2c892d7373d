// One path through each range of a lattice (lattice.cuh): the best one, or perfect samples.
//
// A path is given by marks: where an arc of it ends, the arc's rank among those into that position, elsewhere -1.
// A thread per range (and sample); it owns the marks within. 12 bytes per position, and 4 per position and sample.
// kernels/cpu/lattice/paths.py does the same operations in the same order. Does not: read ids (lattice/emit.cu).
#include "common/lattice.cuh"
#include "common/philox.cuh"

// best[e] = the greatest best[s] + score over the arcs into e, back[e] its rank, in a tie the longest arc's; a score of
// -inf means no arc.
extern "C" __global__ void best_paths(i64 n, const i64* __restrict__ starts, const i64* __restrict__ stops,
                                      const i64* __restrict__ arc_offsets, const int* __restrict__ lengths,
                                      const double* __restrict__ scores, double* best, int* back) {
    const i64 i = thread_index();
    if (i >= n) return;
    const double lowest = __longlong_as_double(static_cast<i64>(0xFFF0000000000000));
    const i64 start = starts[i];
    for (i64 e = start + 1; e <= stops[i]; ++e) {
        double most = lowest;
        int rank = -1;
        for (i64 j = arc_offsets[e]; j < arc_offsets[e + 1]; ++j) {
            const i64 s = e - lengths[j];
            const double score = s == start ? scores[j] : best[s] + scores[j];
            if (score >= most && score > lowest) {
                most = score;
                rank = static_cast<int>(j - arc_offsets[e]);
            }
        }
        best[e] = most;
        back[e] = rank;
    }
}

// Mark the path found by following back from stop.
extern "C" __global__ void follow_back(i64 n, const i64* __restrict__ starts, const i64* __restrict__ stops,
                                       const i64* __restrict__ arc_offsets, const int* __restrict__ lengths,
                                       const int* __restrict__ back, int* __restrict__ path) {
    const i64 i = thread_index();
    if (i >= n) return;
    for (i64 e = stops[i]; e > starts[i]; e -= lengths[arc_offsets[e] + back[e]]) path[e] = back[e];
}

// Mark perfect samples; unit i is range i % n_ranges of sample i / n_ranges, path i32 [num_samples, n_positions].
// The choice at e is the first arc, shortest first, whose running sum exceeds the target; if none does, the last that
// adds. Targets are those of `sample` in reference.py. inverses f64 [A]: 1 / weights.
// Source: Su Jianlin, https://kexue.fm/archives/9811.
extern "C" __global__ void draw_paths(i64 n, const i64* __restrict__ starts, const i64* __restrict__ stops,
                                      i64 n_ranges, const i64* __restrict__ range_doc,
                                      const i64* __restrict__ doc_positions, const i64* __restrict__ arc_offsets,
                                      const int* __restrict__ lengths, const double* __restrict__ weights,
                                      const double* __restrict__ inverses, const double* __restrict__ z,
                                      const i64* __restrict__ z_exponents, u64 seed, const u64* __restrict__ doc_ids,
                                      i64 n_positions, int* __restrict__ path) {
    const i64 i = thread_index();
    if (i >= n) return;
    const i64 i_range = i % n_ranges, i_sample = i / n_ranges;
    const i64 start = starts[i_range], i_doc = range_doc[i_range];
    Scaled target = {0.0, 0};
    for (i64 e = stops[i_range], due = e; e > start;) {
        if (e <= due) {
            const u32 position = static_cast<u32>(e - doc_positions[i_doc]);
            const double u = uniform(seed, position, static_cast<u32>(i_sample), doc_ids[i_doc]);
            target = scaled(u * z[e], z_exponents[e]);
            do due -= DRAW_BYTES;
            while (e <= due);
        }
        Scaled running = {0.0, 0}, before = running;
        int rank = 0;
        for (i64 j = arc_offsets[e]; j < arc_offsets[e + 1]; ++j) {
            const Scaled term = through(z, z_exponents, e - lengths[j], start, weights[j]);
            if (term.mantissa == 0.0) continue;
            rank = static_cast<int>(j - arc_offsets[e]);
            before = running;
            running = add(running, term);
            if (greater(running, target)) break;
        }
        path[i_sample * n_positions + e] = rank;
        const i64 arc = arc_offsets[e] + rank;
        e -= lengths[arc];
        target = subtract(target, before);
        target = scaled(target.mantissa * inverses[arc], target.exponent);
    }
}
