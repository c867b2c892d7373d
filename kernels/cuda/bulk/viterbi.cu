// Best segmentation of every chunk, summed as by the model's own tool: left to right in NUMBER (a compiler constant:
// float for SentencePiece, else double); in a tie the longest last arc wins.
//
// In:  values u8 [n]; marks u8 [n + 1] (cuts.cu); the trie with scores; best_unk, the score of an unknown arc;
//      lowest, -inf; reset: a score that leaves [-reset, reset] is subtracted from every end reached from its position.
//      Floats are scaled by a power of two that keeps their sums out of reach of -ftz (backends/cuda.py).
// Out: best NUMBER [n] at e - 1; back i32 [n], the piece (or UNKNOWN) that ends at e on the best path to it, at e - 1;
//      path i32 [n], the piece that begins at a byte of the best path, else unchanged; no_path i64 [1], the smallest
//      end of a chunk that no path reaches.
//
// A thread owns the chunks that begin (viterbi) or end (follow) in its STRETCH bytes, one trie step per iteration. A
// chunk that is longer than LONGEST, or in which a reset is due, is listed and done by a warp. 8 bytes (12 in double)
// per byte of text, and 8 to 16 that only listed chunks use.
// Source: sentencepiece 0.2.3 Model::EncodeOptimized; tokenizers 0.23.3 Unigram; bytepiece 0.6.3 Tokenizer.
#include "common/trie.cuh"
#include "common/warp.cuh"

__device__ __forceinline__ NUMBER magnitude(NUMBER x) { return x < 0 ? -x : x; }

// A thread per stretch. long_starts u32 [n], n_long u64 [1], initially 0.
extern "C" __global__ void viterbi(const u8* __restrict__ values, const u8* __restrict__ marks, i64 n,
                                   const Node* __restrict__ nodes, const int* __restrict__ piece_at, double best_unk,
                                   double lowest, double reset, NUMBER* best, int* __restrict__ back,
                                   u32* __restrict__ long_starts, u64* __restrict__ n_long,
                                   i64* __restrict__ no_path) {
    const i64 first = thread_index() * STRETCH;
    if (first >= n) return;
    const int limit = n - first < STRETCH ? static_cast<int>(n - first) : STRETCH;
    values += first, marks += first, best += first, back += first;
    int start = static_cast<int>(next_mark(marks, CHUNK, 0, limit));
    if (start >= limit) return;
    const NUMBER none = static_cast<NUMBER>(lowest);
    int symbol = symbol_from(values, start);
    int e = start + symbol, s = e, node = UNKNOWN;
    NUMBER top = none;
    Walk walk = root(nodes);
    for (;;) {
        double score;
        if (s > start && descend(nodes, walk, values[s - 1], score)) {
            --s;
            const bool is_unknown = !is_piece(score) && e - s == symbol;
            if (is_unknown || is_piece(score)) {
                const NUMBER from = s == start ? 0 : best[s - 1];
                const NUMBER candidate = from + static_cast<NUMBER>(is_unknown ? best_unk : score);
                if (candidate >= top && candidate > none) {
                    top = candidate;
                    node = is_unknown ? UNKNOWN : walk.node;
                }
            }
            continue;
        }
        if (e - s < symbol) top = (e - symbol == start ? 0 : best[e - symbol - 1]) + static_cast<NUMBER>(best_unk);
        best[e - 1] = top;
        back[e - 1] = node == UNKNOWN ? UNKNOWN : piece_at[node];
        bool ends = marks[e] & CHUNK;
        if (!ends && (e - start >= LONGEST || (top > none && magnitude(top) > reset))) {
            if (!(marks[start] & TOKEN)) long_starts[atomicAdd(n_long, 1ull)] = static_cast<u32>(first + start);
            e = static_cast<int>(next_mark(marks, CHUNK, e, limit));
            ends = true;
        } else if (ends && top == none && !(marks[start] & TOKEN)) {
            atomicMin(no_path, first + e);
        }
        if (ends) {
            if (e >= limit) return;
            start = e;
        }
        symbol = symbol_from(values, e);
        e += symbol;
        s = e;
        top = none;
        node = UNKNOWN;
        walk = root(nodes);
    }
}

constexpr int RECENT = 64;

