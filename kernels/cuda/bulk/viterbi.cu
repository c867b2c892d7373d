// Best segmentation, arc for arc what the model's own tool gives: it sums left to right in NUMBER (a compiler
// constant: float for SentencePiece, else double), and in a tie the longest last arc wins.
//
// In:  values u8 [n]; cuts u8 [n + 1] (cuts.cu), both aligned to 8 bytes; the trie with scores; best_unk, the score of
//      an unknown arc; scores NUMBER [V] and length_of i32 [V] of every piece; lowest, -inf; reset: a score that leaves
//      [-reset, reset] is subtracted from every end reached from its position; rounding, extreme: of BestModel. Floats
//      are scaled by a power of two that keeps their sums out of reach of -ftz (backends/cuda_encode.py).
// Out: path i32 [n], the piece (or UNKNOWN) that begins at a byte of the best path, else unchanged; no_path i64 [1],
//      the smallest end of a segment that no path reaches.
//
// As on the CPU (kernels/cpu/bulk/encode.py): between static cuts the tool's choice is the path that is best in
// float64, if it leads by more than rounding can add up to (viterbi, follow). Any other segment takes the tool's own
// sum at which it arrives there, which depends on all that precedes it in the chunk. But while sums stay in one
// binade, what is added to the first, an even multiple of its last place, is added to all that follow, and changes no
// decision: so stretches are passed, all at once, from an even and from an odd sum near the one to be expected (pass),
// the true one is carried on from stretch to stretch (carry, carry_long), and the segments that it decides are
// settled, all at once (settle).
//
// A thread owns the segments that begin in its STRETCH bytes; viterbi goes along them as forward does. What is longer
// than LONGEST, and segments in which the sum changes its binade or is reset, are done by the warp that carries it.
// 20 bytes per byte of text, 24 in double, of which 4 and 8 only for segments that a warp does.
// Source: sentencepiece 0.2.3 Model::EncodeOptimized; tokenizers 0.23.3 Unigram; bytepiece 0.6.3 Tokenizer.
#include "common/reader.cuh"
#include "common/trie.cuh"
#include "common/warp.cuh"

// Of the best path to a position e, at e - 1, in one store: x its last arc's node, y the high half of its lead, which is
// thus rounded down, z and w the low and high half of its score.
typedef int4 Best;

__device__ __forceinline__ double score_of(const Best& best) { return __hiloint2double(best.w, best.z); }

__device__ __forceinline__ double lead_of(const Best& best) { return __hiloint2double(best.y, 0); }

__device__ __forceinline__ void write(Best* to, double score, int lead, int node) {
    __stwb(to, make_int4(node, lead, __double2loint(score), __double2hiint(score)));
}

// The high half of infinity.
constexpr int MOST_LEAD = 0x7FF00000;
// Beyond this no passages are looked for.
constexpr double MOST_EXPECTED = 1e18;

// The tool's sum on its way through the segments from start on, length bytes: from `from` it comes to to[0], from the
// next number to to[1], by way of sums from low to high; no sum that could be one passes [-most, most]. Where the best
// paths depend on the sum, state is OPEN; when the true one has come, `from` is that.
enum State : int { CLOSED, OPEN, ARRIVED };

struct Passage {
    i64 start;
    int length;
    State state;
    NUMBER from, to[2], low, high, most;

    // The true sum has come to its start.
    __device__ void arrive(NUMBER sum) { from = sum, state = ARRIVED; }
};

// A stretch has one from its first segment on, and one from where the sum has changed its binade.
constexpr int PASSAGES = 2;

// A sum that is to be carried on from a position.
struct Start {
    i64 position;
    double total;
};

__device__ __forceinline__ double magnitude(double x) { return x < 0 ? -x : x; }

