// Paths to rows of ids: tokens and unknown runs, counts, row lengths, ids at their places.
//
// In:  values u8 [n]; cuts u8 [n + 1] (cuts.cu; CHUNK is enough); path i32 [num_samples, n], NO_ARC where no arc begins;
//      the trie; byte_ids i32 [256], -1 where missing; unk_id, -1 for none; unk_length, bytes of the unknown id's surface
//      where that is a piece, else 0; look_up, whether a run of unknown arcs may be a piece; doc_offsets i64 [n_docs + 1].
// Out: ids i32, offsets i64 [n_docs * num_samples + 1], row = document * num_samples + sample.
//
// A run of unknown arcs within a chunk becomes one piece (look_up), its bytes, or the unknown id, and is emitted where it
// begins. A thread owns GROUP positions of one sample. 8 / GROUP bytes per byte of text and sample.
#include "trie.cuh"

constexpr int GROUP = 32;

// One path, and all that it takes to emit it.
struct Emission {
    const u8* values;
    const u8* cuts;
    i64 n;
    const int* path;
    const Node* nodes;
    const int* piece_at;
    const int* byte_ids;
    int unk_id, unk_length;
    bool has_bytes, look_up;

    __device__ bool is_unknown(int arc) const { return arc == UNKNOWN || (arc >= 0 && arc == unk_id); }

    // Whether the arc that begins at p continues a run.
    __device__ bool continues(i64 p) const {
        if (cuts[p] & CHUNK) return false;
        if (path[p - symbol_into(values, p)] == UNKNOWN) return true;
        return unk_length > 0 && unk_length <= p && path[p - unk_length] == unk_id;
    }

    __device__ i64 run_stop(i64 p) const {
        do p += path[p] == UNKNOWN ? symbol_from(values, p) : unk_length;
        while (!(cuts[p] & CHUNK) && is_unknown(path[p]));
        return p;
    }

    // Write the ids of the arc, or run of unknown arcs, that begins at p to ids, unless ids is null; returns how many.
    __device__ i64 emit(i64 p, int* ids) const {
        const int arc = path[p];
        if (arc == NO_ARC) return 0;
        if (!is_unknown(arc)) {
            if (ids) *ids = arc <= TOKEN_ARC ? TOKEN_ARC - arc : arc;
            return 1;
        }
        if (continues(p)) return 0;
        int id = unk_id;
        if (look_up || has_bytes) {
            const i64 stop = run_stop(p);
            const int piece = look_up ? find_piece(values, p, stop, nodes, piece_at) : -1;
            if (piece >= 0) id = piece;
            else if (are_spelled(p, stop)) {
                for (i64 q = p; ids && q < stop; ++q) ids[q - p] = byte_ids[values[q]];
                return stop - p;
            }
        }
        if (ids) *ids = id;
        return 1;
    }

    __device__ bool are_spelled(i64 p, i64 stop) const {
        for (; p < stop; ++p)
            if (byte_ids[values[p]] < 0) return false;
        return true;
    }
};

// A thread per chunk and sample: a chunk that is a token is an arc of its own. path holds nothing else there.
extern "C" __global__ void place_tokens(const i64* __restrict__ chunk_offsets, const int* __restrict__ chunk_ids,
                                        i64 n_chunks, i64 n, i64 num_samples, int* __restrict__ path) {
    const i64 i_sample = thread_index() / n_chunks, i_chunk = thread_index() % n_chunks;
    if (i_sample < num_samples && chunk_ids[i_chunk] >= 0)
        path[i_sample * n + chunk_offsets[i_chunk]] = TOKEN_ARC - chunk_ids[i_chunk];
}

