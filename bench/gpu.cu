// What the kernels' speed is bounded by: random loads, and the walk along the trie without the sums.
#include "common/trie.cuh"

// A step of Knuth's linear congruential generator; its high bits are random enough to scatter loads.
__device__ __forceinline__ u64 scattered(u64& state, u64 mask) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return state >> 33 & mask;
}

// A thread makes `rounds` loads of 8 bytes from table u64 [n], n a power of two; sums u64 [threads].
extern "C" __global__ void gather8(const u64* __restrict__ table, i64 n, i64 rounds, u64* __restrict__ sums) {
    u64 state = thread_index(), sum = 0;
    for (i64 i = 0; i < rounds; ++i) sum += table[scattered(state, n - 1)];
    sums[thread_index()] = sum;
}

// The same with loads of 16 bytes; n counts these.
extern "C" __global__ void gather16(const int4* __restrict__ table, i64 n, i64 rounds, u64* __restrict__ sums) {
    u64 state = thread_index(), sum = 0;
    for (i64 i = 0; i < rounds; ++i) {
        const int4 loaded = __ldg(table + scattered(state, n - 1));
        sum += loaded.x + loaded.y + loaded.z + loaded.w;
    }
    sums[thread_index()] = sum;
}

// A thread per STRETCH bytes walks back from every position of values u8 [n] as far as the trie, or the stretch, goes;
// loads u64 [threads] counts the nodes that it has looked at.
extern "C" __global__ void walk(const u8* __restrict__ values, i64 n, const Node* __restrict__ nodes,
                                u64* __restrict__ loads) {
    const i64 first = thread_index() * STRETCH;
    if (first >= n) return;
    const int limit = n - first < STRETCH ? static_cast<int>(n - first) : STRETCH;
    values += first;
    int e = 1, s = 1;
    u64 count = 0;
    double value;
    Walk walk = root(nodes);
    while (e <= limit) {
        const bool is_boundary = IS_BYTES || e == limit || (values[e] & 0xC0) != 0x80;
        if (is_boundary && s > 0) {
            ++count;
            if (descend(nodes, walk, values[s - 1], value)) {
                --s;
                continue;
            }
        }
        s = ++e;
        walk = root(nodes);
    }
    loads[thread_index()] = count;
}