// A thread per stretch: the path of every segment up to LONGEST that is best in float64.
extern "C" __global__ void __launch_bounds__(BLOCK, 9)
    viterbi(const u8* __restrict__ values, const u8* __restrict__ cuts, i64 n, const Node* __restrict__ nodes,
            double best_unk, double lowest, Best* __restrict__ best) {
    __shared__ Kept<double> scores;
    __shared__ Kept<int> leads;
    const i64 first = thread_index() * STRETCH;
    if (first >= n) return;
    const u32 limit = static_cast<u32>(n - first < STRETCH ? n : first + STRETCH);
    u32 start = static_cast<u32>(next_mark(cuts, CUT, first, limit));
    if (start >= limit) return;
    Reader text(values, cuts, n);
    text.open(start);
    scores.first() = scores[start] = 0.0;
    leads[start] = MOST_LEAD;
    // The walk from text.p has gone `length` bytes; the best arc so far begins at arc_start.
    u32 arc_start = start, length = 0;
    int arc_node = UNKNOWN;
    text.advance();
    double top = lowest, second = lowest;
    const Walk top_node = root(nodes);
    Walk walk = top_node;
    const auto compare = [&](double candidate, u32 s, int node) {
        const bool wins = candidate > top;
        const double other = wins ? top : candidate;
        top = wins ? candidate : top, arc_start = wins ? s : arc_start, arc_node = wins ? node : arc_node;
        second = other > second ? other : second;
    };
    for (;; meet()) {
        const bool is_near = length < KEPT;
        const u32 p = text.p - length, most = p - start, n_far = is_near ? 0 : most;
        const Best* const best_here = best + p;
        const u32 bytes = next_bytes(values, text.p, length, start, text.before, text.early);
        const bool goes_on = go_back(nodes, bytes, most, walk, [&](u32 k, double value, int node, bool is_arc) {
            double score = scores.before(p, k, is_near);
            if (is_arc && k < n_far) score = score_of(*(best_here - k - 1));
            if (is_arc) compare(score + value, p - k, node);
            return true;
        });
        length += STEPS;
        if (goes_on) continue;
        // No arc, or none from where a path comes: maybe the symbol, of which arc_start is the start, is not in the trie.
        if (top == lowest) compare(scores[arc_start] + best_unk, arc_start, UNKNOWN);
        const int before = text.p - arc_start <= KEPT ? leads[arc_start]
                           : arc_start == start       ? MOST_LEAD
                                                      : best[arc_start - 1].y;
        const int here = __double2hiint(top - second);
        int least = before < here ? before : here;
        write(best + (text.p - 1), top, least, arc_node);
        if (!(text.mark & CUT) && text.p - start >= LONGEST) {
            text.open(static_cast<u32>(next_mark(cuts, CUT, text.p, limit)));
            text.mark |= CUT;
        }
        if (text.mark & CUT) {
            if (text.p >= limit) return;
            start = text.p;
            top = 0.0;
            least = MOST_LEAD;
        }
        scores[text.p] = top;
        leads[text.p] = least;
        arc_start = text.p, length = 0, arc_node = UNKNOWN;
        text.advance();
        top = second = lowest;
        walk = top_node;
    }
}

// Write the last arc of the best path to e, where it begins; returns its length.
__device__ __forceinline__ int write_arc(const u8* values, const Best* best, const int* piece_at, const int* length_of,
                                         i64 e, int* path) {
    const int node = best[e - 1].x, piece = node == UNKNOWN ? UNKNOWN : piece_at[node];
    const int length = piece == UNKNOWN ? symbol_into(values, e) : length_of[piece];
    path[e - length] = piece;
    return length;
}

// The cuts of a thread's stretch, and where chunks begin, a bit for each position: read once, 8 bytes at a time.
struct Cuts {
    static constexpr int WORDS = (STRETCH + 31) / 32;
    u32 cuts[WORDS][BLOCK], chunks[WORDS][BLOCK];

    // Of four positions, the first one lowest.
    static __device__ u32 bits(u32 marks, int mark) { return (marks / mark & 0x01010101u) * 0x10204080u >> 28; }

    __device__ void read(const u8* from, u32 n) {
        for (u32 i = 0; i < WORDS; ++i) {
            u32 cut = 0, chunk = 0;
            for (u32 k = 0; k < 32 && 32 * i + k < n; k += 4) {
                const u32 marks = reinterpret_cast<const u32*>(from)[8 * i + k / 4];
                cut |= bits(marks, CUT) << k, chunk |= bits(marks, CHUNK) << k;
            }
            cuts[i][threadIdx.x] = 32 * i + 32 > n && n > 32 * i ? cut & ((1u << n % 32) - 1) : cut;
            chunks[i][threadIdx.x] = chunk;
        }
    }
    __device__ bool is_chunk(u32 i) const { return chunks[i / 32][threadIdx.x] >> i % 32 & 1; }
};

