// Canonical BPE segmentation, id for id what the model's own tool gives (kernels/cpu/bulk/encode_merges.py).
//
// In:  values u8 [n]; marks u8 [n + 1] (cuts.cu); `begins`, the mark of a position where a text begins that is merged
//      on its own: CUT, or CHUNK; the merge table pairs i64 [2 n_pairs], filter u64, filter_shift, symbol_ids i32
//      (kernels/tables/merges.py); byte_ids i32 [256], unk_id, fuse_unk: of Merges; is_bytes, whether its symbols are
//      bytes, as they may be where positions are characters; the trie, and made bool [V], which of its pieces merges
//      make of their text; the trie of odd pieces, those that only a chunk as a whole becomes, if has_odd.
// Out: path i32 [n]: the ids of a text, as tokens, one after another from where it begins; no_path i64 [1], the
//      smallest end of a symbol that cannot be spelled.
//
// A thread owns the texts that begin in its STRETCH bytes. Most are pieces, which the trie tells. Merges come by a
// queue, so a text of n symbols takes O(n log n) steps; they are steps of one thread, as each merge depends on those
// before.
// 48 bytes per byte of text.
// Source: tokenizers 0.23.3 BPE; tiktoken byte_pair_merge; sentencepiece 0.2.3 bpe::Model.
#include "common/trie.cuh"

// A symbol of a text, those beside it by their numbers, and its merge with the next: rank << 32 | id, or NONE.
struct Symbol {
    i64 merge;
    int id, before, after, unused;
};

constexpr i64 NONE = -1;
// Values of unk_id besides ids: unknown symbols become nothing, or are an error.
constexpr int DROPPED = -1;
constexpr int MISSING = -2;

// What keys are multiplied by in the hash table.
constexpr u64 GOLDEN = 0x9E3779B97F4A7C15ull;

// The character of these bytes.
__device__ __forceinline__ u32 character(const u8* text, int length) {
    u32 x = length == 1 ? text[0] : text[0] & (0xFF >> (length + 1));
    for (int i = 1; i < length; ++i) x = x << 6 | (text[i] & 0x3F);
    return x;
}

struct Merges {
    const i64* pairs;
    i64 n_pairs;
    const u64* filter;
    i64 filter_shift;
    const int* symbol_ids;
    const int* byte_ids;
    int unk_id;
    bool fuse_unk, is_bytes;

    // The merge of two ids.
    __device__ i64 of(int left, int right) const {
        const i64 key = static_cast<i64>(left) << 32 | right;
        const u64 hashed = static_cast<u64>(key) * GOLDEN, bit = hashed >> filter_shift;
        if (!(filter[bit >> 6] >> (bit & 63) & 1)) return NONE;
        const u64 last = 2 * n_pairs - 1;
        u64 slot = (hashed ^ hashed >> 32) << 1 & last;
        while (pairs[slot] != key && pairs[slot + 1] != NONE) slot = (slot + 2) & last;
        return pairs[slot + 1];
    }

    // Write the symbols of a text; returns how many, or - the end of one that cannot be spelled. An unknown symbol
    // stands where the next known one begins, as in tokenizers: bytes that are spelled go before it.
    __device__ i64 spell(const u8* values, i64 start, i64 stop, Symbol* symbols) const {
        i64 n = 0;
        bool waits = false;
        for (i64 p = start; p < stop;) {
            const int length = is_bytes ? 1 : symbol_from(values, p);
            const int known = symbol_ids[is_bytes ? values[p] : character(values + p, length)];
            bool is_spelled = known < 0;
            for (int k = 0; is_spelled && k < length; ++k) is_spelled = byte_ids[values[p + k]] >= 0;
            if (known >= 0) {
                if (waits) symbols[n++].id = unk_id;
                symbols[n++].id = known;
                waits = false;
            } else if (is_spelled) {
                for (int k = 0; k < length; ++k) symbols[n++].id = byte_ids[values[p + k]];
            } else if (unk_id == MISSING) {
                return -(p + length);
            } else if (unk_id != DROPPED) {
                if (waits && !fuse_unk) symbols[n++].id = unk_id;
                waits = true;
            }
            p += length;
        }
        if (waits) symbols[n++].id = unk_id;
        return n;
    }
};