// A warp per listed chunk. subtracted NUMBER [n], at e - 1: what a reset at e takes from the ends that arcs reach across
// it. longest: bytes of the longest arc. arcs: LANES * max_arcs for each block.
extern "C" __global__ void __launch_bounds__(LANES)
    viterbi_long(const u8* __restrict__ values, const u8* __restrict__ marks, i64 n, const Node* __restrict__ nodes,
                 const int* __restrict__ piece_at, double best_unk, double lowest, double reset, i64 longest,
                 NUMBER* best, NUMBER* subtracted, int* __restrict__ back, const u32* __restrict__ long_starts,
                 const u64* __restrict__ n_long, Arc* arcs, i64 max_arcs, i64* __restrict__ no_path) {
    __shared__ bool is_end[LANES];
    __shared__ int n_arcs[LANES];
    __shared__ NUMBER candidates[LANES];
    __shared__ NUMBER recent[RECENT];
    const NUMBER none = static_cast<NUMBER>(lowest);
    arcs += blockIdx.x * LANES * max_arcs;
    for (u64 i = blockIdx.x; i < *n_long; i += gridDim.x) {
        const i64 start = long_starts[i];
        i64 done = start, last_reset = start - longest;
        NUMBER top = none;
        for (bool ended = false; !ended;) {
            each_lane([&](int lane) {
                const i64 e = done + 1 + lane;
                is_end[lane] = e >= n || (marks[e] & CHUNK);
            });
            int size = 1;
            while (size < LANES && !is_end[size - 1]) ++size;
            ended = is_end[size - 1];
            each_lane([&](int lane) {
                const i64 e = done + 1 + lane;
                if (lane >= size) return;
                const bool is_boundary = IS_BYTES || is_end[lane] || (values[e] & 0xC0) != 0x80;
                n_arcs[lane] = is_boundary ? find_arcs(values, start, e, nodes, best_unk, arcs + lane * max_arcs) : 0;
            });
            for (int i_pos = 0; i_pos < size; ++i_pos) {
                const i64 e = done + 1 + i_pos;
                const int count = n_arcs[i_pos];
                const Arc* const mine = arcs + i_pos * max_arcs;
                // The candidates of up to 32 arcs from k on.
                const auto evaluate = [&](int k) {
                    each_lane([&](int lane) {
                        if (k + lane >= count) return;
                        const Arc arc = mine[k + lane];
                        const i64 s = e - arc.length;
                        const NUMBER from = s == start ? 0 : arc.length <= RECENT ? recent[s % RECENT] : best[s - 1];
                        candidates[lane] = from + static_cast<NUMBER>(arc.value);
                    });
                };
                int chosen = -1;
                top = none;
                if (e - last_reset >= longest) {
                    for (int k = 0; k < count; k += LANES) {
                        evaluate(k);
                        for (int j = 0; j < LANES && k + j < count; ++j)
                            if (candidates[j] >= top && candidates[j] > none) top = candidates[j], chosen = k + j;
                    }
                } else if (count > 0) {
                    // Longest arc first, as in the tool: a reset at p is subtracted after the arcs from before p.
                    i64 p = e - mine[count - 1].length + 1;
                    for (int k = (count - 1) / LANES * LANES; k >= 0; k -= LANES) {
                        evaluate(k);
                        for (int j = (count - k < LANES ? count - k : LANES) - 1; j >= 0; --j) {
                            for (; p <= e - mine[k + j].length; ++p) top -= subtracted[p - 1];
                            if (candidates[j] > top) top = candidates[j], chosen = k + j;
                        }
                    }
                    for (; p < e; ++p) top -= subtracted[p - 1];
                }
                const int node = chosen < 0 ? UNKNOWN : mine[chosen].node;
                const bool resets = !(ended && i_pos == size - 1) && top > none && magnitude(top) > reset;
                each_lane([&](int lane) {
                    if (lane > 0) return;
                    recent[e % RECENT] = best[e - 1] = resets ? 0 : top;
                    subtracted[e - 1] = resets ? top : 0;
                    back[e - 1] = node == UNKNOWN ? UNKNOWN : piece_at[node];
                });
                if (resets) last_reset = e;
            }
            done += size;
        }
        if (threadIdx.x == 0 && top == none) atomicMin(no_path, done);
    }
}

// A thread per stretch. length_of i32 [V]: bytes of each piece.
extern "C" __global__ void follow(const u8* __restrict__ values, const u8* __restrict__ marks, i64 n,
                                  const int* __restrict__ length_of, const int* __restrict__ back,
                                  int* __restrict__ path) {
    const i64 first = thread_index() * STRETCH;
    if (first >= n) return;
    values += first, marks += first, back += first, path += first;
    i64 e = previous_mark(marks, CHUNK, n - first < STRETCH ? n - first : STRETCH);
    if (e == 0) return;
    for (;;) {
        if (marks[e] & CHUNK) {
            while (e > 0 && (marks[e - 1] & TOKEN)) e = previous_mark(marks, CHUNK, e - 1);
            if (e <= 0) return;
        }
        const int arc = back[e - 1];
        e -= arc == UNKNOWN ? symbol_into(values, e) : length_of[arc];
        path[e] = arc;
    }
}
