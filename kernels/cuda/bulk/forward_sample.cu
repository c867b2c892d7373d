// Perfect samples: forward scores of every segment, then arcs from its end to its start, chosen by what is left of a
// random number (reference.py, sample).
//
// In:  values u8 [n]; cuts u8 [n + 1] (cuts.cu), both aligned to 8 bytes; the trie with weights; unk_weight, 0 without an
//      unknown arc; inverses f64 [V] and unk_inverse, 1 / weight of every piece and of the unknown arc.
// Out: z f64 [n], Z[e] at e - 1, where Z[e] = the sum of Z[s] * weight over the arcs into e, shortest first, and 1 at a
//      segment's start; path i32 [num_samples, n], the piece (or UNKNOWN) that begins at a byte, else unchanged;
//      no_path i64 [1], the smallest end of a segment that no path reaches.
//
// A thread owns the segments that begin (forward) or end (trace) in its STRETCH bytes, and does a few trie steps per
// iteration, in whatever segment and position it is at, so that lanes stay busy for segments of any length. It has the text
// around its position in registers, and the last scores in shared memory. It uses plain float64, and lists segments that
// are longer than LONGEST or whose scores leave z_low..z_high; each of those is done by a warp, with exponents beside the
// mantissas.
//
// 8 bytes per byte of text, 24 with the exponents and lists that only listed segments use, and 4 per sample.
// Does not: emit ids (emit.cu).
// Source: Su Jianlin, https://kexue.fm/archives/9811.
#include "common/philox.cuh"
#include "common/reader.cuh"
#include "common/scaled.cuh"
#include "common/trie.cuh"
#include "common/warp.cuh"

// A thread per stretch, 40 warps of them: registers for more spill on some devices. long_starts u32 [n], n_long u64 [1],
// initially 0.
extern "C" __global__ void __launch_bounds__(BLOCK, 10)
    forward(const u8* __restrict__ values, const u8* __restrict__ cuts, i64 n, const Node* __restrict__ nodes,
            double unk_weight, double z_low, double z_high, double* z, u32* __restrict__ long_starts,
            u64* __restrict__ n_long, i64* __restrict__ no_path) {
    __shared__ Kept<double> kept;
    const i64 first = thread_index() * STRETCH;
    if (first >= n) return;
    const u32 limit = static_cast<u32>(n - first < STRETCH ? n : first + STRETCH);
    u32 start = static_cast<u32>(next_mark(cuts, CUT, first, limit));
    if (start >= limit) return;
    Reader text(values, cuts, n);
    text.open(start);
    kept.first() = kept[start] = 1.0;
    // The walk from text.p, the end of the symbol at `before`, has gone `length` bytes.
    u32 before = start, length = 0;
    text.advance();
    double total = 0.0;
    const Walk top = root(nodes);
    Walk walk = top;
    // High words above `low` by up to so many are of scores within the range, if there is any.
    const int low = __double2hiint(z_low) + 1, high = __double2hiint(z_high);
    const u32 within = high > low ? high - low : 0;
    const auto is_in_range = [&](double score) { return static_cast<u32>(__double2hiint(score) - low) < within; };
    for (;; meet()) {
        const bool is_near = length < KEPT;
        const u32 p = text.p - length, most = p - start, n_far = is_near ? 0 : most;
        const double* const z_here = z + p;
        const u32 bytes = next_bytes(values, text.p, length, start, text.before, text.early);
        const bool goes_on = go_back(nodes, bytes, most, walk, [&](u32 k, double weight, int, bool is_arc) {
            double score = kept.before(p, k, is_near);
            if (is_arc && k < n_far) score = *(z_here - k - 1);
            if (is_arc) total += score * weight;
            return true;
        });
        length += STEPS;
        if (goes_on) continue;
        const u32 e = text.p;
        const bool is_long = e - start >= LONGEST;
        if (is_long || !is_in_range(total)) {
            // No arc, or none from where a path comes: maybe the symbol is not in the trie.
            if (total == 0.0) total = kept[before] * unk_weight;
            const bool is_end = text.mark & CUT, is_token = cuts[start] & TOKEN;
            if ((is_long && !is_end) || (total != 0.0 && !is_in_range(total))) {
                if (!is_token) long_starts[atomicAdd(n_long, 1ull)] = start;
                text.open(static_cast<u32>(next_mark(cuts, CUT, e, limit)));
                text.mark |= CUT;
            } else if (is_end && total == 0.0 && !is_token) {
                atomicMin(no_path, static_cast<i64>(e));
            }
        }
        z[e - 1] = total;
        if (text.mark & CUT) {
            if (text.p >= limit) return;
            start = text.p;
            total = 1.0;
        }
        before = text.p, length = 0;
        kept[before] = total;
        text.advance();
        total = 0.0;
        walk = top;
    }
}