// Texts' merges to be made, the least rank << 32 | number of the left symbol first: a binary heap.
struct Queue {
    i64* entries;
    i64 size;

    __device__ void push(i64 entry) {
        i64 i = size++;
        for (; i > 0 && entries[(i - 1) >> 1] > entry; i = (i - 1) >> 1) entries[i] = entries[(i - 1) >> 1];
        entries[i] = entry;
    }

    __device__ i64 pop() {
        const i64 least = entries[0], entry = entries[--size];
        i64 i = 0;
        for (i64 child = 1; child < size; child = 2 * i + 1) {
            child += child + 1 < size && entries[child + 1] < entries[child];
            if (entries[child] >= entry) break;
            entries[i] = entries[child];
            i = child;
        }
        entries[i] = entry;
        return least;
    }
};

// Merge n symbols until none may merge. queue: room for 3 n.
__device__ inline void merge(const Merges& merges, i64 n, Symbol* symbols, i64* room) {
    Queue queue = {room, 0};
    const auto pair = [&](int left, int right) {
        const i64 merge = right < n ? merges.of(symbols[left].id, symbols[right].id) : NONE;
        symbols[left].merge = merge;
        if (merge >= 0) queue.push(merge >> 32 << 32 | left);
    };
    for (int i = 0; i < n; ++i) {
        symbols[i].before = i - 1;
        symbols[i].after = i + 1;
        pair(i, i + 1);
    }
    while (queue.size > 0) {
        const i64 top = queue.pop();
        const int i = static_cast<int>(top & 0xFFFFFFFF);
        // An entry whose pair is no longer there has another rank.
        if (symbols[i].merge >> 32 != top >> 32) continue;
        const int gone = symbols[i].after, after = symbols[gone].after, before = symbols[i].before;
        symbols[i].id = static_cast<int>(symbols[i].merge);
        symbols[i].after = after;
        symbols[gone].merge = NONE;
        if (after < n) symbols[after].before = i;
        if (before >= 0) pair(before, i);
        pair(i, after);
    }
}

// A thread per stretch. symbols Symbol [n], queue i64 [3 n]: room.
extern "C" __global__ void encode_merges(const u8* __restrict__ values, const u8* __restrict__ marks, i64 n, i64 begins,
                                         const i64* __restrict__ pairs, i64 n_pairs, const u64* __restrict__ filter,
                                         i64 filter_shift, const int* __restrict__ symbol_ids,
                                         const int* __restrict__ byte_ids, i64 unk_id, i64 fuse_unk, i64 is_bytes,
                                         i64 has_odd, const Node* __restrict__ odd_nodes, const int* __restrict__ odd_at,
                                         const Node* __restrict__ nodes, const int* __restrict__ piece_at,
                                         const bool* __restrict__ made, Symbol* symbols, i64* queue,
                                         int* __restrict__ path, i64* __restrict__ no_path) {
    const i64 first = thread_index() * STRETCH;
    if (first >= n) return;
    const i64 limit = n - first < STRETCH ? n : first + STRETCH;
    const u8 mark = static_cast<u8>(begins);
    const Merges merges = {pairs, n_pairs, filter, filter_shift, symbol_ids, byte_ids, static_cast<int>(unk_id),
                           fuse_unk != 0, is_bytes != 0};
    for (i64 start = next_mark(marks, mark, first, limit), stop; start < limit; start = stop) {
        stop = next_mark(marks, mark, start + 1, n);
        if (marks[start] & TOKEN) continue;
        int piece = find_piece(values, start, stop, nodes, piece_at);
        if (piece >= 0 && !made[piece]) piece = -1;
        if (piece < 0 && has_odd && (marks[start] & CHUNK) && (marks[stop] & CHUNK))
            piece = find_piece(values, start, stop, odd_nodes, odd_at);
        if (piece >= 0) {
            path[start] = TOKEN_ARC - piece;
            continue;
        }
        const i64 count = merges.spell(values, start, stop, symbols + start);
        if (count < 0) {
            atomicMin(no_path, -count);
            continue;
        }
        merge(merges, count, symbols + start, queue + 3 * start);
        i64 p = start;
        for (i64 i = 0; i < count; i = symbols[start + i].after) path[p++] = TOKEN_ARC - symbols[start + i].id;
    }
}
