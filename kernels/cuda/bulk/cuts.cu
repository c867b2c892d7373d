// Marks: where chunks and segments begin, and which chunks are one token each.
//
// In:  values u8 [n]; chunk_offsets i64 [n_chunks + 1] from 0 to n, no chunk is empty; chunk_ids i32 [n_chunks], -1 for
//      ordinary text; the cut table pairs u8 [65536], keys u64 [n_keys], n_keys a power of two (kernels/tables/cuts.py).
// Out: marks u8 [n + 1]: CHUNK and TOKEN; cuts u8 [n + 1]: these and CUT.
// Two bytes, or one character, on either side decide whether a position is a cut, all within the chunk. Where positions
// are boundaries of characters, cuts also say how long the characters are. All arrays of bytes are aligned to 4.
#include "common/text.cuh"

constexpr u8 PAIR_PIECE = 2;
constexpr int POSITIONS = 8;

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
    i64 i = static_cast<i64>((key * GOLDEN) >> 32) & (n_keys - 1);
    while (keys[i] != 0) {
        if (keys[i] == key) return true;
        i = (i + 1) & (n_keys - 1);
    }
    return false;
}

// The character that the bytes begin with; its length.
__device__ __forceinline__ u32 code_point(u32 bytes, int length) {
    const u32 all = (bytes & (0xFF >> (length > 1 ? length + 1 : 0))) << 18 | (bytes >> 8 & 0x3F) << 12 |
                    (bytes >> 16 & 0x3F) << 6 | (bytes >> 24 & 0x3F);
    return all >> 6 * (4 - length);
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

// A thread per POSITIONS.
extern "C" __global__ void find_cuts(const u8* __restrict__ values, const u8* __restrict__ marks, i64 n,
                                     const u8* __restrict__ pairs, const u64* __restrict__ keys, i64 n_keys,
                                     u8* __restrict__ cuts) {
    const i64 first = thread_index() * POSITIONS;
    if (first > n) return;
    values += first, marks += first, cuts += first, n -= first;
    if (IS_BYTES) {
        for (int p = 0; p < POSITIONS && p <= n; ++p) {
            bool is_cut = marks[p] & CHUNK;
            if (!is_cut && !(marks[p] & TOKEN)) is_cut = is_cut_of_bytes(values + p, marks + p, pairs, keys, n_keys);
            cuts[p] = marks[p] | (is_cut ? CUT : 0);
        }
        return;
    }
    const Words text(values, n), given(marks, n + 1);
    u32 w0 = text[0], w1 = text[1], w2 = text[2], m0 = given[0], m1 = given[1], out0 = 0, out1 = 0;
    // x: the last character that began before p, which has `before` bytes.
    u32 x = 0;
    int before = 1;
    if (first > 0) {
        const u8* const begin = values - symbol_into(values, 0);
        before = symbol_of(*begin);
        u32 bytes = 0;
        for (int i = before; i > 0; --i) bytes = bytes << 8 | begin[i - 1];
        x = code_point(bytes, before);
    }
    for (int p = 0; p < POSITIONS; ++p) {
        u32 mark = m0 & 0xFF;
        if ((w0 & 0xC0) != 0x80) {
            const int symbol = symbol_of(w0 & 0xFF);
            const u32 y = code_point(w0, symbol);
            bool is_cut = mark & CHUNK;
            if (!(mark & (CHUNK | TOKEN)))
                is_cut = (x | y) < 128 ? pairs[256 * x + y] == 0
                                       : !has_key(keys, n_keys, 1ull << 42 | static_cast<u64>(x) << 21 | y);
            mark |= (is_cut ? CUT : 0) | (symbol - 1) << BEGINS | (before - 1) << ENDS;
            x = y, before = symbol;
        }
        w0 = __funnelshift_r(w0, w1, 8), w1 = __funnelshift_r(w1, w2, 8), w2 >>= 8;
        m0 = __funnelshift_r(m0, m1, 8), m1 >>= 8;
        out0 = __funnelshift_r(out0, out1, 8), out1 = __funnelshift_r(out1, mark, 8);
    }
    if (n >= POSITIONS) {
        reinterpret_cast<u32*>(cuts)[0] = out0;
        reinterpret_cast<u32*>(cuts)[1] = out1;
    } else {
        for (int p = 0; p <= n; ++p) cuts[p] = (p < 4 ? out0 : out1) >> 8 * (p & 3);
    }
}
