// Marks: where chunks and segments begin, and which chunks are one token each.
//
// In:  values u8 [n]; chunk_offsets i64 [n_chunks + 1] from 0 to n, no chunk is empty; chunk_ids i32 [n_chunks], -1 for
//      ordinary text; the cut table pairs u8 [65536], keys u64 [n_keys], n_keys a power of two (kernels/tables/cuts.py).
// Out: marks u8 [n + 1]: CHUNK and TOKEN; cuts u8 [n + 1]: these and CUT.
// Two bytes, or one character, on either side decide whether a position is a cut, all within the chunk.
#include "common/text.cuh"

constexpr u8 PAIR_PIECE = 2;

// A thread per chunk and one for the end; marks are initially 0.
extern "C" __global__ void mark_chunks(const i64* __restrict__ chunk_offsets, const int* __restrict__ chunk_ids,
                                       i64 n_chunks, u8* __restrict__ marks) {
    const i64 i = thread_index();
    if (i > n_chunks) return;
    const i64 start = chunk_offsets[i];
    const u8 token = i < n_chunks && chunk_ids[i] >= 0 ? TOKEN : 0;
    marks[start] = CHUNK | token;
    if (token)
        for (i64 p = start + 1; p < chunk_offsets[i + 1]; ++p) marks[p] = TOKEN;
}

__device__ __forceinline__ bool has_key(const u64* keys, i64 n_keys, u64 key) {
    i64 i = static_cast<i64>((key * 0x9E3779B97F4A7C15ull) >> 32) & (n_keys - 1);
    while (keys[i] != 0) {
        if (keys[i] == key) return true;
        i = (i + 1) & (n_keys - 1);
    }
    return false;
}

__device__ __forceinline__ u64 code_point(const u8* text, int length) {
    u64 x = length == 1 ? text[0] : text[0] & (0xFF >> (length + 1));
    for (int i = 1; i < length; ++i) x = x << 6 | (text[i] & 0x3F);
    return x;
}

__device__ __forceinline__ bool is_cut_of_characters(const u8* text, const u8* pairs, const u64* keys, i64 n_keys) {
    if ((text[0] & 0xC0) == 0x80) return false;
    const int before = symbol_into(text, 0);
    const u64 x = code_point(text - before, before), y = code_point(text, symbol_from(text, 0));
    if (x < 128 && y < 128) return pairs[256 * x + y] == 0;
    return !has_key(keys, n_keys, 1ull << 42 | x << 21 | y);
}

__device__ __forceinline__ u64 context_key(const u8* text, int left, int right) {
    u64 key = 1;
    for (int i = -left; i < right; ++i) key = key << 8 | text[i];
    return key << 4 | left << 2 | right;
}

__device__ __forceinline__ bool is_cut_of_bytes(const u8* text, const u8* marks, const u8* pairs, const u64* keys,
                                                i64 n_keys) {
    const u8 pair = pairs[256 * text[-1] + text[0]];
    if (pair == 0) return true;
    if (pair & PAIR_PIECE) return false;
    const bool more_left = !(marks[-1] & CHUNK), more_right = !(marks[1] & CHUNK);
    if (more_left && has_key(keys, n_keys, context_key(text, 2, 1))) return false;
    if (more_right && has_key(keys, n_keys, context_key(text, 1, 2))) return false;
    return !(more_left && more_right && has_key(keys, n_keys, context_key(text, 2, 2)));
}

// A thread per position.
extern "C" __global__ void find_cuts(const u8* __restrict__ values, const u8* __restrict__ marks, i64 n,
                                     const u8* __restrict__ pairs, const u64* __restrict__ keys, i64 n_keys,
                                     u8* __restrict__ cuts) {
    const i64 p = thread_index();
    if (p > n) return;
    const u8 mark = marks[p];
    bool is_cut = mark & CHUNK;
    if (!is_cut && !(mark & TOKEN))
        is_cut = IS_BYTES ? is_cut_of_bytes(values + p, marks + p, pairs, keys, n_keys)
                          : is_cut_of_characters(values + p, pairs, keys, n_keys);
    cuts[p] = mark | (is_cut ? CUT : 0);
}
