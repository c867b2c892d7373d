// A batch as the kernels see it: n normalized bytes, and for every position 0..n one byte of marks.
//
// Constants given to the compiler: IS_BYTES (1: every byte is a position; 0: positions are boundaries of characters
// of valid UTF-8), STRETCH (bytes of text per thread), LONGEST (a longer segment is left to a warp).
#pragma once

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

// Marks of a position.
constexpr u8 CHUNK = 1;  // a chunk begins here; also at n
constexpr u8 TOKEN = 2;  // the byte that follows is within a chunk that is one token
constexpr u8 CUT = 4;    // a segment begins here; also at n
constexpr u8 LONG = 8;   // the segment that ends here is done by a warp

// Codes of arcs besides piece ids (kernels/arcs.py); token i is TOKEN_ARC - i.
constexpr int UNKNOWN = -1;
constexpr int NO_ARC = -2;
constexpr int TOKEN_ARC = -3;

// Bytes of a segment, counted from its end, that share a random number (reference.py, sample).
constexpr int DRAW_BYTES = 16;

__device__ __forceinline__ i64 thread_index() {
    return static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Bytes of the symbol that begins at p.
__device__ __forceinline__ int symbol_from(const u8* text, i64 p) {
    const u8 byte = text[p];
    return IS_BYTES || byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// Bytes of the symbol that ends at e.
__device__ __forceinline__ int symbol_into(const u8* text, i64 e, bool is_bytes = IS_BYTES) {
    int length = 1;
    while (!is_bytes && (text[e - length] & 0xC0) == 0x80) ++length;
    return length;
}

// The first position from p on that has the mark, or the first one at or after limit.
__device__ __forceinline__ i64 next_mark(const u8* marks, u8 mark, i64 p, i64 limit) {
    while (p < limit && !(marks[p] & mark)) ++p;
    return p;
}

// The last position up to p that has the mark, or the first one at or below 0.
__device__ __forceinline__ i64 previous_mark(const u8* marks, u8 mark, i64 p) {
    while (p > 0 && !(marks[p] & mark)) --p;
    return p;
}

// The document that position e > 0 belongs to: doc_offsets[i] < e <= doc_offsets[i + 1].
__device__ __forceinline__ i64 document_of(const i64* doc_offsets, i64 n_docs, i64 e) {
    i64 low = 0, high = n_docs;
    while (high - low > 1) {
        const i64 middle = (low + high) / 2;
        if (doc_offsets[middle] < e) low = middle;
        else high = middle;
    }
    return low;
}