// A thread per stretch, an arc per iteration: the paths that viterbi has found. sums f64: of the scores of its segments,
// from the last chunk on that begins there.
extern "C" __global__ void follow(const u8* __restrict__ values, const u8* __restrict__ cuts, i64 n,
                                  const int* __restrict__ piece_at, const int* __restrict__ length_of, double lowest,
                                  const Best* __restrict__ best, int* __restrict__ path, double* __restrict__ sums) {
    __shared__ Cuts mine;
    const i64 i_first = thread_index() * STRETCH;
    if (i_first >= n) return;
    const u32 first = static_cast<u32>(i_first), limit = static_cast<u32>(n - first < STRETCH ? n : first + STRETCH);
    mine.read(cuts + first, limit - first);
    u32 i_word = 0, left = mine.cuts[0][threadIdx.x];
    const auto next_cut = [&]() {
        while (!left && ++i_word < Cuts::WORDS) left = mine.cuts[i_word][threadIdx.x];
        const u32 k = 31 - __clz(static_cast<int>(left & (0 - left)));
        const u32 p = left ? first + 32 * i_word + k : limit;
        left &= left - 1;
        return p;
    };
    double sum = 0.0;
    u32 start = first, next = next_cut(), e = start;
    // The path of the segment from start to stop is written from its end down to e.
    for (;; stay_one_loop()) {
        if (e == start) {
            e = start = next;
            if (start >= limit) break;
            next = next_cut();
            const u32 stop =
                next < limit ? next : first_mark(reinterpret_cast<const u32*>(cuts), CUT, limit, start + 1 + LONGEST);
            const bool is_chunk = mine.is_chunk(start - first);
            if (is_chunk) sum = 0.0;
            if (stop - start > LONGEST || (is_chunk && (cuts[start] & TOKEN))) continue;
            const double score = score_of(best[stop - 1]);
            if (score == lowest) continue;
            sum += score;
            e = stop;
        }
        e -= write_arc(values, best, piece_at, length_of, e, path);
    }
    sums[thread_index()] = sum;
}

// The tool's arithmetic.
struct Tool {
    const u8* values;
    const u8* cuts;
    const Node* nodes;
    const int* piece_at;
    const int* length_of;
    const NUMBER* scores;
    Best* best;
    int* path;
    double best_unk, lowest, reset, rounding, extreme;

    // The sum with which a segment at p begins, where one before it has ended with total.
    __device__ NUMBER begin(i64 p, NUMBER total) const {
        return (cuts[p] & CHUNK) || magnitude(total) > reset ? 0 : total;
    }

    // Go along the arc of a path at p; its score.
    __device__ NUMBER go_along(i64& p) const {
        const int arc = path[p];
        p += arc == UNKNOWN ? symbol_from(values, p) : length_of[arc];
        return arc == UNKNOWN ? static_cast<NUMBER>(best_unk) : scores[arc];
    }

    // Whether rounding cannot make another path of the segment the best, from total, and from no sum beyond `most`.
    __device__ bool leads(i64 start, i64 stop, double total, double most) const {
        const double length = stop - start, largest = most + length * extreme;
        return magnitude(total) + length * extreme <= reset && lead_of(best[stop - 1]) > length * largest * rounding;
    }

    // Add the path of the segment at p, which ends at stop, if it leads.
    __device__ bool add_path(i64 p, NUMBER& total, i64& stop) const {
        stop = p;
        if (path[p] == NO_ARC) return false;
        NUMBER sum = total;
        do sum += go_along(stop);
        while (!(cuts[stop] & CUT));
        if (!leads(p, stop, total, magnitude(total))) return false;
        total = sum;
        return true;
    }

    // What total is at the end of the best path of a segment, in the tool's arithmetic, or lowest: there is no path,
    // or a reset is due within.
    __device__ NUMBER search(i64 start, i64 stop, NUMBER total) const {
        const NUMBER none = static_cast<NUMBER>(lowest);
        NUMBER top = none;
        for (i64 e = start; e < stop;) {
            e += symbol_from(values, e);
            int chosen = UNKNOWN;
            top = none;
            visit_arcs(values, start, e, nodes, best_unk, [&](double score, int length, int node) {
                const i64 s = e - length;
                const NUMBER candidate =
                    (s == start ? total : static_cast<NUMBER>(score_of(best[s - 1]))) + static_cast<NUMBER>(score);
                if (candidate >= top && candidate > none) top = candidate, chosen = node;
            });
            if (e < stop && top > none && magnitude(top) > reset) return none;
            write(best + (e - 1), top, best[e - 1].y, chosen);
        }
        return top;
    }