constexpr int RECENT = 64;

// A warp per listed segment, whichever comes next. Writes z and exponents i64 [n] (mantissas and exponents), long_stops
// u32 [n], and LONG to cuts. arcs: LANES * max_arcs for each block.
// Lanes walk the trie from 32 positions at once; then, position by position, they evaluate its arcs at once; only one
// addition per arc remains sequential, in order.
extern "C" __global__ void __launch_bounds__(LANES)
    forward_long(const u8* __restrict__ values, u8* cuts, i64 n, const Node* __restrict__ nodes, double unk_weight,
                 double* z, i64* exponents, const u32* __restrict__ long_starts, u32* __restrict__ long_stops,
                 const u64* __restrict__ n_long, Arc* arcs, i64 max_arcs, i64* __restrict__ no_path) {
    __shared__ bool is_end[LANES];
    __shared__ int n_arcs[LANES];
    __shared__ Scaled terms[LANES];
    __shared__ Scaled recent[RECENT];
    arcs += blockIdx.x * LANES * max_arcs;
    for (u64 i = blockIdx.x; i < *n_long; i += gridDim.x) {
        const i64 start = long_starts[i];
        i64 done = start;
        Scaled score = {0.0, 0};
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
                n_arcs[lane] = is_boundary ? find_arcs(values, start, e, nodes, unk_weight, arcs + lane * max_arcs) : 0;
            });
            for (int i_pos = 0; i_pos < size; ++i_pos) {
                const i64 e = done + 1 + i_pos;
                double total = 0.0;
                i64 exponent = 0;
                for (int k = 0; k < n_arcs[i_pos]; k += LANES) {
                    const int count = n_arcs[i_pos] - k < LANES ? n_arcs[i_pos] - k : LANES;
                    each_lane([&](int lane) {
                        if (lane >= count) return;
                        const Arc arc = arcs[i_pos * max_arcs + k + lane];
                        const i64 s = e - arc.length;
                        const Scaled from = s == start             ? scaled(1.0, 0)
                                            : arc.length <= RECENT ? recent[s % RECENT]
                                                                   : Scaled{z[s - 1], exponents[s - 1]};
                        terms[lane] = scaled(from.mantissa * arc.value, from.exponent);
                    });
                    // Relative to the largest exponent, every term that counts is a normal float64.
                    i64 largest = total == 0.0 ? FAR_BELOW - (1ll << 60) : exponent;
                    for (int j = 0; j < count; ++j)
                        if (terms[j].mantissa != 0.0 && terms[j].exponent > largest) largest = terms[j].exponent;
                    each_lane([&](int lane) {
                        if (lane < count) terms[lane].mantissa = lowered(terms[lane].mantissa, terms[lane].exponent - largest);
                    });
                    total = lowered(total, exponent - largest);
                    exponent = largest;
                    for (int j = 0; j < count; ++j) total += terms[j].mantissa;
                }
                score = scaled(total, exponent);
                each_lane([&](int lane) {
                    if (lane > 0) return;
                    recent[e % RECENT] = score;
                    z[e - 1] = score.mantissa;
                    exponents[e - 1] = score.exponent;
                });
            }
            done += size;
        }
        if (threadIdx.x == 0) {
            long_stops[i] = static_cast<u32>(done);
            cuts[done] |= LONG;
            if (score.mantissa == 0.0) atomicMin(no_path, done);
        }
    }
}

