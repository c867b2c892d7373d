// Sums over the paths of a lattice (lattice.cuh) by the number of tokens that they read as, and paths drawn given that
// number.
//
// In:  documents, for a run of unknown arcs crosses cuts: within a chunk it is one token, or where `spells` each unknown
//      arc is as many as it has bytes. arcs i32 [A] (text.cuh), marks u8 [P], unk_id, -1 if none. widths i64 [B], one
//      more than the most tokens; cell_offsets i64 [B], where the cells of a document begin, widths[i] a position.
// Out: known, unknown f64 [cells] with exponents, initially 0: the paths whose last arc is not unknown, or that end where
//      a chunk does, and the others. path i32 [num_samples, n_positions], the marks of lattice/paths.cu.
//
// A thread per document (and sample), which owns its cells (its marks). 32 bytes per cell. kernels/cpu/lattice/tokens.py
// does the same operations in the same order. Does not: look a run of unknown arcs up as a piece.
#include "common/lattice.cuh"
#include "common/philox.cuh"

__device__ __forceinline__ void add_to(double* mantissas, i64* exponents, i64 at, Scaled term) {
    const Scaled sum = add({mantissas[at], exponents[at]}, term);
    mantissas[at] = sum.mantissa;
    exponents[at] = sum.exponent;
}

extern "C" __global__ void token_sums(i64 n, const i64* __restrict__ doc_positions, const i64* __restrict__ arc_offsets,
                                      const int* __restrict__ arcs, const int* __restrict__ lengths,
                                      const double* __restrict__ weights, const u8* __restrict__ marks, i64 unk_id,
                                      i64 spells, const i64* __restrict__ widths, const i64* __restrict__ cell_offsets,
                                      double* known, i64* known_exponents, double* unknown, i64* unknown_exponents) {
    const i64 i = thread_index();
    if (i >= n) return;
    const i64 start = doc_positions[i], width = widths[i], cells = cell_offsets[i];
    const Scaled one = scaled(1.0, 0);
    known[cells] = one.mantissa;
    known_exponents[cells] = one.exponent;
    for (i64 e = start + 1; e < doc_positions[i + 1]; ++e) {
        const i64 at = cells + (e - start) * width;
        for (i64 j = arc_offsets[e]; j < arc_offsets[e + 1]; ++j) {
            const bool is_unknown = arcs[j] == UNKNOWN || arcs[j] == unk_id, goes_on = is_unknown && !spells;
            for (int source = 0; source < 2; ++source) {
                const i64 n_tokens = is_unknown && spells ? lengths[j] : !(goes_on && source);
                const i64 before = at - lengths[j] * width - n_tokens;
                for (i64 t = n_tokens; t < width; ++t) {
                    const i64 cell = before + t;
                    const Scaled term = scaled((source ? unknown : known)[cell] * weights[j],
                                               (source ? unknown_exponents : known_exponents)[cell]);
                    add_to(goes_on ? unknown : known, goes_on ? unknown_exponents : known_exponents, at + t, term);
                }
            }
        }
        if ((marks[e] & CHUNK) || e + 1 == doc_positions[i + 1])
            for (i64 to = at; to < at + width; ++to) {
                add_to(known, known_exponents, to, {unknown[to], unknown_exponents[to]});
                unknown[to] = 0.0;
                unknown_exponents[to] = 0;
            }
    }
}

// Paths of exactly num_tokens[i] tokens; unit i is document i % n_docs of sample i / n_docs. At e the terms are those that
// token_sums added, in its order; the first whose running sum exceeds u times their sum is taken, else the last that adds.
extern "C" __global__ void draw_by_tokens(
    i64 n, const i64* __restrict__ doc_positions, i64 n_docs, const i64* __restrict__ arc_offsets,
    const int* __restrict__ arcs, const int* __restrict__ lengths, const double* __restrict__ weights,
    const u8* __restrict__ marks, i64 unk_id, i64 spells, const i64* __restrict__ widths,
    const i64* __restrict__ cell_offsets, const double* __restrict__ known, const i64* __restrict__ known_exponents,
    const double* __restrict__ unknown, const i64* __restrict__ unknown_exponents, const i64* __restrict__ num_tokens,
    u64 seed, const u64* __restrict__ doc_ids, i64 n_positions, int* __restrict__ path) {
    const i64 i = thread_index();
    if (i >= n) return;
    const i64 i_doc = i % n_docs, start = doc_positions[i_doc], width = widths[i_doc], cells = cell_offsets[i_doc];
    i64 t = num_tokens[i_doc];
    bool asks_unknown = false, is_end = true;
    for (i64 e = doc_positions[i_doc + 1] - 1; e > start;) {
        is_end = is_end || (marks[e] & CHUNK);
        const i64 at = cells + (e - start) * width;
        const double u =
            uniform(seed, static_cast<u32>(e - start), static_cast<u32>(i / n_docs), doc_ids[i_doc]);
        const Scaled target = asks_unknown && !is_end ? scaled(u * unknown[at + t], unknown_exponents[at + t])
                                                      : scaled(u * known[at + t], known_exponents[at + t]);
        Scaled running = {0.0, 0};
        i64 arc = -1, t_next = t;
        bool from_unknown = false;
        for (i64 k = 2 * arc_offsets[e]; k < 2 * arc_offsets[e + 1]; ++k) {
            const i64 j = k >> 1;
            const bool is_unknown = arcs[j] == UNKNOWN || arcs[j] == unk_id, goes_on = is_unknown && !spells;
            const i64 t_before = t - (is_unknown && spells ? lengths[j] : !(goes_on && (k & 1)));
            if (t_before < 0 || !(is_end || goes_on == asks_unknown)) continue;
            const i64 cell = at - lengths[j] * width + t_before;
            const Scaled term = k & 1 ? scaled(unknown[cell] * weights[j], unknown_exponents[cell])
                                      : scaled(known[cell] * weights[j], known_exponents[cell]);
            if (term.mantissa == 0.0) continue;
            arc = j;
            t_next = t_before;
            from_unknown = k & 1;
            running = add(running, term);
            if (greater(running, target)) break;
        }
        path[i / n_docs * n_positions + e] = static_cast<int>(arc - arc_offsets[e]);
        t = t_next;
        asks_unknown = from_unknown;
        is_end = false;
        e -= lengths[arc];
    }
}
