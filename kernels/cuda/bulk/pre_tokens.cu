// Pre-tokens of text that is as its model's normalizer leaves it, and whether it is.
//
// In:  values u8 [n]; doc_offsets i64 [n_docs + 1] from 0 to n; the automaton of a pattern, over the classes of characters
//      (normalizers/pre_token_states.py): actions u16 [states << CLASS_BITS], restarts u8 [1 << 2 * CLASS_BITS], classes
//      u8 [0x110000].
// Out: marks u8 [n + 1]: CHUNK, where documents have it already; found i32 [1], initially 0: 1 if text is as it must not be.
// A document is the work of as many threads as it has stretches. A thread begins where one pre-token ends whatever came
// before, and goes on to such a place in a later stretch; so text without one, as of letters alone, is one thread's.
#include "common/text.cuh"

typedef unsigned short u16;

constexpr u16 AT_MARK = 1, BEFORE_LAST = 2, HERE = 4, SET_MARK = 8;
constexpr int STATE_SHIFT = 4, CLASS_BITS = 5;
// The class of a document's end, and so of what is before a document; the state there.
constexpr u32 END = 0, START = 0;

__device__ __forceinline__ bool is_continuation(u8 byte) { return (byte & 0xC0) == 0x80; }

__device__ __forceinline__ int bytes_of_character(u32 lead) {
    return 1 + (lead >= 0xC0) + (lead >= 0xE0) + (lead >= 0xF0);
}

// The class of the character that begins here, in valid UTF-8.
__device__ __forceinline__ u32 class_of(const u8* text, int length, const u8* classes) {
    u32 code = text[0] & (0xFF >> (length > 1 ? length + 1 : 0));
    for (int k = 1; k < length; ++k) code = code << 6 | (text[k] & 0x3F);
    return classes[code];
}

// A thread per stretch, of valid UTF-8.
extern "C" __global__ void mark_pre_tokens(const u8* __restrict__ values, i64 n, const i64* __restrict__ doc_offsets,
                                           i64 n_docs, const u16* __restrict__ actions, const u8* __restrict__ restarts,
                                           const u8* __restrict__ classes, u8* __restrict__ marks) {
    i64 p = thread_index() * STRETCH;
    if (p >= n) return;
    const i64 stop = n - p < STRETCH ? n : p + STRETCH;
    i64 i_doc = document_of(doc_offsets, n_docs, p + 1), doc_stop = doc_offsets[i_doc + 1];
    while (p < doc_stop && is_continuation(values[p])) ++p;
    u32 before = END, state = START;
    if (p > doc_offsets[i_doc]) {
        const int length = symbol_into(values, p, false);
        before = class_of(values + p - length, length, classes);
    }
    i64 mark = p, last = p;
    for (bool has_begun = false;;) {
        const bool is_end = p == doc_stop;
        const int length = is_end ? 0 : bytes_of_character(values[p]);
        const u32 here = is_end ? END : class_of(values + p, length, classes);
        const bool restarts_here = is_end || restarts[before << CLASS_BITS | here];
        has_begun |= restarts_here && p < stop && !is_end;
        if (has_begun) {
            const u16 action = actions[state + here];
            state = action >> STATE_SHIFT;
            if (action & AT_MARK) marks[mark] = CHUNK;
            if (action & BEFORE_LAST) marks[last] = CHUNK;
            if (action & HERE) marks[p] = CHUNK;
            if (action & SET_MARK) mark = p;
        }
        if (p >= stop && (restarts_here || !has_begun)) return;
        last = p, before = here, p += length;
        while (p == doc_stop && is_end) doc_stop = doc_offsets[++i_doc + 1];
    }
}

// Whether a character begins here, and ends within n bytes.
__device__ __forceinline__ bool is_character(const u8* text, i64 n) {
    const u32 lead = text[0];
    const int length = bytes_of_character(lead);
    if (length == 1) return true;
    if (lead < 0xC2 || lead > 0xF4 || length > n) return false;
    for (int k = 1; k < length; ++k)
        if (!is_continuation(text[k])) return false;
    const u32 second = text[1];
    // Overlong, surrogates, above U+10FFFF.
    return !((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) || (lead == 0xF0 && second < 0x90) ||
             (lead == 0xF4 && second > 0x8F));
}

// Whether the byte at p, which begins no character, is within one.
__device__ __forceinline__ bool is_within_character(const u8* values, i64 p) {
    i64 start = p - 1;
    while (start >= 0 && p - start < 3 && is_continuation(values[start])) --start;
    return start >= 0 && !is_continuation(values[start]) && start + bytes_of_character(values[start]) > p;
}

// Whether a document is not UTF-8. A thread per byte, or document if these are more.
extern "C" __global__ void find_invalid(const u8* __restrict__ values, i64 n, const i64* __restrict__ doc_offsets,
                                        i64 n_docs, int* found) {
    const i64 i = thread_index();
    bool is_valid = i >= n || (is_continuation(values[i]) ? is_within_character(values, i) : is_character(values + i, n - i));
    if (i < n_docs && doc_offsets[i] < n) is_valid &= !is_continuation(values[doc_offsets[i]]);
    if (!is_valid) *found = 1;
}

// Whether an added token is in the text, of the trie of hf_text.py: root i32 [256], first i32 [num_nodes + 1], labels u8
// [num_nodes], tokens i32 [num_nodes]. A thread per byte.
extern "C" __global__ void find_added_token(const u8* __restrict__ values, i64 n, const int* __restrict__ root,
                                            const int* __restrict__ first, const u8* __restrict__ labels,
                                            const int* __restrict__ tokens, int* found) {
    i64 p = thread_index();
    if (p >= n) return;
    int node = root[values[p]];
    while (node >= 0 && tokens[node] < 0) {
        int child = ++p < n ? first[node] : first[node + 1];
        while (child < first[node + 1] && labels[child] != values[p]) ++child;
        node = child < first[node + 1] ? child : -1;
    }
    if (node >= 0) *found = 1;
}
