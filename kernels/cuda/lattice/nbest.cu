// The n best paths of each document: a list of the best prefixes at every position, merged over the arcs into it.
//
// A prefix is a path from the document's start to a position. The list of position p, best first, is list_offsets[p] to
// list_offsets[p + 1] of totals f64 (the prefix's score, a sum from left to right), ranks i32 (of its last arc among
// those into p) and prefixes i32 (the index of the rest of it in the list of that arc's start). The lattice is that of
// lattice.cuh, scores f64 [A] in place of weights; a score of -inf means no arc.
//
// A thread per document, or per row; it owns the lists of the document, or the marks of the row. 16 bytes per prefix, 8
// per position and 4 per arc; then 4 per row and position. kernels/cpu/lattice/nbest.py does the same operations in the
// same order. Does not: weight paths, read ids (lattice/emit.cu).
#include "common/lattice.cuh"
#include "common/philox.cuh"

__device__ __forceinline__ double lowest() { return __longlong_as_double(static_cast<i64>(0xFFF0000000000000)); }

// counts i64 [P]: how many prefixes each position has, or `most` if there are more.
extern "C" __global__ void count_prefixes(i64 n, const i64* __restrict__ doc_positions,
                                          const i64* __restrict__ arc_offsets, const int* __restrict__ lengths,
                                          const double* __restrict__ scores, i64 most, i64* counts) {
    const i64 i = thread_index();
    if (i >= n) return;
    const i64 start = doc_positions[i];
    counts[start] = 1;
    for (i64 e = start + 1; e < doc_positions[i + 1]; ++e) {
        i64 count = 0;
        for (i64 j = arc_offsets[e]; j < arc_offsets[e + 1]; ++j)
            if (scores[j] > lowest()) {
                count += counts[e - lengths[j]];
                if (count > most) count = most;
            }
        counts[e] = count;
    }
}

// heads i32 [A], initially 0: how much of an arc's list is taken. The next prefix is the greatest that the arcs offer; in
// a tie that of the last arc, which is the longest.
extern "C" __global__ void merge_prefixes(i64 n, const i64* __restrict__ doc_positions,
                                          const i64* __restrict__ arc_offsets, const int* __restrict__ lengths,
                                          const double* __restrict__ scores, const i64* __restrict__ list_offsets,
                                          int* heads, double* totals, int* __restrict__ ranks,
                                          int* __restrict__ prefixes) {
    const i64 i = thread_index();
    if (i >= n) return;
    const i64 start = doc_positions[i];
    totals[list_offsets[start]] = 0.0;
    for (i64 e = start + 1; e < doc_positions[i + 1]; ++e)
        for (i64 place = list_offsets[e]; place < list_offsets[e + 1]; ++place) {
            double most = lowest();
            i64 taken = -1;
            for (i64 j = arc_offsets[e]; j < arc_offsets[e + 1]; ++j) {
                const i64 s = e - lengths[j], prefix = list_offsets[s] + heads[j];
                if (prefix < list_offsets[s + 1] && scores[j] > lowest()) {
                    const double total = totals[prefix] + scores[j];
                    if (total >= most) {
                        most = total;
                        taken = j;
                    }
                }
            }
            totals[place] = most;
            ranks[place] = static_cast<int>(taken - arc_offsets[e]);
            prefixes[place] = heads[taken]++;
        }
}

// Mark the path at row_rank[i] in the last list of document row_doc[i], from path[path_firsts[i]] on.
extern "C" __global__ void follow_prefixes(i64 n, const i64* __restrict__ row_doc, const i64* __restrict__ row_rank,
                                           const i64* __restrict__ doc_positions, const i64* __restrict__ arc_offsets,
                                           const int* __restrict__ lengths, const i64* __restrict__ list_offsets,
                                           const int* __restrict__ ranks, const int* __restrict__ prefixes,
                                           const i64* __restrict__ path_firsts, int* __restrict__ path) {
    const i64 i = thread_index();
    if (i >= n) return;
    const i64 start = doc_positions[row_doc[i]];
    i64 prefix = row_rank[i];
    for (i64 e = doc_positions[row_doc[i] + 1] - 1; e > start;) {
        const i64 place = list_offsets[e] + prefix;
        path[path_firsts[i] + e - start] = ranks[place];
        prefix = prefixes[place];
        e -= lengths[arc_offsets[e] + ranks[place]];
    }
}

// ranks i64 [n]: one of each document's values, drawn by weight; unit i is sample i % num_samples of a document. weights
// f64 decrease within a document (doc_offsets), totals f64 are their sums from the first on. The draw is the first whose
// running sum exceeds u * total; if none does, the last that adds. Its counter has position 0, where no arc ends.
extern "C" __global__ void draw_ranks(i64 n, const i64* __restrict__ doc_offsets, const double* __restrict__ weights,
                                      const double* __restrict__ totals, i64 num_samples, u64 seed,
                                      const u64* __restrict__ doc_ids, i64* __restrict__ ranks) {
    const i64 i = thread_index();
    if (i >= n) return;
    const i64 i_doc = i / num_samples;
    const double target = uniform(seed, 0, static_cast<u32>(i % num_samples), doc_ids[i_doc]) * totals[i_doc];
    double running = 0.0;
    i64 rank = 0;
    for (i64 j = doc_offsets[i_doc]; j < doc_offsets[i_doc + 1] && weights[j] != 0.0; ++j) {
        rank = j - doc_offsets[i_doc];
        running += weights[j];
        if (running > target) break;
    }
    ranks[i] = rank;
}