    __device__ void replace_path(i64 start, i64 stop) const {
        for (i64 p = start; p < stop; ++p) path[p] = NO_ARC;
        for (i64 e = stop; e > start;) e -= write_arc(values, best, piece_at, length_of, e, path);
    }

    // Settle the segments from p on that begin before limit and in the same chunk; returns their end, or that of those
    // before one that is longer than LONGEST, in which a reset is due, or that no path reaches. An arc per iteration.
    __device__ i64 settle(i64 p, i64 limit, NUMBER& total) const {
        NUMBER sum = total = begin(p, total);
        for (i64 stop = p; path[stop] != NO_ARC; stay_one_loop()) {
            sum += go_along(stop);
            if (!(cuts[stop] & CUT)) continue;
            if (!leads(p, stop, total, magnitude(total))) {
                sum = search(p, stop, total);
                if (sum == lowest) return p;
                replace_path(p, stop);
            }
            p = stop;
            total = sum;
            if (p >= limit || (cuts[p] & CHUNK)) return p;
            sum = total = begin(p, total);
        }
        return p;
    }
};

// Numbers with the same sign and exponent are all multiples of one last place.
__device__ __forceinline__ i64 binade(double x) { return __double_as_longlong(x) >> 52; }

// The last place of a NUMBER, among the bits of a double.
constexpr i64 LAST_PLACE = sizeof(NUMBER) == 4 ? 1ll << 29 : 1;

__device__ __forceinline__ NUMBER with_parity(NUMBER x, bool is_odd) {
    const i64 bits = __double_as_longlong(x) & ~LAST_PLACE;
    return static_cast<NUMBER>(__longlong_as_double(is_odd ? bits | LAST_PLACE : bits));
}

// The passage from p on, with a sum near `expected`, as far as it goes. An arc per iteration.
__device__ inline Passage passage_from(const Tool& tool, i64 p, i64 limit, NUMBER expected) {
    const NUMBER from = with_parity(expected, false);
    Passage passage = {p, 0, CLOSED, from, {from, with_parity(from, true)}, from, from, 0}, next = passage;
    const auto pass_by = [&](NUMBER sum) {
        if (sum < next.low) next.low = sum;
        if (sum > next.high) next.high = sum;
    };
    for (i64 stop = p; tool.path[stop] != NO_ARC; stay_one_loop()) {
        const NUMBER score = tool.go_along(stop);
        pass_by(next.to[0] += score);
        pass_by(next.to[1] += score);
        if (!(tool.cuts[stop] & CUT)) continue;
        const double even = magnitude(passage.to[0]), odd = magnitude(passage.to[1]), most = even > odd ? even : odd;
        // No sum in the segment is further away from the one at its start.
        const double reach = (stop - p) * (tool.extreme + most * tool.rounding);
        if (most + reach > next.most) next.most = static_cast<NUMBER>(most + reach);
        // All sums of this binade are at most twice these.
        if (!tool.leads(p, stop, passage.to[0], 2 * most)) {
            next.state = OPEN;
            for (int i = 0; i < 2; ++i) {
                pass_by(static_cast<NUMBER>(passage.to[i] - reach));
                pass_by(static_cast<NUMBER>(passage.to[i] + reach));
                next.to[i] = tool.search(p, stop, passage.to[i]);
            }
            if (next.to[0] == tool.lowest || next.to[1] == tool.lowest) return passage;
        }
        if (binade(next.low) != binade(from) || binade(next.high) != binade(from)) return passage;
        next.length += static_cast<int>(stop - p);
        passage = next;
        p = stop;
        if (p >= limit || (tool.cuts[p] & CHUNK)) return passage;
    }
    return passage;
}

