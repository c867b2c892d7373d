// A thread's way along its text, a symbol at a time, and back from there, a few bytes at a time.
#pragma once
#include "common/trie.cuh"

// Steps of a walk between two looks at whether it has ended, which cost as much as some steps: a word's bytes.
constexpr int STEPS = 4;
// Bytes before a position that a thread keeps, in registers, and scores there, in shared memory; further ones are loaded.
constexpr int KEPT = 2 * STEPS;

// The bytes that a walk from p takes next, after `length` bytes and down to start: the highest one first.
__device__ __forceinline__ u32 next_bytes(const u8* values, u32 p, u32 length, u32 start, u32 before, u32 early) {
    if (length < KEPT) return length == 0 ? before : early;
    u32 bytes = 0;
    for (int i = 0; i < 4 && length < p - start; ++i) bytes |= static_cast<u32>(values[p - ++length]) << (24 - 8 * i);
    return bytes;
}

// A position of a thread's, and the text around it in registers. Text and cuts are loaded 8 bytes at a time.
struct Reader {
    const Words values;
    const u64* const cuts;
    u32 p;                  // the position
    u32 mark;               // what cuts has of it, lowest
    u32 here, next, after;  // text: the words that p is in, and after that as far as loaded
    u32 marks, more_marks;  // cuts, likewise
    u32 before, early;      // the 4 bytes before p, the last one highest, and 4 before these

    __device__ Reader(const u8* values, const u8* cuts, i64 n)
        : values(values, n), cuts(reinterpret_cast<const u64*>(cuts)), next(0), after(0), more_marks(0) {}

    // Go on to a word, which is `next`.
    __device__ void enter(u32 word) {
        const bool is_second = word & 1;
        here = next, next = after, marks = more_marks;
        if (is_second) {
            const u64 pair = values.pair((word + 1) / 2);
            next = static_cast<u32>(pair), after = static_cast<u32>(pair >> 32);
        } else {
            const u64 pair = cuts[word / 2];
            marks = static_cast<u32>(pair), more_marks = static_cast<u32>(pair >> 32);
        }
    }
    __device__ void open(u32 at) {
        p = at;
        const u32 word = p >> 2;
        const u64 pair = values.pair(word / 2);
        next = static_cast<u32>(pair), after = static_cast<u32>(pair >> 32);
        enter(word & ~1u);
        if (word & 1) enter(word);
        mark = marks >> 8 * (p & 3);
        before = early = 0;
    }
    // Go across the next symbol.
    __device__ void advance() {
        const u32 symbol = (mark >> BEGINS & 3) + 1;
        early = __funnelshift_rc(early, before, 8 * symbol);
        before = __funnelshift_rc(before, __funnelshift_r(here, next, 8 * (p & 3)), 8 * symbol);
        const u32 word = p >> 2;
        p += symbol;
        if (p >> 2 > word) enter(word + 1);
        mark = marks >> 8 * (p & 3);
    }
};

// The last scores of each thread of a block, and that with which a segment begins, apart.
template <class Score>
struct Kept {
    static constexpr int PLACES = KEPT * BLOCK;
    static_assert((PLACES & (PLACES - 1)) == 0, "a place is found by a mask");
    Score scores[PLACES + BLOCK];

    __device__ Score& operator[](u32 p) { return scores[(p * BLOCK + threadIdx.x) & (PLACES - 1)]; }
    __device__ Score& first() { return scores[PLACES + threadIdx.x]; }
    // The score of p - k, or of a segment's start if that one is not kept.
    __device__ Score before(u32 p, int k, bool is_near) const {
        const u32 mask = is_near ? PLACES - 1 : BLOCK - 1, others = is_near ? 0 : PLACES;
        const u32 place = ((p * BLOCK + threadIdx.x) * sizeof(Score) - k * BLOCK * sizeof(Score)) & (mask * sizeof(Score));
        return *reinterpret_cast<const Score*>(reinterpret_cast<const char*>(scores) + (place | others * sizeof(Score)));
    }
};

// Go on with a walk, STEPS more or until it has ended, after `most` at last; returns whether it goes on. visit(k, value,
// node, is_arc): maybe an arc, after k steps; returns whether to go on. Lanes take all steps together: for one whose walk
// has ended they do nothing.
template <class Visit>
__device__ __forceinline__ bool go_back(const Node* nodes, u32 bytes, u32 most, Walk& walk, Visit visit) {
    bool goes_on = true;
    for (u32 k = 1; k <= STEPS; ++k) {
        const int slot = goes_on ? walk.base + byte_of(bytes, STEPS - k) : 0;
        const Node next = __ldg(nodes + slot);
        goes_on = goes_on && next.y == walk.node;
        walk = {slot, next.x};
        const double value = __hiloint2double(next.w, next.z);
        goes_on = visit(k, value, slot, goes_on && is_arc(value)) && goes_on && k != most;
    }
    return goes_on;
}
