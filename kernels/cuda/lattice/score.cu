// How much of a lattice's weight (lattice.cuh) reads as given ids: the summed weights of the paths that become exactly
// these ids.
//
// In:  unit i is row rows[i], its ids are ids[id_firsts[row]..id_stops[row]), its document row_doc[row]; a row that
//      stops before its first id has no path; arcs i32 [A] (text.cuh), marks u8 [P], text u8; the pieces sorted by
//      bytes, ragged, with their ids i32, and longest, the bytes of the longest; byte_ids i32 [256], -1 if missing;
//      unk_id, -1 if none; look_up, whether a run of unknown arcs may be a piece; length_bits, 0 if it may not.
// Out: totals f64 and exponents i64 [rows]; is_full u8 [rows], whether the unit's heap was too small.
//
// A thread per row, which it owns, and heap_...[i * capacity..(i + 1) * capacity): 32 bytes per waiting state. What
// a state is, and how many there are: kernels/cpu/lattice/score.py, which does the same operations in the same order.
// Does not: take logs, divide by Z.
#include "common/lattice.cuh"
#include "common/sorted.cuh"

constexpr int CLOSED = 0;
constexpr int BYTES = 1;
constexpr int ONE_SPELLED = 2;
constexpr int ONE_OTHER = 3;
constexpr int KIND_BITS = 2;

struct Key {
    i64 position;
    i64 state;
    i64 exponent;

    __device__ __forceinline__ bool is_before(const Key& other) const {
        return position > other.position || (position == other.position && state > other.state);
    }
};

// States in order, the first at index `first`; size is -1, for good, once capacity was too small.
struct Heap {
    Key* keys;
    double* mantissas;
    i64 first;
    int capacity;
    int size;

    __device__ __forceinline__ const Key& top() const { return keys[first]; }

    __device__ __forceinline__ void put(int i, const Key& key, double mantissa) {
        keys[first + i] = key;
        mantissas[first + i] = mantissa;
    }

    // Put a state after the others, where sift_up finds it.
    __device__ __forceinline__ void append(const Key& key, double mantissa) {
        if (size == capacity) size = -1;
        if (size < 0) return;
        put(size++, key, mantissa);
    }

    __device__ __forceinline__ void sift_up(int i) {
        const Key key = keys[first + i];
        const double mantissa = mantissas[first + i];
        for (; i > 0 && key.is_before(keys[first + (i - 1) / 2]); i = (i - 1) / 2)
            put(i, keys[first + (i - 1) / 2], mantissas[first + (i - 1) / 2]);
        put(i, key, mantissa);
    }

    __device__ __forceinline__ void pop() {
        const int last = --size;
        int i = 0;
        for (int below = 1; below < last; below = 2 * i + 1) {
            if (below + 1 < last && keys[first + below + 1].is_before(keys[first + below])) ++below;
            if (!keys[first + below].is_before(keys[first + last])) break;
            put(i, keys[first + below], mantissas[first + below]);
            i = below;
        }
        put(i, keys[first + last], mantissas[first + last]);
    }
};

// Limits registers to what a block of so many threads has, as in the other kernels.
constexpr int MOST_THREADS = 1024;