// A thread per stretch. Settles the chunks that begin there, as far as it can, lists those that go on (starts Start
// [n_chunks], n_starts u64 [1], initially 0), and finds the passage through what precedes them. sums f64: the running
// sums of what follow has written. resets: 1 / reset, or 0. passages [stretches * PASSAGES].
extern "C" __global__ void __launch_bounds__(BLOCK, 8)
    pass(const u8* values, const u8* cuts, i64 n, const Node* nodes, const int* piece_at, const int* length_of,
         const NUMBER* scores, double best_unk, double lowest, double reset, double rounding, double extreme, Best* best,
         int* path, const i64* chunk_offsets, i64 n_chunks, const double* __restrict__ sums, double resets,
         Passage* __restrict__ passages, Start* __restrict__ starts, u64* __restrict__ n_starts) {
    const i64 i_stretch = thread_index(), first = i_stretch * STRETCH;
    if (first >= n) return;
    const i64 limit = n - first < STRETCH ? n : first + STRETCH;
    const Tool tool = {values, cuts, nodes, piece_at, length_of, scores, best, path,
                       best_unk, lowest, reset, rounding, extreme};
    passages += i_stretch * PASSAGES;
    for (int i = 0; i < PASSAGES; ++i) passages[i] = {0, 0, CLOSED, 0, {0, 0}, 0, 0, 0};
    i64 p = next_mark(cuts, CUT, first, limit);
    if (p < limit && !(cuts[p] & CHUNK)) {
        const i64 begun = chunk_offsets[document_of(chunk_offsets, n_chunks, p)] / STRETCH;
        double expected = sums[i_stretch - 1] - (begun > 0 ? sums[begun - 1] : 0.0);
        const bool is_usual = magnitude(expected) < MOST_EXPECTED;
        if (is_usual && resets > 0) expected -= static_cast<double>(static_cast<i64>(expected * resets)) * reset;
        NUMBER total = static_cast<NUMBER>(expected);
        for (int i = 0; i < PASSAGES && is_usual; ++i) {
            const Passage passage = passage_from(tool, p, limit, total);
            passages[i] = passage;
            p += passage.length;
            total = passage.to[0];
            i64 stop;
            if (p >= limit || (cuts[p] & CHUNK) || !tool.add_path(p, total, stop)) break;
            p = stop;
            if (p >= limit || (cuts[p] & CHUNK)) break;
        }
    }
    for (p = next_mark(cuts, CHUNK, p, limit); p < limit;) {
        i64 stop = p + 1;
        if (!(cuts[p] & TOKEN)) {
            NUMBER total = 0;
            stop = tool.settle(p, limit, total);
            if (stop == p || !(cuts[stop] & CHUNK)) starts[atomicAdd(n_starts, 1ull)] = {stop, total};
            if (stop == p) ++stop;
        }
        p = next_mark(cuts, CHUNK, stop, limit);
    }
}

// Whether there is a passage at p that the sum can take; if so, p and total are then what it comes to.
__device__ __forceinline__ bool take(Passage*& passage, Passage* passages, double reset, i64& p, NUMBER& total) {
    passage = passages + p / STRETCH * PASSAGES;
    if (passage->start != p) ++passage;
    if (passage->start != p || passage->length == 0) return false;
    const bool is_odd = __double_as_longlong(total) & LAST_PLACE;
    const double away = static_cast<double>(total) - with_parity(passage->from, is_odd);
    if (binade(passage->low + away) != binade(passage->from) || binade(passage->high + away) != binade(passage->from))
        return false;
    if (passage->most + magnitude(away) > reset) return false;
    total = static_cast<NUMBER>((is_odd ? passage->to[1] : passage->to[0]) + away);
    p += passage->length;
    return true;
}

// A thread per chunk, for each listed start: carries the sum on to the end of the chunk, or to a segment that a warp
// has to do, from which it is listed again (breaks Start [n_chunks], n_breaks u64 [1], initially 0).
extern "C" __global__ void carry(const u8* values, const u8* cuts, const Node* nodes, const int* piece_at,
                                 const int* length_of, const NUMBER* scores, double best_unk, double lowest,
                                 double reset, double rounding, double extreme, Best* best, int* path,
                                 Passage* passages, const Start* __restrict__ starts, const u64* __restrict__ n_starts,
                                 Start* __restrict__ breaks, u64* __restrict__ n_breaks) {
    if (thread_index() >= static_cast<i64>(*n_starts)) return;
    const Tool tool = {values, cuts, nodes, piece_at, length_of, scores, best, path,
                       best_unk, lowest, reset, rounding, extreme};
    i64 p = starts[thread_index()].position;
    NUMBER total = static_cast<NUMBER>(starts[thread_index()].total);
    do {
        const i64 start = p;
        const NUMBER before = total;
        Passage* passage;
        if (!take(passage, passages, reset, p, total)) p = tool.settle(p, p + 1, total);
        else if (passage->state == OPEN) passage->arrive(before);
        if (p == start) {
            breaks[atomicAdd(n_breaks, 1ull)] = {p, total};
            return;
        }
    } while (!(cuts[p] & CHUNK));
}