// A thread per stretch and sample. doc_offsets i64 [n_docs + 1], doc_ids u64 [n_docs].
extern "C" __global__ void __launch_bounds__(BLOCK, 8)
    trace(const u8* __restrict__ values, const u8* __restrict__ cuts, i64 n,
                                 const Node* __restrict__ nodes, const int* __restrict__ piece_at, double unk_weight,
                                 const double* __restrict__ inverses, double unk_inverse, const double* __restrict__ z,
                                 const i64* __restrict__ doc_offsets, const u64* __restrict__ doc_ids, i64 n_docs,
                                 u64 seed, i64 num_samples, int* __restrict__ path) {
    const i64 n_stretches = (n + STRETCH - 1) / STRETCH;
    const i64 i_sample = thread_index() / n_stretches;
    if (i_sample >= num_samples) return;
    const u32 first = static_cast<u32>(thread_index() % n_stretches * STRETCH);
    path += i_sample * n;
    u32 e = previous_mark(cuts, CUT, static_cast<u32>(n - first < STRETCH ? n : first + STRETCH), first);
    if (e == first) return;
    const Words text(values, n);
    const u32* const marks = reinterpret_cast<const u32*>(cuts);
    i64 i_doc = document_of(doc_offsets, n_docs, e);
    u32 doc_start = static_cast<u32>(doc_offsets[i_doc]);
    u64 doc_id = doc_ids[i_doc];
    // The segment begins at start. The walk from e has gone `length` bytes; the last arc so far that adds to the sum begins
    // at arc_start; the sum is running with it and below without it. A new target is drawn at `due` positions before the
    // segment's end, or more.
    u32 start = e, stop = e, due = 0, length = 0, arc_start = 0, before = 0, early = 0;
    int arc_node = UNKNOWN;
    double running = 0.0, below = 0.0, target = 0.0;
    const Walk top = root(nodes);
    Walk walk = top;
    for (bool is_new = true;; meet()) {
        if (is_new) {
            if (e == start) {
                // Tokens and listed segments are done elsewhere.
                while (e > first && ((cuts[e - 1] & TOKEN) || (cuts[e] & LONG)))
                    e = previous_mark(cuts, CUT, e - 1, first);
                if (e <= first) return;
                start = last_mark(marks, CUT, e - 1);
                stop = e, due = 0;
                for (; e <= doc_start; doc_id = doc_ids[i_doc]) doc_start = static_cast<u32>(doc_offsets[--i_doc]);
            }
            const u32 word = e >> 2, shift = 8 * (e & 3), middle = text[word - 1];
            before = __funnelshift_r(middle, text[word], shift);
            early = __funnelshift_r(text[word - 2], middle, shift);
            arc_start = e - (cuts[e] >> ENDS) - 1;
            length = 0;
            arc_node = UNKNOWN;
            running = below = 0.0;
            walk = top;
            is_new = false;
            // An arc from the segment's start is the last one, whatever the target, and nothing goes on from there.
            if (stop - e >= due && arc_start != start) {
                target = z[e - 1] * uniform(seed, e - doc_start, static_cast<u32>(i_sample), doc_id);
                due = (stop - e) / DRAW_BYTES * DRAW_BYTES + DRAW_BYTES;
            }
        }
        const u32 p = e - length, most = p - start;
        const u32 bytes = next_bytes(values, e, length, start, before, early);
        const bool goes_on = go_back(nodes, bytes, most, walk, [&](u32 k, double weight, int node, bool is_arc) {
            double term = weight;
            if (is_arc && k != most) term *= z[p - k - 1];
            if (!is_arc || term == 0.0) return true;
            below = running;
            running += term;
            arc_start = p - k;
            arc_node = node;
            return running <= target;
        });
        length += STEPS;
        if (goes_on) continue;
        const int piece = arc_node == UNKNOWN ? UNKNOWN : piece_at[arc_node];
        e = arc_start;
        path[e] = piece;
        if (e != start) target = (target - below) * (piece == UNKNOWN ? unk_inverse : inverses[piece]);
        is_new = true;
    }
}

