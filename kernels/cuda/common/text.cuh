// A batch as the kernels see it: n normalized bytes, and for every position 0..n one byte of marks.
//
// Constants given to the compiler: IS_BYTES (1: every byte is a position; 0: positions are boundaries of characters
// of valid UTF-8), STRETCH (bytes of text per thread, a multiple of 4), LONGEST (a longer segment is left to a warp),
// BLOCK (threads per block).
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
// Above them, at boundaries of characters: bytes of the symbols that begin and end here, both less 1.
constexpr int BEGINS = 4, ENDS = 6;

// Codes of arcs besides piece ids (kernels/arcs.py); token i is TOKEN_ARC - i.
constexpr int UNKNOWN = -1;
constexpr int NO_ARC = -2;
constexpr int TOKEN_ARC = -3;

// Bytes of a segment, counted from its end, that share a random number (reference.py, sample).
constexpr int DRAW_BYTES = 16;

__device__ __forceinline__ i64 thread_index() {
    return static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Byte i of a word, the lowest being 0.
__device__ __forceinline__ int byte_of(u32 word, int i) {
    return static_cast<int>(__byte_perm(word, 0, 0x4440 | i));
}

// Bytes of the symbol whose first byte is this one.
__device__ __forceinline__ int symbol_of(u32 byte) {
    return IS_BYTES || byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// Bytes of the symbol that begins at p.
__device__ __forceinline__ int symbol_from(const u8* text, i64 p) {
    return symbol_of(text[p]);
}

// Bytes of the symbol that ends at e.
__device__ __forceinline__ int symbol_into(const u8* text, i64 e, bool is_bytes = IS_BYTES) {
    int length = 1;
    while (!is_bytes && (text[e - length] & 0xC0) == 0x80) ++length;
    return length;
}

// Word i of n bytes in aligned words of four, the first byte lowest, and zeros for bytes after them.
__device__ __forceinline__ u32 word_of(const u8* bytes, i64 n, i64 i) {
    u32 word = 0;
    for (int k = 0; k < 4; ++k)
        if (4 * i + k < n) word |= static_cast<u32>(bytes[4 * i + k]) << 8 * k;
    return word;
}

// Bytes in such words; words that begin before the first or after the last byte are something.
struct Words {
    const u32* words;
    u32 whole;  // words that end within the bytes
    u32 rest;   // the one after these

    __device__ Words(const u8* bytes, i64 n)
        : words(reinterpret_cast<const u32*>(bytes)), whole(static_cast<u32>(n / 4)), rest(word_of(bytes, n, n / 4)) {}
    __device__ u32 operator[](u32 i) const { return i < whole ? words[i] : rest; }
    // Words 2 i and 2 i + 1, the latter in the high half; bytes must be aligned to 8.
    __device__ u64 pair(u32 i) const {
        if (i < whole / 2) return reinterpret_cast<const u64*>(words)[i];
        return static_cast<u64>((*this)[2 * i + 1]) << 32 | (*this)[2 * i];
    }
};

// The first position from p on that has the mark, or the first one at or after limit.
__device__ __forceinline__ i64 next_mark(const u8* marks, u8 mark, i64 p, i64 limit) {
    while (p < limit && !(marks[p] & mark)) ++p;
    return p;
}

// The same, four at a time.
__device__ __forceinline__ u32 first_mark(const u32* marks, u32 mark, u32 p, u32 limit) {
    u32 i = p >> 2;
    u32 found = marks[i] & mark * 0x01010101u & 0xFFFFFFFFu << 8 * (p & 3);
    while (!found && 4 * (i + 1) < limit) found = marks[++i] & mark * 0x01010101u;
    return found ? 4 * i + (31 - __clz(static_cast<int>(found & (0 - found)))) / 8 : limit;
}

// The last position up to p that has the mark, or the first one at or below limit.
__device__ __forceinline__ u32 previous_mark(const u8* marks, u8 mark, u32 p, u32 limit) {
    while (p > limit && !(marks[p] & mark)) --p;
    return p;
}

// The last position up to p that has the mark, which some position has, four at a time.
__device__ __forceinline__ u32 last_mark(const u32* marks, u32 mark, u32 p) {
    u32 i = p >> 2;
    u32 found = marks[i] & mark * 0x01010101u & 0xFFFFFFFFu >> 8 * (3 - (p & 3));
    while (!found) found = marks[--i] & mark * 0x01010101u;
    return 4 * i + (31 - __clz(static_cast<int>(found))) / 8;
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
