// Marks: where chunks and segments begin, and which chunks are one token each.
//
// In:  values u8 [n]; chunk_offsets i64 [n_chunks + 1] from 0 to n, no chunk is empty; chunk_ids i32 [n_chunks], -1 for
//      ordinary text; the cut table pairs u8 [65536], keys u64 [n_keys], n_keys a power of two (kernels/tables/cuts.py).
// Out: marks u8 [n + 1]: CHUNK and TOKEN; cuts u8 [n + 1]: these and CUT.
// Two bytes, or one character, on either side decide whether a position is a cut, all within the chunk. Where positions
// are boundaries of characters, cuts also say how long the characters are. All arrays of bytes are aligned to 4, and
// cuts have room for whole words of 8, which are 0 after the end.
#include "common/text.cuh"

constexpr u8 PAIR_PIECE = 2;
constexpr int POSITIONS = 8;
constexpr u32 EACH = 0x01010101;

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
        for (i64 p = n + 1; p < POSITIONS; ++p) cuts[p] = 0;
        return;
    }
    u32 words[4], mine[2];
    if (first > 0 && n >= POSITIONS + 4) {
        for (int i = 0; i < 4; ++i) words[i] = reinterpret_cast<const u32*>(values)[i - 1];
        for (int i = 0; i < 2; ++i) mine[i] = reinterpret_cast<const u32*>(marks)[i];
    } else {
        for (int i = 0; i < 4; ++i) words[i] = i > 0 || first > 0 ? word_of(values, n, i - 1) : 0;
        for (int i = 0; i < 2; ++i) mine[i] = word_of(marks, n + 1, i);
    }
    u32 out[] = {mine[0] | (mine[0] & CHUNK * EACH) * CUT, mine[1] | (mine[1] & CHUNK * EACH) * CUT};
    // Between two ASCII characters first, then where a longer one begins or ends.
    u32 others = 0;
    for (int p = 0; p < POSITIONS; ++p) {
        const int i = p / 4, shift = 8 * (p % 4);
        const u32 pair = shift ? words[i + 1] >> (shift - 8) : __funnelshift_r(words[i], words[i + 1], 24);
        if (pair & 0x8080) {
            others |= ((pair & 0xC000) != 0x8000) << p;
        } else if (!(mine[i] >> shift & (CHUNK | TOKEN)) && pairs[256 * (pair & 0xFF) + (pair >> 8 & 0xFF)] == 0) {
            out[i] |= CUT << shift;
        }
    }
    for (; others; others &= others - 1) {
        const int p = 31 - __clz(static_cast<int>(others & (0 - others))), shift = 8 * (p % 4);
        const u32 middle = p < 4 ? words[1] : words[2];
        const u32 after = __funnelshift_r(middle, p < 4 ? words[2] : words[3], shift);
        const u32 before = __funnelshift_r(p < 4 ? words[0] : words[1], middle, shift);
        const int begins = symbol_of(after & 0xFF);
        const int ends = before < 0x80u << 24 ? 1 : (before >> 16 & 0xFF) >= 0xC0 ? 2 : (before >> 8 & 0xFF) >= 0xC0 ? 3 : 4;
        const u32 x = code_point(before >> 8 * (4 - ends), ends), y = code_point(after, begins);
        u32 mark = (begins - 1) << BEGINS | (ends - 1) << ENDS;
        if (!((p < 4 ? mine[0] : mine[1]) >> shift & (CHUNK | TOKEN)) &&
            !has_key(keys, n_keys, 1ull << 42 | static_cast<u64>(x) << 21 | y))
            mark |= CUT;
        (p < 4 ? out[0] : out[1]) |= mark << shift;
    }
    if (n >= POSITIONS) {
        reinterpret_cast<u32*>(cuts)[0] = out[0];
        reinterpret_cast<u32*>(cuts)[1] = out[1];
    } else {
        for (int p = 0; p < POSITIONS; ++p) cuts[p] = p > n ? 0 : (p < 4 ? out[0] : out[1]) >> 8 * (p % 4);
    }
}