// A warp per listed segment and sample. arcs: LANES * max_arcs for each block.
// Lanes walk the trie from 32 positions at once; then, at each that the path visits, they evaluate its arcs at once; only
// one addition and one comparison per arc remain sequential, in order.
extern "C" __global__ void __launch_bounds__(LANES)
    trace_long(const u8* __restrict__ values, i64 n, const Node* __restrict__ nodes, const int* __restrict__ piece_at,
               double unk_weight, const double* __restrict__ inverses, double unk_inverse,
               const double* __restrict__ z, const i64* __restrict__ exponents, const u32* __restrict__ long_starts,
               const u32* __restrict__ long_stops, const u64* __restrict__ n_long, Arc* arcs, i64 max_arcs,
               const i64* __restrict__ doc_offsets, const u64* __restrict__ doc_ids, i64 n_docs, u64 seed,
               i64 num_samples, int* __restrict__ path) {
    __shared__ int n_arcs[LANES];
    __shared__ Scaled terms[LANES];
    arcs += blockIdx.x * LANES * max_arcs;
    for (u64 i = blockIdx.x; i < *n_long * num_samples; i += gridDim.x) {
        const i64 start = long_starts[i / num_samples], stop = long_stops[i / num_samples], i_sample = i % num_samples;
        const i64 i_doc = document_of(doc_offsets, n_docs, stop);
        int* const my_path = path + i_sample * n;
        Scaled target = {0.0, 0};
        for (i64 e = stop, high = stop + LANES, due = stop; e > start;) {
            if (high - e >= LANES) {
                high = e;
                each_lane([&](int lane) {
                    const i64 at = high - lane;
                    if (at <= start) return;
                    const bool is_boundary = lane == 0 || IS_BYTES || (values[at] & 0xC0) != 0x80;
                    if (!is_boundary) return;
                    n_arcs[lane] = find_arcs(values, start, at, nodes, unk_weight, arcs + lane * max_arcs);
                });
            }
            if (e <= due) {
                const double u = uniform(seed, static_cast<u32>(e - doc_offsets[i_doc]), static_cast<u32>(i_sample),
                                         doc_ids[i_doc]);
                target = scaled(u * z[e - 1], exponents[e - 1]);
                do due -= DRAW_BYTES;
                while (e <= due);
            }
            const Arc* const here = arcs + (high - e) * max_arcs;
            const int n_here = n_arcs[high - e];
            Scaled running = {0.0, 0}, before = running;
            int i_arc = 0;
            bool exceeds = false;
            for (int k = 0; k < n_here && !exceeds; k += LANES) {
                each_lane([&](int lane) {
                    if (k + lane >= n_here) return;
                    const Arc arc = here[k + lane];
                    const i64 s = e - arc.length;
                    const Scaled from = s == start ? scaled(1.0, 0) : Scaled{z[s - 1], exponents[s - 1]};
                    terms[lane] = scaled(from.mantissa * arc.value, from.exponent);
                });
                for (int j = 0; j < LANES && k + j < n_here && !exceeds; ++j) {
                    if (terms[j].mantissa == 0.0) continue;
                    i_arc = k + j;
                    before = running;
                    running = add(running, terms[j]);
                    exceeds = greater(running, target);
                }
            }
            const Arc arc = here[i_arc];
            const int piece = arc.node == UNKNOWN ? UNKNOWN : piece_at[arc.node];
            e -= arc.length;
            if (threadIdx.x == 0) my_path[e] = piece;
            target = subtract(target, before);
            target = scaled(target.mantissa * (piece == UNKNOWN ? unk_inverse : inverses[piece]), target.exponent);
        }
    }
}
