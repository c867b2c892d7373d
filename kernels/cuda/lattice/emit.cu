// Marked paths of a lattice to rows of ids, and sums along paths.
//
// In:  row i is a path through document row_doc[i]; its mark of the document's position p is at path[path_firsts[i] + p];
//      doc_positions i64 [B + 1]; arcs i32 [A] (text.cuh), arc_offsets i64; marks u8 [P]; text u8; the pieces sorted by
//      bytes, ragged, with their ids i32; byte_ids i32 [256], -1 if missing; unk_id, -1 if none; look_up, whether a
//      run of unknown arcs may be a piece.
// Out: counts i64 [n], ids of each row; ids i32, from id_firsts[i] on, unless writes is 0.
//
// A thread per row, which it owns. Unknown arcs become what bulk/emit.cu makes of them. 8 bytes per row besides the ids.
#include "common/sorted.cuh"

struct Unknown {
    const u8* text;
    SortedPieces pieces;
    const int* byte_ids;
    int unk_id;
    bool look_up;

    // Write what the unknown text[start..stop) becomes to ids unless that is null; returns how many.
    __device__ i64 emit(i64 start, i64 stop, int* ids) const {
        int one = unk_id;
        const i64 piece = look_up ? pieces.find(text, start, stop) : -1;
        if (piece >= 0) {
            one = pieces.ids[piece];
        } else {
            bool is_spelled = true;
            for (i64 p = start; p < stop; ++p) is_spelled = is_spelled && byte_ids[text[p]] >= 0;
            if (is_spelled) {
                for (i64 p = start; ids && p < stop; ++p) ids[p - start] = byte_ids[text[p]];
                return stop - start;
            }
        }
        if (ids) *ids = one;
        return 1;
    }
};

extern "C" __global__ void emit_rows(i64 n, const i64* __restrict__ row_doc, const i64* __restrict__ path_firsts,
                                     const int* __restrict__ path, const i64* __restrict__ doc_positions,
                                     const i64* __restrict__ arc_offsets, const int* __restrict__ arcs,
                                     const u8* __restrict__ marks, const u8* __restrict__ text,
                                     const u8* __restrict__ sorted_values, const i64* __restrict__ sorted_offsets,
                                     const int* __restrict__ sorted_ids, i64 n_sorted, const int* __restrict__ byte_ids,
                                     i64 unk_id, i64 look_up, const i64* __restrict__ id_firsts, i64 writes,
                                     i64* __restrict__ counts, int* __restrict__ ids) {
    const i64 i = thread_index();
    if (i >= n) return;
    const i64 i_doc = row_doc[i], start = doc_positions[i_doc], n_bytes = doc_positions[i_doc + 1] - start - 1;
    const Unknown unknown = {text + start - i_doc, {sorted_values, sorted_offsets, sorted_ids, n_sorted}, byte_ids,
                             static_cast<int>(unk_id), look_up != 0};
    int* out = writes ? ids + id_firsts[i] : nullptr;
    i64 count = 0, run = -1, p = 0;
    for (i64 e = 1; e <= n_bytes; ++e) {
        const int rank = path[path_firsts[i] + e];
        if (rank < 0) continue;
        const int arc = arcs[arc_offsets[start + e] + rank];
        const bool is_unknown = arc == UNKNOWN || arc == unknown.unk_id;
        if (run >= 0 && (!is_unknown || (marks[start + p] & CHUNK))) {
            count += unknown.emit(run, p, out ? out + count : nullptr);
            run = -1;
        }
        if (is_unknown) {
            if (run < 0) run = p;
        } else {
            if (out) out[count] = arc <= TOKEN_ARC ? TOKEN_ARC - arc : arc;
            ++count;
        }
        p = e;
    }
    if (run >= 0) count += unknown.emit(run, p, out ? out + count : nullptr);
    counts[i] = count;
}

// totals f64 [n]: the sum of values f64 [A] along the path of each row, from the text's start to its end.
extern "C" __global__ void path_sums(i64 n, const i64* __restrict__ row_doc, const i64* __restrict__ path_firsts,
                                     const int* __restrict__ path, const i64* __restrict__ doc_positions,
                                     const i64* __restrict__ arc_offsets, const double* __restrict__ values,
                                     double* __restrict__ totals) {
    const i64 i = thread_index();
    if (i >= n) return;
    const i64 start = doc_positions[row_doc[i]], n_bytes = doc_positions[row_doc[i] + 1] - start - 1;
    double total = 0.0;
    for (i64 e = 1; e <= n_bytes; ++e) {
        const int rank = path[path_firsts[i] + e];
        if (rank >= 0) total += values[arc_offsets[start + e] + rank];
    }
    totals[i] = total;
}
