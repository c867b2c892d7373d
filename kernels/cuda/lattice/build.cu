// The arcs of a batch as ragged arrays: counted, then written. Marks come from cuts.cu.
//
// In:  values u8 [n]; marks u8 [n + 1] with CHUNK, TOKEN and CUT; chunk_offsets i64, chunk_ids i32; slots and
//      piece_at, the trie of reversed pieces; has_unknown, whether a symbol without a piece is an arc; is_bytes, as
//      IS_BYTES.
// Out: counts i32 [n], the arcs that end after each byte; arcs and lengths i32 [A], shortest first.
//
// A thread per byte; it owns the entries of the arcs that end after it. 4 bytes per byte of text and 8 per arc.
// Does not: weight arcs, or find which are reachable.
#include "common/trie.cuh"

// Calls found(length, arc) for every arc into e, shortest first.
template <class Found>
__device__ __forceinline__ void arcs_into(const u8* text, const u8* marks, i64 n, i64 e, const Node* slots,
                                          const int* piece_at, bool has_unknown, bool is_bytes, Found found) {
    if (!is_bytes && e < n && (text[e] & 0xC0) == 0x80) return;
    const int symbol = symbol_into(text, e, is_bytes);
    int length = 0;
    double value;
    Walk walk = root(slots);
    while ((length == 0 || !(marks[e - length] & CUT)) && descend(slots, walk, text[e - length - 1], value)) {
        ++length;
        const int piece = piece_at[walk.node];
        if (piece >= 0) found(length, piece);
        else if (has_unknown && length == symbol) found(length, UNKNOWN);
    }
    if (has_unknown && length < symbol) found(symbol, UNKNOWN);
}

extern "C" __global__ void count_arcs(i64 n, const u8* __restrict__ values, const u8* __restrict__ marks,
                                      const Node* __restrict__ slots, const int* __restrict__ piece_at,
                                      i64 has_unknown, i64 is_bytes, int* __restrict__ counts) {
    const i64 i = thread_index();
    if (i >= n) return;
    int count = 0;
    if (marks[i] & TOKEN) count = marks[i + 1] & CHUNK;
    else arcs_into(values, marks, n, i + 1, slots, piece_at, has_unknown, is_bytes, [&](int, int) { ++count; });
    counts[i] = count;
}

// firsts i64 [n]: where the arcs that end after each byte begin.
extern "C" __global__ void place_arcs(i64 n, const u8* __restrict__ values, const u8* __restrict__ marks,
                                      const i64* __restrict__ chunk_offsets, const int* __restrict__ chunk_ids,
                                      i64 n_chunks, const Node* __restrict__ slots, const int* __restrict__ piece_at,
                                      i64 has_unknown, i64 is_bytes, const i64* __restrict__ firsts,
                                      int* __restrict__ arcs, int* __restrict__ lengths) {
    const i64 i = thread_index();
    if (i >= n) return;
    i64 j = firsts[i];
    if (marks[i] & TOKEN) {
        if (!(marks[i + 1] & CHUNK)) return;
        const i64 i_chunk = document_of(chunk_offsets, n_chunks, i + 1);
        arcs[j] = TOKEN_ARC - chunk_ids[i_chunk];
        lengths[j] = static_cast<int>(i + 1 - chunk_offsets[i_chunk]);
        return;
    }
    arcs_into(values, marks, n, i + 1, slots, piece_at, has_unknown, is_bytes, [&](int length, int arc) {
        arcs[j] = arc;
        lengths[j] = length;
        ++j;
    });
}
