// Paths to rows of ids: tokens and unknown runs, counts, row lengths, ids at their places.
//
// In:  values u8 [n]; cuts u8 [n + 1] (cuts.cu; CHUNK is enough); path i32 [num_samples, n], NO_ARC where no arc
//      begins; byte_ids i32 [256], -1 if missing; unk_id, -1 if none; unk_length, bytes of the unknown id's surface if
//      that is a piece, else 0; doc_offsets i64 [n_docs + 1].
// Out: ids i32, offsets i64 [n_docs * num_samples + 1], row = document * num_samples + sample.
//
// A run of unknown arcs within a chunk becomes one piece, its bytes, or the unknown id; or each arc does (apart). An arc
// decides by itself if it can: with an id for every byte (spells) it is its bytes; with none it is the unknown id, unless
// an unknown arc precedes it. Otherwise count_runs and judge_runs come first, and runs holds a verdict on every run. So a
// thread, which owns GROUP positions of one sample, never walks along a run.
// 16 / GROUP bytes per byte of text and sample, with verdicts 24 / GROUP + 4.
#include "common/trie.cuh"

constexpr int GROUP = 32;

// Of n positions; of all samples there are less than 2^32.
__device__ __forceinline__ u32 groups_of(i64 n) { return static_cast<u32>((n + GROUP - 1) / GROUP); }

// Verdicts: above TO_UNKNOWN a piece + 1.
constexpr int TO_BYTES = -1;
constexpr int TO_UNKNOWN = 0;

// Where the first of some arcs of a group begins, which is then no longer among them.
__device__ __forceinline__ int take_first(u32& begun) {
    const int k = 31 - __clz(static_cast<int>(begun & (0 - begun)));
    begun &= begun - 1;
    return k;
}

// One path, and all that is needed to emit it.
struct Emission {
    const u8* values;
    const u8* cuts;
    const int* path;
    const int* byte_ids;
    const int* runs;  // null unless there are verdicts
    i64 i_run;        // the run that the last unknown arc belongs to
    int unk_id, unk_length;
    bool spells, apart;

    __device__ bool is_unknown(int arc) const { return arc == UNKNOWN || arc == unk_id; }

    __device__ i64 stop_of_unknown(i64 p) const {
        return p + (path[p] == UNKNOWN ? symbol_from(values, p) : unk_length);
    }

    __device__ bool begins_run(i64 p) const {
        if (cuts[p] & CHUNK) return true;
        if (path[p - symbol_into(values, p)] == UNKNOWN) return false;
        return unk_length == 0 || unk_length > p || path[p - unk_length] != unk_id;
    }

    // Write the ids of the arc that begins at p to ids, unless ids is null; returns how many. Positions come in order.
    __device__ int emit(i64 p, int arc, int* ids) {
        if (!is_unknown(arc)) {
            if (ids) *ids = arc <= TOKEN_ARC ? TOKEN_ARC - arc : arc;
            return 1;
        }
        int verdict = TO_BYTES;
        bool is_first = false;
        if (runs || !spells) {
            is_first = apart || begins_run(p);
            i_run += is_first;
            verdict = runs ? runs[i_run] : TO_UNKNOWN;
        }
        if (verdict == TO_BYTES) {
            const i64 stop = stop_of_unknown(p);
            for (i64 q = p; ids && q < stop; ++q) ids[q - p] = byte_ids[values[q]];
            return static_cast<int>(stop - p);
        }
        if (ids && is_first) *ids = verdict == TO_UNKNOWN ? unk_id : verdict - 1;
        return is_first;
    }

    // The ids of the arcs of a group that begin at these positions.
    __device__ i64 count(u32 begun, i64 start) {
        i64 sum = 0;
        while (begun) {
            const i64 p = start + take_first(begun);
            sum += emit(p, path[p], nullptr);
        }
        return sum;
    }
};

// The positions of a group where take(arc) holds, the first one lowest; four are loaded at once where that is possible.
template <class Take>
__device__ __forceinline__ u32 positions_of(const int* path, i64 start, i64 n, Take take) {
    const int stop = n - start < GROUP ? static_cast<int>(n - start) : GROUP;
    path += start;
    u32 found = 0;
    if (stop == GROUP && reinterpret_cast<u64>(path) % sizeof(int4) == 0) {
        for (int k = 0; k < GROUP; k += 4) {
            const int4 arcs = __ldg(reinterpret_cast<const int4*>(path + k));
            found |= (take(arcs.x) | take(arcs.y) << 1 | take(arcs.z) << 2 | take(arcs.w) << 3) << k;
        }
    } else {
        for (int k = 0; k < stop; ++k) found |= take(path[k]) << k;
    }
    return found;
}