constexpr int RECENT = 64;

// A warp per break, from where it carries the sum on to the end of the chunk. subtracted NUMBER [n], at e - 1:
// what a reset at e takes from the ends that arcs reach across it. longest: bytes of the longest arc. arcs: LANES *
// max_arcs for each block.
extern "C" __global__ void __launch_bounds__(LANES)
    carry_long(const u8* values, const u8* cuts, i64 n, const Node* nodes, const int* piece_at, const int* length_of,
               const NUMBER* scores, double best_unk, double lowest, double reset, double rounding, double extreme,
               Best* best, int* path, Passage* passages, const Start* __restrict__ breaks,
               const u64* __restrict__ n_breaks, i64 longest, NUMBER* subtracted, Arc* arcs, i64 max_arcs,
               i64* __restrict__ no_path) {
    __shared__ bool is_end[LANES];
    __shared__ int n_arcs[LANES];
    __shared__ NUMBER candidates[LANES];
    __shared__ NUMBER recent[RECENT];
    __shared__ NUMBER carried;
    __shared__ i64 reached;
    const Tool tool = {values, cuts, nodes, piece_at, length_of, scores, best, path,
                       best_unk, lowest, reset, rounding, extreme};
    const NUMBER none = static_cast<NUMBER>(lowest);
    arcs += blockIdx.x * LANES * max_arcs;
    // The segment at start, from total at its start to that at its end; returns its end.
    const auto search = [&](i64 start, NUMBER& total) {
        i64 done = start, last_reset = start - longest;
        NUMBER top = none;
        for (bool ended = false; !ended;) {
            each_lane([&](int lane) {
                const i64 e = done + 1 + lane;
                is_end[lane] = e >= n || (cuts[e] & CUT);
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
                        const NUMBER from = s == start             ? total
                                            : arc.length <= RECENT ? recent[s % RECENT]
                                                                   : static_cast<NUMBER>(score_of(best[s - 1]));
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
                    const NUMBER kept = resets ? 0 : top;
                    recent[e % RECENT] = kept;
                    write(best + (e - 1), kept, 0, node);
                    subtracted[e - 1] = resets ? top : 0;
                });
                if (resets) last_reset = e;
            }
            done += size;
        }
        total = top;
        return done;
    };
    for (u64 i = blockIdx.x; i < *n_breaks; i += gridDim.x) {
        i64 p = breaks[i].position;
        NUMBER total = static_cast<NUMBER>(breaks[i].total);
        do {
            const i64 start = p;
            const NUMBER before = total;
            Passage* passage;
            if (take(passage, passages, reset, p, total)) {
                if (passage->state == OPEN)
                    each_lane([&](int lane) {
                        if (lane == 0) passage->arrive(before);
                    });
                continue;
            }
            total = tool.begin(p, total);
            if (tool.add_path(start, total, p)) continue;
            each_lane([&](int lane) {
                if (lane > 0) return;
                carried = total;
                reached = tool.settle(start, start + 1, carried);
            });
            total = carried;
            p = reached;
            if (p > start) continue;
            p = search(start, total);
            if (total == none) {
                if (threadIdx.x == 0) atomicMin(no_path, p);
                break;
            }
            each_lane([&](int lane) {
                if (lane == 0) tool.replace_path(start, p);
            });
        } while (!(cuts[p] & CHUNK));
    }
}

// A thread per passage: what was left open, now that the sum is known. n_passages: of all stretches.
extern "C" __global__ void settle(const u8* values, const u8* cuts, const Node* nodes, const int* piece_at,
                                  const int* length_of, const NUMBER* scores, double best_unk, double lowest,
                                  double reset, double rounding, double extreme, Best* best, int* path,
                                  const Passage* __restrict__ passages, i64 n_passages) {
    if (thread_index() >= n_passages || passages[thread_index()].state != ARRIVED) return;
    const Passage passage = passages[thread_index()];
    const Tool tool = {values, cuts, nodes, piece_at, length_of, scores, best, path,
                       best_unk, lowest, reset, rounding, extreme};
    NUMBER total = passage.from;
    tool.settle(passage.start, passage.start + passage.length, total);
}
