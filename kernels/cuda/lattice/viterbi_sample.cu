// Viterbi Sampling, as in BytePiece 0.4: the best path's recursion with coin tosses for comparisons. Biased.
//
// In:  the lattice of lattice.cuh, scores f64 [A] in place of weights (-inf means no arc), document by document;
//      logits f64 [samples, n_arcs], logit(u) of uniform numbers.
// Out: path i32 [samples, n_positions], the marks of lattice/paths.cu; none if no path reaches the end.
//
// A thread per document and sample; it owns the document's sums f64 and marks. Per sample 8 bytes per arc and 12 per
// position. kernels/cpu/lattice/viterbi_sample.py does the same operations in the same order. Does not: draw, take logs.
#include "common/lattice.cuh"

// sums[e] is the score of the path drawn to e. The first of the arcs into e, from the longest to the shortest, is chosen,
// and each other replaces the choice with probability sigmoid(alpha * difference): if logit(u) < alpha * difference.
// Source: Su Jianlin, https://kexue.fm/archives/9768 and, on its flaws, /9811.
extern "C" __global__ void viterbi_sample_paths(i64 n, const i64* __restrict__ doc_positions, i64 n_docs,
                                                const i64* __restrict__ arc_offsets, const int* __restrict__ lengths,
                                                const double* __restrict__ scores, double alpha,
                                                const double* __restrict__ logits, i64 n_arcs, i64 n_positions,
                                                double* sums, int* path) {
    const i64 i = thread_index();
    if (i >= n) return;
    const double lowest = __longlong_as_double(static_cast<i64>(0xFFF0000000000000));
    const i64 i_doc = i % n_docs, i_sample = i / n_docs;
    const i64 start = doc_positions[i_doc], stop = doc_positions[i_doc + 1] - 1;
    const double* logit = logits + i_sample * n_arcs;
    sums += i_sample * n_positions;
    path += i_sample * n_positions;
    sums[start] = 0.0;
    for (i64 e = start + 1; e <= stop; ++e) {
        double score = lowest;
        int rank = -1;
        for (i64 j = arc_offsets[e + 1] - 1; j >= arc_offsets[e]; --j) {
            const double candidate = sums[e - lengths[j]] + scores[j];
            if (candidate == lowest) continue;
            if (rank < 0 || logit[j] < alpha * (candidate - score)) {
                score = candidate;
                rank = static_cast<int>(j - arc_offsets[e]);
            }
        }
        sums[e] = score;
        path[e] = rank;
    }
    i64 on_path = stop;
    for (i64 e = stop; e > start; --e) {
        if (e == on_path && path[e] >= 0) on_path -= lengths[arc_offsets[e] + path[e]];
        else path[e] = -1;
    }
}