// The sum of all before i.
__device__ __forceinline__ i64 sum_before(const i64* sums, i64 i) { return i > 0 ? sums[i - 1] : 0; }

// A thread per chunk and sample: a chunk that is a token is an arc of its own; path holds nothing else there.
extern "C" __global__ void place_tokens(const i64* __restrict__ chunk_offsets, const int* __restrict__ chunk_ids,
                                        i64 n_chunks, i64 n, i64 num_samples, int* __restrict__ path) {
    const i64 i_sample = thread_index() / n_chunks, i_chunk = thread_index() % n_chunks;
    if (i_sample < num_samples && chunk_ids[i_chunk] >= 0)
        path[i_sample * n + chunk_offsets[i_chunk]] = TOKEN_ARC - chunk_ids[i_chunk];
}

// A thread per group and sample. run_counts i64 [num_samples, groups]: the runs that begin there.
extern "C" __global__ void count_runs(const u8* values, const u8* cuts, i64 n, i64 num_samples, const int* path,
                                      i64 unk_id, i64 unk_length, i64* __restrict__ run_counts) {
    const u32 n_groups = groups_of(n), i_group = static_cast<u32>(thread_index());
    const i64 i_sample = i_group / n_groups, start = i_group % n_groups * i64{GROUP};
    if (i_sample >= num_samples) return;
    path += i_sample * n;
    const Emission emission = {values, cuts, path, nullptr, nullptr, 0, static_cast<int>(unk_id),
                               static_cast<int>(unk_length), false, false};
    i64 count = 0;
    for (i64 p = start; p < start + GROUP && p < n; ++p)
        count += emission.is_unknown(path[p]) && emission.begins_run(p);
    run_counts[thread_index()] = count;
}

// A thread per group and sample. run_sums i64: the running sums of run_counts, flat. runs i32: initially TO_BYTES if some
// bytes have ids, else TO_UNKNOWN. A run that is a piece (look_up; at most `longest` bytes) becomes that; a run with a
// byte that has no id (some_missing) becomes the unknown id.
extern "C" __global__ void judge_runs(const u8* values, const u8* cuts, i64 n, i64 num_samples, const int* path,
                                      i64 unk_id, i64 unk_length, const i64* __restrict__ run_sums,
                                      const int* __restrict__ byte_ids, i64 some_missing, i64 look_up, i64 longest,
                                      const Node* nodes, const int* piece_at, int* runs) {
    const u32 n_groups = groups_of(n), i_group = static_cast<u32>(thread_index());
    const i64 i_sample = i_group / n_groups, start = i_group % n_groups * i64{GROUP};
    if (i_sample >= num_samples) return;
    path += i_sample * n;
    const Emission emission = {values, cuts, path, nullptr, nullptr, 0, static_cast<int>(unk_id),
                               static_cast<int>(unk_length), false, false};
    i64 i_run = sum_before(run_sums, thread_index()) - 1;
    for (i64 p = start; p < start + GROUP && p < n; ++p) {
        if (!emission.is_unknown(path[p])) continue;
        const bool is_first = emission.begins_run(p);
        i_run += is_first;
        i64 stop = emission.stop_of_unknown(p);
        for (i64 q = p; some_missing && q < stop; ++q)
            if (byte_ids[values[q]] < 0) atomicMax(&runs[i_run], TO_UNKNOWN);
        if (!look_up || !is_first) continue;
        while (stop - p <= longest && !(cuts[stop] & CHUNK) && emission.is_unknown(path[stop]))
            stop = emission.stop_of_unknown(stop);
        const int piece = stop - p <= longest ? find_piece(values, p, stop, nodes, piece_at) : -1;
        if (piece >= 0) atomicMax(&runs[i_run], piece + 1);
    }
}

// A thread per group and sample. counts i64 [num_samples, groups]; begun u32, likewise: where arcs begin.
extern "C" __global__ void count_ids(const u8* values, const u8* cuts, i64 n, i64 num_samples, const int* path,
                                     i64 unk_id, i64 unk_length, const int* byte_ids, i64 spells, i64 apart,
                                     const i64* run_sums, const int* runs, i64* __restrict__ counts, u32* __restrict__ begun) {
    const u32 n_groups = groups_of(n), i_group = static_cast<u32>(thread_index());
    const i64 i_sample = i_group / n_groups, start = i_group % n_groups * i64{GROUP};
    if (i_sample >= num_samples) return;
    Emission emission = {values, cuts, path + i_sample * n, byte_ids, runs, 0, static_cast<int>(unk_id),
                         static_cast<int>(unk_length), spells != 0, apart != 0};
    if (runs) emission.i_run = sum_before(run_sums, thread_index()) - 1;
    bool some_unknown = false;
    const u32 arcs = positions_of(emission.path, start, n, [&](int arc) {
        some_unknown |= emission.is_unknown(arc);
        return static_cast<u32>(arc != NO_ARC);
    });
    counts[thread_index()] = some_unknown ? emission.count(arcs, start) : __popc(arcs);
    begun[thread_index()] = arcs;
}