extern "C" __global__ void __launch_bounds__(MOST_THREADS)
    reading_sums(i64 n, const i64* __restrict__ rows, const i64* __restrict__ row_doc,
                 const i64* __restrict__ id_firsts, const i64* __restrict__ id_stops, const int* __restrict__ ids,
                 const i64* __restrict__ doc_positions, const i64* __restrict__ arc_offsets,
                 const int* __restrict__ arcs, const int* __restrict__ lengths, const double* __restrict__ weights,
                 const u8* __restrict__ marks, const u8* __restrict__ text, const u8* __restrict__ sorted_values,
                 const i64* __restrict__ sorted_offsets, const int* __restrict__ sorted_ids, i64 n_sorted, i64 longest,
                 const int* __restrict__ byte_ids, i64 unk_id, i64 look_up, i64 length_bits, i64 capacity,
                 Key* heap_keys, double* heap_mantissas, double* __restrict__ totals, i64* __restrict__ exponents,
                 u8* __restrict__ is_full) {
    const i64 i = thread_index();
    if (i >= n) return;
    const i64 row = rows[i], start = doc_positions[row_doc[row]], n_ids = id_stops[row] - id_firsts[row];
    const int* of_row = ids + id_firsts[row];
    const u8* of_doc = text + start - row_doc[row];
    const int bits = static_cast<int>(length_bits), most = (1 << bits) - 1;
    Heap waiting = {heap_keys, heap_mantissas, i * capacity, static_cast<int>(capacity), 0};
    if (n_ids >= 0) waiting.append({doc_positions[row_doc[row] + 1] - start - 1, n_ids << KIND_BITS << bits, 1}, 0.5);
    totals[row] = 0.0;
    exponents[row] = 0;
    while (waiting.size > 0) {
        const i64 p = waiting.top().position, state = waiting.top().state;
        Scaled weight = {0.0, 0};
        do {
            weight = add(weight, {waiting.mantissas[waiting.first], waiting.top().exponent});
            waiting.pop();
        } while (waiting.size > 0 && waiting.top().position == p && waiting.top().state == state);
        const i64 j = state >> bits >> KIND_BITS;
        const int kind = static_cast<int>(state >> bits) & 3, length = static_cast<int>(state) & most;
        bool closes = kind == CLOSED;
        if (!closes) {
            const SortedPieces pieces = {sorted_values, sorted_offsets, sorted_ids, n_sorted};
            const i64 piece = look_up && length <= longest ? pieces.find(of_doc, p, p + length) : -1;
            if (kind == BYTES) closes = piece < 0;
            else if (piece >= 0) closes = of_row[j] == sorted_ids[piece];
            else closes = kind == ONE_OTHER && of_row[j] == unk_id;
        }
        if (p == 0) {
            if (closes && j == 0) {
                weight = add({totals[row], exponents[row]}, weight);
                totals[row] = weight.mantissa;
                exponents[row] = weight.exponent;
            }
            continue;
        }
        const bool extends = kind != CLOSED && !(marks[start + p] & CHUNK);
        if (!closes && !extends) continue;
        const int before = waiting.size;
        for (i64 k = arc_offsets[start + p]; k < arc_offsets[start + p + 1]; ++k) {
            if (weights[k] == 0.0) continue;
            const int arc = arcs[k], arc_length = lengths[k];
            const i64 s = p - arc_length;
            i64 one = -1, spelled = -1;
            if (!(arc == UNKNOWN || arc == unk_id)) {
                if (closes && j > 0 && of_row[j - 1] == (arc <= TOKEN_ARC ? TOKEN_ARC - arc : arc))
                    one = (j - 1) << KIND_BITS << bits;
            } else {
                bool is_spelled = true, is_read = j >= arc_length;
                for (int b = 0; is_spelled && b < arc_length; ++b) {
                    const int byte_id = byte_ids[of_doc[s + b]];
                    is_spelled = byte_id >= 0;
                    is_read = is_read && of_row[j - arc_length + b] == byte_id;
                }
                int run = arc_length + (extends ? length : 0);
                if (run > most) run = most;
                if (is_spelled && is_read && (extends ? kind == BYTES : closes))
                    spelled = ((j - arc_length) << KIND_BITS | BYTES) << bits | run;
                if (extends && kind != BYTES) one = (j << KIND_BITS | (is_spelled ? kind : ONE_OTHER)) << bits | run;
                if (!extends && j > 0 && (look_up || of_row[j - 1] == unk_id))
                    one = ((j - 1) << KIND_BITS | (is_spelled ? ONE_SPELLED : ONE_OTHER)) << bits | run;
            }
            const Scaled term = scaled(weight.mantissa * weights[k], weight.exponent);
            for (i64 to = one >= 0 ? one : spelled; to >= 0; to = to == spelled ? -1 : spelled) 
                waiting.append({s, to, term.exponent}, term.mantissa);
        }
        for (int i_new = before; i_new < waiting.size; ++i_new) waiting.sift_up(i_new);
    }
    is_full[row] = waiting.size < 0;
}
