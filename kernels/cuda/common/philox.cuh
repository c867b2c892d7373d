// Philox4x32-10 (Salmon et al. 2011): a counter in, a number in [0, 1) out, no state.
#pragma once
#include "common/text.cuh"

// key = the seed's two words, counter = (position, sample, document low, document high).
__device__ inline double uniform(u64 seed, u32 position, u32 i_sample, u64 doc_id) {
    u32 k0 = static_cast<u32>(seed), k1 = static_cast<u32>(seed >> 32);
    u32 c0 = position, c1 = i_sample, c2 = static_cast<u32>(doc_id), c3 = static_cast<u32>(doc_id >> 32);
    for (int round = 0; round < 10; ++round) {
        const u32 high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const u32 high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    const u64 bits = (static_cast<u64>(c0) << 32 | c1) >> 11;
    return static_cast<double>(static_cast<i64>(bits)) * 0x1p-53;
}