// A thread per row. sums i64: the running sums of counts, flat. Writes lengths i64 [rows], the ids of each row including
// n_around around it, and first_ids i64 [rows]: the number of ids of this and earlier samples that precede the row.
extern "C" __global__ void measure_rows(const u8* values, const u8* cuts, i64 n, i64 num_samples, const int* path,
                                        i64 unk_id, i64 unk_length, const int* byte_ids, i64 spells,
                                        i64 apart, const i64* run_sums, const int* runs,
                                        const i64* __restrict__ sums, const u32* __restrict__ begun, const i64* __restrict__ doc_offsets, i64 n_docs,
                                        const bool* __restrict__ is_null, i64 n_around, i64* __restrict__ lengths,
                                        i64* __restrict__ first_ids) {
    const i64 row = thread_index();
    if (row >= n_docs * num_samples) return;
    const i64 n_groups = groups_of(n);
    const i64 i_doc = row / num_samples, i_sample = row % num_samples;
    Emission emission = {values, cuts, path + i_sample * n, byte_ids, runs, 0, static_cast<int>(unk_id),
                         static_cast<int>(unk_length), spells != 0, apart != 0};
    const auto ids_before = [&](i64 p) {
        const i64 i = i_sample * n_groups + p / GROUP;
        if (runs) emission.i_run = sum_before(run_sums, i) - 1;
        const i64 sum = sum_before(sums, i);
        return p % GROUP ? sum + emission.count(begun[i] & ((1u << p % GROUP) - 1), p / GROUP * GROUP) : sum;
    };
    const i64 start = ids_before(doc_offsets[i_doc]);
    first_ids[row] = start;
    lengths[row] = is_null[i_doc] ? 0 : ids_before(doc_offsets[i_doc + 1]) - start + n_around;
}

// A thread per group and sample.
extern "C" __global__ void place_ids(const u8* values, const u8* cuts, i64 n, i64 num_samples, const int* path,
                                     i64 unk_id, i64 unk_length, const int* byte_ids, i64 spells, i64 apart,
                                     const i64* run_sums, const int* runs, const i64* __restrict__ sums, const u32* __restrict__ begun,
                                     const i64* __restrict__ doc_offsets, i64 n_docs,
                                     const i64* __restrict__ first_ids, const i64* __restrict__ offsets, i64 n_before,
                                     int* __restrict__ ids) {
    const u32 n_groups = groups_of(n), i_group = static_cast<u32>(thread_index());
    const i64 i_sample = i_group / n_groups, start = i_group % n_groups * i64{GROUP};
    if (i_sample >= num_samples) return;
    Emission emission = {values, cuts, path + i_sample * n, byte_ids, runs, 0, static_cast<int>(unk_id),
                         static_cast<int>(unk_length), spells != 0, apart != 0};
    if (runs) emission.i_run = sum_before(run_sums, thread_index()) - 1;
    i64 i_doc = document_of(doc_offsets, n_docs, start + 1), stop = doc_offsets[i_doc + 1];
    // By how much the place of an id exceeds its number.
    const auto shift_of = [&](i64 row) { return offsets[row] + n_before - first_ids[row]; };
    i64 shift = shift_of(i_doc * num_samples + i_sample);
    int* to = ids + shift + sum_before(sums, thread_index());
    const int* const arcs = emission.path + start;
    for (u32 left = begun[thread_index()]; left;) {
        const int k = take_first(left), arc = arcs[k];
        if (start + k >= stop) {
            do stop = doc_offsets[++i_doc + 1];
            while (start + k >= stop);
            to -= shift;
            shift = shift_of(i_doc * num_samples + i_sample);
            to += shift;
        }
        to += emission.emit(start + k, arc, to);
    }
}

// A thread per row: the ids that belong around every row that has room for them (a null row has none).
extern "C" __global__ void place_around(const i64* __restrict__ offsets, i64 n_rows, const int* __restrict__ before,
                                        i64 n_before, const int* __restrict__ after, i64 n_after,
                                        int* __restrict__ ids) {
    const i64 row = thread_index();
    if (row >= n_rows || offsets[row] == offsets[row + 1]) return;
    for (i64 i = 0; i < n_before; ++i) ids[offsets[row] + i] = before[i];
    for (i64 i = 0; i < n_after; ++i) ids[offsets[row + 1] - n_after + i] = after[i];
}