// A thread per group and sample. counts i64 [num_samples, groups].
extern "C" __global__ void count_ids(const u8* values, const u8* cuts, i64 n, i64 num_samples, const int* path,
                                     const Node* nodes, const int* piece_at, const int* byte_ids, i64 unk_id,
                                     i64 unk_length, i64 has_bytes, i64 look_up, i64* __restrict__ counts) {
    const i64 n_groups = (n + GROUP - 1) / GROUP;
    const i64 i_sample = thread_index() / n_groups, i_group = thread_index() % n_groups;
    if (i_sample >= num_samples) return;
    const Emission emission = {values, cuts, n, path + i_sample * n, nodes, piece_at, byte_ids, static_cast<int>(unk_id),
                               static_cast<int>(unk_length), has_bytes != 0, look_up != 0};
    const i64 stop = (i_group + 1) * GROUP < n ? (i_group + 1) * GROUP : n;
    i64 count = 0;
    for (i64 p = i_group * GROUP; p < stop; ++p) count += emission.emit(p, nullptr);
    counts[thread_index()] = count;
}

// A thread per row. sums i64: the running sums of counts, flat. Writes lengths i64 [rows], ids of each row, n_around of
// them around it, and first_ids i64 [rows]: ids of the sample, and of those before it, that come before the row.
extern "C" __global__ void measure_rows(const u8* values, const u8* cuts, i64 n, i64 num_samples, const int* path,
                                        const Node* nodes, const int* piece_at, const int* byte_ids, i64 unk_id,
                                        i64 unk_length, i64 has_bytes, i64 look_up, const i64* __restrict__ sums,
                                        const i64* __restrict__ doc_offsets, i64 n_docs,
                                        const bool* __restrict__ is_null, i64 n_around, i64* __restrict__ lengths,
                                        i64* __restrict__ first_ids) {
    const i64 row = thread_index();
    if (row >= n_docs * num_samples) return;
    const i64 n_groups = (n + GROUP - 1) / GROUP;
    const i64 i_doc = row / num_samples, i_sample = row % num_samples;
    const Emission emission = {values, cuts, n, path + i_sample * n, nodes, piece_at, byte_ids, static_cast<int>(unk_id),
                               static_cast<int>(unk_length), has_bytes != 0, look_up != 0};
    const auto ids_before = [&](i64 p) {
        const i64 i = i_sample * n_groups + p / GROUP;
        i64 sum = i > 0 ? sums[i - 1] : 0;
        for (i64 q = p / GROUP * GROUP; q < p; ++q) sum += emission.emit(q, nullptr);
        return sum;
    };
    const i64 start = ids_before(doc_offsets[i_doc]);
    first_ids[row] = start;
    lengths[row] = is_null[i_doc] ? 0 : ids_before(doc_offsets[i_doc + 1]) - start + n_around;
}

// A thread per group and sample.
extern "C" __global__ void place_ids(const u8* values, const u8* cuts, i64 n, i64 num_samples, const int* path,
                                     const Node* nodes, const int* piece_at, const int* byte_ids, i64 unk_id,
                                     i64 unk_length, i64 has_bytes, i64 look_up, const i64* __restrict__ sums,
                                     const i64* __restrict__ doc_offsets, i64 n_docs,
                                     const i64* __restrict__ first_ids, const i64* __restrict__ offsets, i64 n_before,
                                     int* __restrict__ ids) {
    const i64 n_groups = (n + GROUP - 1) / GROUP;
    const i64 i_sample = thread_index() / n_groups, i_group = thread_index() % n_groups;
    if (i_sample >= num_samples) return;
    const Emission emission = {values, cuts, n, path + i_sample * n, nodes, piece_at, byte_ids, static_cast<int>(unk_id),
                               static_cast<int>(unk_length), has_bytes != 0, look_up != 0};
    const i64 start = i_group * GROUP, stop = start + GROUP < n ? start + GROUP : n;
    i64 sum = thread_index() > 0 ? sums[thread_index() - 1] : 0;
    i64 i_doc = document_of(doc_offsets, n_docs, start + 1);
    for (i64 p = start; p < stop; ++p) {
        while (doc_offsets[i_doc + 1] <= p) ++i_doc;
        const i64 row = i_doc * num_samples + i_sample;
        sum += emission.emit(p, ids + offsets[row] + n_before + sum - first_ids[row]);
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
