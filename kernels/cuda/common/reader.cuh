// A thread's way along its text, a symbol at a time, and back from there, a few bytes at a time.
#pragma once
#include "common/trie.cuh"

// Steps of a walk between two looks at whether it has ended, which cost as much as some steps: a word's bytes.
constexpr int STEPS = 4;
// Bytes before a position that a thread keeps, in registers, and scores there, in shared memory; further ones are loaded.
constexpr int KEPT = 2 * STEPS;

// The bytes that a walk from p takes next, after `length` bytes and down to start: the highest one first.
__device__ __forceinline__ u32 next_bytes(const u8* values, int p, int length, int start, u32 before, u32 early) {
    if (length < KEPT) return length == 0 ? before : early;
    u32 bytes = 0;
    for (int i = p - length - 1, k = 24; i >= start && k >= 0; --i, k -= 8) bytes |= static_cast<u32>(values[i]) << k;
    return bytes;
}

// A position of a thread's, and the text around it in registers.
struct Reader {
    const Words values, cuts;
    int p;              // the position
    u32 mark;           // what cuts has of it, lowest
    u32 here, next;     // text: the words that p is in, and after that
    u32 marks;          // cuts, likewise
    u32 before, early;  // the 4 bytes before p, the last one highest, and 4 before these

    __device__ Reader(const u8* values, const u8* cuts, i64 n) : values(values, n), cuts(cuts, n + 1) {}

    __device__ void open(int at) {
        p = at;
        here = values[p >> 2], next = values[(p >> 2) + 1], marks = cuts[p >> 2];
        mark = marks >> 8 * (p & 3);
        before = early = 0;
    }
    // Go across the next symbol; returns how many bytes it has.
    __device__ int advance() {
        const int symbol = (mark >> BEGINS & 3) + 1;
        early = __funnelshift_rc(early, before, 8 * symbol);
        before = __funnelshift_rc(before, __funnelshift_r(here, next, 8 * (p & 3)), 8 * symbol);
        const int word = p >> 2;
        p += symbol;
        if (p >> 2 > word) here = next, next = values[word + 2], marks = cuts[word + 1];
        mark = marks >> 8 * (p & 3);
        return symbol;
    }
};

// Go on with a walk that has gone `length` bytes back from text.p, STEPS more or until it has ended, at start at last.
// visit(s, value, node, is_near): every arc, from s; is_near: its score is kept.
template <class Visit>
__device__ __forceinline__ void go_back(const u8* values, const Reader& text, int start, int symbol, const Node* nodes,
                                        double unk_value, Walk& walk, int& length, bool& ended, Visit visit) {
    const u32 bytes = next_bytes(values, text.p, length, start, text.before, text.early);
    const bool is_near = length < KEPT;
    for (int step = 1; step <= STEPS && !ended; ++step) {
        double value;
        ended = !descend(nodes, walk, bytes >> (32 - 8 * step), value);
        if (ended) break;
        ++length;
        const int s = text.p - length;
        const bool is_known = is_piece(value);
        if (is_known || length == symbol) visit(s, is_known ? value : unk_value, is_known ? walk.node : UNKNOWN, is_near);
        ended = s == start;
    }
}
